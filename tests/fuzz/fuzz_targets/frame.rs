//! Any frame, against tables in which everything is found: no read past the end, no verdict that
//! points outside; what one node encapsulates, the next one unpacks to the same packet.
#![no_main]

use ingress_ebpf::{
    abi::{
        Addresses, Bucket, ENCAP_PORT, FirstHop, Keys, Mac, NODES, Node, Steer, Unit, VipKey4,
        VipKey6, VipValue, macs, node_flags, unit_flags,
    },
    encap::{Outer, overhead},
    flow::Flow,
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN},
    reason::Reason,
    tables::Tables,
    verdict::{self, Verdict},
};
use libfuzzer_sys::fuzz_target;

const MTU: u16 = 1500;

/// Every address is a VIP; the first byte of the input says who owns it and how it is reached.
struct Everything {
    unit: Unit,
    mac: Mac,
    vip: VipValue,
    bucket: Bucket,
    /// The node that frames are from, and that packets come back to.
    own: Node,
    other: Node,
    is_peer: bool,
    is_here: bool,
}

impl Everything {
    /// `frame` is for this node if its bytes leave any way that it could be.
    fn new(choice: u8, frame: &[u8]) -> Self {
        let word = |at: usize| -> u32 {
            let bytes = frame
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes).unwrap_or_default()
        };
        let six = |at: usize| [word(at), word(at + 4), word(at + 8), word(at + 12)];
        let mac = frame.first_chunk::<6>().copied().unwrap_or_default();
        let l2 = if choice & 1 == 0 { 0 } else { node_flags::L2 };
        let family = if choice & 2 == 0 {
            node_flags::V4
        } else {
            node_flags::V6
        };
        let node = |ip4, ip6| Node {
            addresses: Addresses { ip6, ip4 },
            interface: 1,
            macs: macs([2, 0, 0, 0, 0, 9], mac),
            flags: node_flags::RESOLVED | family | l2,
            mtu: MTU,
            vlan: if choice & 64 == 0 { 0 } else { 7u16.to_be() },
            reserved: 0,
        };
        let own = node(word(30), six(38));
        Self {
            unit: Unit {
                epoch: 3,
                keys: Keys::of(1),
                addresses: own.addresses,
                self_id: 1,
                flags: if l2 == 0 { 0 } else { unit_flags::BY_MAC },
                fill: 3,
                mark: 3,
            },
            mac: Mac::new(mac),
            vip: VipValue::default(),
            bucket: Bucket {
                hops: [u16::from(choice >> 2 & 3), 2, 3],
                epoch: 3,
            },
            own,
            other: node(word(26), six(22)),
            is_peer: choice & 16 != 0,
            is_here: choice & 32 != 0,
        }
    }
}

impl Tables for Everything {
    fn unit(&self) -> Option<(u16, &Unit)> {
        Some((0, &self.unit))
    }

    fn is_own_mac(&self, mac: Mac) -> bool {
        self.mac == mac
    }

    fn mac_here(&self) -> Option<Mac> {
        Some(self.mac)
    }

    fn vip4(&self, _: &VipKey4) -> Option<&VipValue> {
        Some(&self.vip)
    }

    fn vip6(&self, _: &VipKey6) -> Option<&VipValue> {
        Some(&self.vip)
    }

    fn first_hop(&self, unit: u16, pool: u8, index: u32) -> Option<FirstHop> {
        self.bucket(unit, pool, index).map(FirstHop::of)
    }

    fn bucket(&self, _: u16, _: u8, index: u32) -> Option<&Bucket> {
        assert!(index < 65_537, "bucket {index}");
        Some(&self.bucket)
    }

    fn node(&self, _: u16, id: u16) -> Option<&Node> {
        if id == self.unit.self_id {
            return Some(&self.own);
        }
        // What a frame says may be any number.
        (usize::from(id) < NODES).then_some(&self.other)
    }

    fn came(&self, _: u32, _: usize, _: bool) {}

    fn dropped(&self, _: u32) {}

    fn is_peer_mac(&self, _: Mac) -> bool {
        self.is_peer
    }

    fn may_send_on(&self) -> bool {
        true
    }

    fn is_listening(&self, _: u8, _: u32) -> bool {
        true
    }

    fn has4(&self, _: &Flow<u32>, _: Option<usize>) -> bool {
        self.is_here
    }

    fn has6(&self, _: &Flow<[u32; 4]>, _: Option<usize>) -> bool {
        self.is_here
    }
}

