//! Any frame, against tables in which everything is found: no read past the end, no verdict that
//! points outside; what one node encapsulates, the next one unpacks to the same packet.
#![no_main]

use ingress_ebpf::{
    abi::{Bucket, ENCAP_PORT, MacKey, Meta, Node, SelfNode, Steer, VipKey, VipValue, node_flags},
    encap::{OVERHEAD, Outer},
    hash::Flow,
    verdict::{self, Reason, Tables, Verdict},
};
use libfuzzer_sys::fuzz_target;

/// Every address is a VIP and a peer; the first byte of the input says who owns it and how it is
/// reached.
struct Everything {
    meta: Meta,
    this_node: SelfNode,
    vip: VipValue,
    bucket: Bucket,
    node: Node,
    is_peer: bool,
    is_listening: bool,
}

impl Everything {
    /// `frame` is for this node if its bytes leave any way that it could be.
    fn new(choice: u8, frame: &[u8]) -> Self {
        let mac = frame.first_chunk::<6>().copied().unwrap_or_default();
        let ip4 = frame
            .get(30..34)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
            .unwrap_or_default();
        let l2 = if choice & 1 == 0 { 0 } else { node_flags::L2 };
        Self {
            meta: Meta {
                seed: [1, 2],
                ..Meta::default()
            },
            this_node: SelfNode {
                id: 1,
                ip4,
                macs: [mac; 4],
                ..SelfNode::default()
            },
            vip: VipValue::default(),
            bucket: Bucket {
                hops: [u16::from(choice >> 1 & 3), 2, 3],
            },
            node: Node {
                flags: node_flags::V4 | l2,
                mtu: 1500,
                ..Node::default()
            },
            is_peer: choice & 8 != 0,
            is_listening: choice & 16 != 0,
        }
    }
}

impl Tables for Everything {
    fn meta(&self) -> Option<&Meta> {
        Some(&self.meta)
    }

    fn this_node(&self) -> Option<&SelfNode> {
        Some(&self.this_node)
    }

    fn vip(&self, _: &VipKey) -> Option<&VipValue> {
        Some(&self.vip)
    }

    fn bucket(&self, _: u8, index: u32) -> Option<&Bucket> {
        assert!(index < 65_537, "bucket {index}");
        Some(&self.bucket)
    }

    fn node(&self, _: u16) -> Option<&Node> {
        Some(&self.node)
    }

    fn is_peer(&self, _: &[u8; 16]) -> bool {
        true
    }

    fn is_peer_mac(&self, _: &MacKey) -> bool {
        self.is_peer
    }

    fn is_listening(&self, _: u8, _: Flow, _: [u32; 2]) -> bool {
        self.is_listening
    }
}

/// Makes most frames plausible: a guess of the right ethertype, version, protocol and length takes
/// for ever.
fn plausible(choice: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    let length = u16::try_from(frame.len().saturating_sub(14)).unwrap_or(u16::MAX);
    if choice & 32 == 0 && frame.len() >= 34 {
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[20..22].fill(0);
        frame[23] = if choice & 64 == 0 { 6 } else { 17 };
    }
    if choice & 160 == 128 && frame.len() >= 90 {
        // As a peer sends it: UDP to our port, our header, a TCP packet inside.
        frame[23] = 17;
        frame[36..38].copy_from_slice(&ENCAP_PORT.to_be_bytes());
        frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
        frame[42..44].copy_from_slice(&[Steer::VERSION_LENGTH, 0]);
        frame[50] = 0x45;
        frame[52..54].copy_from_slice(&(length - 36).to_be_bytes());
        frame[56..58].fill(0);
        frame[59] = 6;
    }
    frame
}

/// What an owner holds that the packet inside `outer` was sent to: the bucket is its own, and it
/// listens.
fn owner_of(outer: &Outer) -> Everything {
    Everything {
        this_node: SelfNode {
            id: 1,
            ip4: outer.destination,
            macs: [outer.destination_mac; 4],
            ..SelfNode::default()
        },
        bucket: Bucket { hops: [1, 2, 3] },
        is_listening: true,
        ..Everything::new(0, &[])
    }
}

/// The frame as it leaves: new MAC addresses, the rest of the link header, the outer headers.
fn encapsulated(frame: &[u8], network: usize, outer: &Outer) -> Vec<u8> {
    let macs = [outer.destination_mac, outer.source_mac].concat();
    [
        &macs,
        &frame[macs.len()..network],
        &outer.headers(),
        &frame[network..],
    ]
    .concat()
}

/// The sum of the header's words, which a right checksum makes all ones (RFC 1071).
fn internet_sum(header: &[u8]) -> u64 {
    let words = header.chunks(2).map(|word| [word[0], word[1]]);
    let sum: u64 = words.map(|word| u64::from(u16::from_be_bytes(word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

/// The owner takes the encapsulated packet for what it was, and serves it.
fn assert_arrives(frame: &[u8], network: usize, outer: &Outer) {
    let sent = encapsulated(frame, network, outer);
    let inner = usize::from(outer.inner_length);
    let word = |at: usize| usize::from(u16::from_be_bytes([sent[at], sent[at + 1]]));

    let ip = &sent[network..network + 20];
    assert_eq!(internet_sum(ip), 0xffff, "checksum of {ip:02x?}");
    assert_eq!(word(network + 2), inner + OVERHEAD, "length by IPv4");
    assert_eq!(word(network + 24), inner + OVERHEAD - 20, "length by UDP");

    let owner = owner_of(outer);
    assert_eq!(
        verdict::steer(sent.as_slice(), &owner),
        Verdict::Decapsulate { network },
        "{sent:02x?}"
    );
    let unpacked = without_outer(&sent, network);
    assert_eq!(unpacked[network..], frame[network..], "what was inside");
    assert_served(&unpacked, &owner);
}

fn without_outer(frame: &[u8], network: usize) -> Vec<u8> {
    [&frame[..network], &frame[network + OVERHEAD..]].concat()
}

/// A node that owns the bucket and listens keeps the frame for the kernel.
fn assert_served(frame: &[u8], owner: &Everything) {
    assert_eq!(
        verdict::steer(frame, owner),
        Verdict::Pass(Reason::Own),
        "{frame:02x?}"
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let frame = plausible(*choice, bytes);
    let tables = Everything::new(*choice, &frame);
    match verdict::steer(frame.as_slice(), &tables) {
        Verdict::ForwardUdp { network, outer } => {
            assert!(
                usize::from(outer.inner_length) + OVERHEAD <= 1500,
                "the packet is longer than the MTU"
            );
            assert_arrives(&frame, network, &outer);
        }
        Verdict::Decapsulate { network } => {
            let owner = Everything {
                bucket: Bucket {
                    hops: [tables.this_node.id, 2, 3],
                },
                is_listening: true,
                ..tables
            };
            assert_served(&without_outer(&frame, network), &owner);
        }
        Verdict::ForwardL2 { source, .. } => {
            assert_eq!(source, frame[..6], "it leaves from where it arrived");
        }
        Verdict::Pass(_) | Verdict::Drop(_) => {}
    }
});