/// Makes most frames plausible: a guess of the right ethertype, version, protocol and length takes
/// for ever.
fn plausible(choice: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    let length = u16::try_from(frame.len().saturating_sub(14)).unwrap_or(u16::MAX);
    match choice >> 6 {
        0 if frame.len() >= 34 => {
            frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[20..22].fill(0);
            frame[23] = [6, 17, 1][usize::from(choice) % 3];
        }
        1 if frame.len() >= 54 => {
            frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
            frame[18..20].copy_from_slice(&(length - 40).to_be_bytes());
            frame[20] = [6, 17, 58][usize::from(choice) % 3];
        }
        2 if frame.len() >= 90 => {
            // As a peer sends it: UDP to our port, our header, a TCP packet inside.
            frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[20..22].fill(0);
            frame[23] = 17;
            frame[36..38].copy_from_slice(&ENCAP_PORT.to_be_bytes());
            frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
            frame[42] = Steer::VERSION_LENGTH;
            frame[50] = 0x45;
            frame[52..54].copy_from_slice(&(length - 36).to_be_bytes());
            frame[56..58].fill(0);
            frame[59] = 6;
        }
        _ => {}
    }
    frame
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The frame as it leaves: a link header of the way to the node, the outer headers, the packet.
fn encapsulated(frame: &[u8], cut: usize, outer: &Outer<'_>) -> Vec<u8> {
    let mut sent = bytes(&outer.node.macs);
    if outer.node.vlan != 0 {
        sent.extend(ETHERTYPE_VLAN.to_be_bytes());
        sent.extend(outer.node.vlan.to_ne_bytes());
    }
    if outer.node.flags & node_flags::V4 != 0 {
        sent.extend(ETHERTYPE_IPV4.to_be_bytes());
        let headers = bytes(&outer.headers4());
        assert_eq!(internet_sum(&headers[..20]), 0xffff, "{headers:02x?}");
        sent.extend(headers);
    } else {
        sent.extend(ETHERTYPE_IPV6.to_be_bytes());
        sent.extend(bytes(&outer.headers6()));
    }
    sent.extend(&frame[cut..]);
    sent
}

/// The sum of the header's words, which a right checksum makes all ones (RFC 1071).
fn internet_sum(header: &[u8]) -> u64 {
    let words = header.chunks(2).map(|word| [word[0], word[1]]);
    let sum: u64 = words.map(|word| u64::from(u16::from_be_bytes(word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

/// The node that gets an encapsulated packet takes it for what it was, or sends it on to a hop that
/// travelled with it, until the last one keeps it.
fn assert_arrives(frame: &[u8], cut: usize, outer: &Outer<'_>, receivers: [Everything; 2]) {
    let mut sent = encapsulated(frame, cut, outer);
    let inner = frame[cut..].to_vec();
    let link = if outer.node.vlan == 0 { 14 } else { 18 };
    for receiver in receivers.iter().cycle().take(4) {
        let decision = verdict::steer(sent.as_slice(), receiver);
        match decision.verdict {
            Verdict::Decapsulate { network, cut, .. } => {
                assert_eq!(network, link, "{sent:02x?}");
                assert_eq!(sent[network + cut..], inner, "what was inside");
                return;
            }
            Verdict::Encapsulate { cut, outer } => {
                assert_eq!(decision.reason, Reason::SecondChance);
                sent = encapsulated(&sent, cut, &outer);
            }
            verdict => panic!("{verdict:?}, {:?}: {sent:02x?}", decision.reason),
        }
    }
    panic!("it goes round");
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let frame = plausible(*choice, rest);
    let tables = Everything::new(*choice, &frame);
    let decision = verdict::steer(frame.as_slice(), &tables);
    match decision.verdict {
        Verdict::Encapsulate { cut, outer } => {
            let length = usize::from(outer.inner_length);
            assert!(
                length + overhead(outer.node) <= usize::from(MTU),
                "the packet is longer than the MTU"
            );
            assert!(cut + length <= frame.len());
            // Whoever gets it has the address that it was sent to, and another one for the sender.
            let (own, other) = (tables.own.addresses, tables.other.addresses);
            // And zero is nobody's address.
            let is_ones = |of: Addresses| of.ip4 != 0 && of.ip6 != [0; 4];
            let is_reachable =
                own.ip4 != other.ip4 && own.ip6 != other.ip6 && is_ones(own) && is_ones(other);
            if is_reachable {
                let receiver = |self_id, own: Node, other| Everything {
                    unit: Unit {
                        self_id,
                        addresses: own.addresses,
                        ..tables.unit
                    },
                    mac: Mac::new([2, 0, 0, 0, 0, 9]),
                    own,
                    other,
                    ..Everything::new(*choice, &frame)
                };
                // By turns: what one sends on has the addresses of both.
                let receivers = [
                    receiver(5, tables.other, tables.own),
                    receiver(6, tables.own, tables.other),
                ];
                assert_arrives(&frame, cut, &outer, receivers);
            }
        }
        Verdict::Decapsulate { network, cut, .. } => {
            assert!(network + cut < frame.len());
        }
        Verdict::ForwardL2 { .. } => {
            assert!(!tables.is_peer, "it was steered once already");
        }
        Verdict::Pass | Verdict::Drop => {}
    }
});
