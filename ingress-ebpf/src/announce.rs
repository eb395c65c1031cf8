//! Who has a virtual IP: answers to ARP requests (RFC 826) and to neighbour solicitations (RFC 4861).
//!
//! No interface has the address, so the kernel does not speak for it. One node at a time answers, by a flag
//! of the VIP that userspace sets; the others keep the question from their kernels, which would answer ARP
//! for a local route. Which one it is matters to no connection: each node passes a packet on to its owner.

use crate::{
    abi::{ANY_SERVICE, VipKey4, VipKey6, VipValue, macs, vip_flags},
    family::{Family as _, V6},
    frame::Frame,
    headers::{self, IPV6},
    reason::Reason,
    tables::Tables,
};

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IANA number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// ICMPv6 type of a neighbour solicitation, and of what answers it.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Words of an ARP packet of IPv4 over Ethernet.
pub const ARP_WORDS: usize = 7;
/// Words of an advertisement with one option, from its IPv6 header on.
pub const ADVERTISEMENT_WORDS: usize = 18;

/// Ethernet and IPv4, as the first four bytes of an ARP packet.
const ETHERNET_IPV4: u32 = u32::from_ne_bytes([0, 1, 8, 0]);
/// The same for hardware of IEEE 802 (RFC 2625 section 5), which kernels take for Ethernet.
const IEEE802_IPV4: u32 = u32::from_ne_bytes([0, 6, 8, 0]);
/// Lengths of their addresses, and what the packet is.
const REQUEST: u32 = u32::from_ne_bytes([6, 4, 0, 1]);
const REPLY: u32 = u32::from_ne_bytes([6, 4, 0, 2]);

/// Bytes of a solicitation without options.
const SOLICITATION_LENGTH: usize = 24;
/// Options are counted in units of eight bytes. One with the sender's address has one, and so has a nonce
/// (RFC 7527); whoever sends more than this is not answered.
const MOST_UNITS: usize = 3;
/// The option with the sender's link-layer address, and that with the target's.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// Flags of an advertisement: somebody has asked, and it takes the place of what is known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The group of all nodes of a link, and its MAC address (RFC 2464 section 7).
const ALL_NODES: [u32; 4] = [
    u32::from_ne_bytes([0xff, 0x02, 0, 0]),
    0,
    0,
    u32::from_ne_bytes([0, 0, 0, 1]),
];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// What answers a question: the start of the frame, and what takes the place of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<const WORDS: usize> {
    /// The first twelve bytes of the frame. Tags stay.
    pub macs: [u32; 3],
    /// What follows the link-layer header. Of ARP padding stays behind it; of IPv6 the frame ends there.
    pub packet: [u32; WORDS],
}

/// Answers an ARP request at `payload`. A probe (sender 0.0.0.0, RFC 5227) is answered too.
///
/// # Errors
///
/// Why it is not answered: [`Reason::NotAnnouncer`] and [`Reason::BadSender`] drop it, all others let it
/// pass.
#[inline(always)]
pub fn arp<T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &T,
    payload: usize,
) -> Result<Answer<ARP_WORDS>, Reason> {
    let [kind, operation, first, second, third, _, target] =
        frame.words(payload).ok_or(Reason::Malformed)?;
    if kind != ETHERNET_IPV4 && kind != IEEE802_IPV4 || operation != REQUEST {
        return Err(Reason::NotIp);
    }
    let key = VipKey4 {
        address: target,
        service: ANY_SERVICE,
    };
    let vip = announced(tables.vip4(&key)).ok_or(Reason::NotIp)?;
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    let ([i, j, ..], asks) = (third.to_ne_bytes(), [a, b, c, d, e, f]);
    let sender = u32::from_ne_bytes([g, h, i, j]);
    if sender == target {
        // Nobody asks: somebody tells all that the address is his.
        return Err(Reason::NotIp);
    }
    let own = answering(frame, tables, vip);
    if is_group(asks) || asks == [0; 6] {
        // The kernel of each node would answer: to a whole group, if the sender says so.
        return Err(match own {
            Err(Reason::OtherMac) => Reason::OtherMac,
            _ => Reason::BadSender,
        });
    }
    let own = own?;
    let [k, l, m, n, o, p] = own;
    let [q, r, s, t] = target.to_ne_bytes();
    Ok(Answer {
        macs: macs(asks, own),
        packet: [
            ETHERNET_IPV4,
            REPLY,
            u32::from_ne_bytes([k, l, m, n]),
            u32::from_ne_bytes([o, p, q, r]),
            u32::from_ne_bytes([s, t, a, b]),
            u32::from_ne_bytes([c, d, e, f]),
            sender,
        ],
    })
}

/// Answers a neighbour solicitation, whose IPv6 header is at `payload`. One that looks for duplicates
/// (from the unspecified address, RFC 4862) is answered to all.
///
/// # Errors
///
/// As [`arp`].
#[inline(always)]
pub fn solicitation<T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &T,
    payload: usize,
) -> Result<Answer<ADVERTISEMENT_WORDS>, Reason> {
    let packet = V6::parse(frame, payload).ok_or(Reason::Malformed)?;
    let transport = payload + IPV6;
    let head: [u32; 6] = frame.words(transport).ok_or(Reason::Malformed)?;
    let [_, _, t0, t1, t2, t3] = head;
    let target = [t0, t1, t2, t3];
    let key = VipKey6 {
        address: target,
        service: ANY_SERVICE,
    };
    let vip = announced(tables.vip6(&key)).ok_or(Reason::NotTcp)?;
    // RFC 4861 section 7.1.1. The hop limit says that no router has passed it on.
    let [hops] = frame.read(payload + 7).ok_or(Reason::Malformed)?;
    let [_, code, ..] = head[0].to_ne_bytes();
    let length = packet.total - IPV6;
    let is_whole = length >= SOLICITATION_LENGTH && length.is_multiple_of(8);
    let units = length.wrapping_sub(SOLICITATION_LENGTH) / 8;
    if hops != u8::MAX || code != 0 || !is_whole || units > MOST_UNITS {
        return Err(Reason::Malformed);
    }
    let options = options(frame, transport + SOLICITATION_LENGTH, units)?;
    let heading = pseudo_header(packet.source, packet.destination, length);
    if fold(heading + sum(head) + options.sum) != u16::MAX {
        return Err(Reason::Malformed);
    }
    let [to, source]: [[u8; 6]; 2] = [
        frame.read(0).ok_or(Reason::Malformed)?,
        frame.read(6).ok_or(Reason::Malformed)?,
    ];
    let is_probe = packet.source == [0; 4];
    // The answer to a probe goes to all: whoever could have it for a frame to this node alone would evade
    // what a switch allows of those to all, and have the node exceed it.
    let is_to_group = is_group(to) && is_of_solicited(packet.destination);
    if is_probe && (options.has_source || !is_to_group) {
        return Err(Reason::Malformed);
    }
    let [group, ..] = packet.source[0].to_ne_bytes();
    if group == 0xff || is_group(source) || source == [0; 6] {
        return Err(Reason::Malformed);
    }
    if packet.source == target {
        return Err(Reason::NotTcp);
    }
    let own = answering(frame, tables, vip)?;
    Ok(if is_probe {
        advertisement(target, ALL_NODES, ALL_NODES_MAC, own, OVERRIDE)
    } else {
        advertisement(target, packet.source, source, own, SOLICITED | OVERRIDE)
    })
}

/// What tells all nodes of a link that the virtual IP `target` is at `own`, though nobody has asked.
pub fn unsolicited(target: [u32; 4], own: [u8; 6]) -> Answer<ADVERTISEMENT_WORDS> {
    advertisement(target, ALL_NODES, ALL_NODES_MAC, own, OVERRIDE)
}

/// The two forms of what tells the same of an IPv4 address (RFC 5227 section 3): hosts take one or the
/// other.
pub fn gratuitous(target: u32, own: [u8; 6]) -> [Answer<ARP_WORDS>; 2] {
    const ALL: [u8; 6] = [0xff; 6];
    [(REQUEST, [0; 6]), (REPLY, own)].map(|(operation, [a, b, c, d, e, f])| {
        let [k, l, m, n, o, p] = own;
        let [q, r, s, t] = target.to_ne_bytes();
        Answer {
            macs: macs(ALL, own),
            packet: [
                ETHERNET_IPV4,
                operation,
                u32::from_ne_bytes([k, l, m, n]),
                u32::from_ne_bytes([o, p, q, r]),
                u32::from_ne_bytes([s, t, a, b]),
                u32::from_ne_bytes([c, d, e, f]),
                target,
            ],
        }
    })
}

#[inline(always)]
fn advertisement(
    target: [u32; 4],
    to: [u32; 4],
    to_mac: [u8; 6],
    own: [u8; 6],
    flags: u8,
) -> Answer<ADVERTISEMENT_WORDS> {
    const LENGTH: usize = 4 * ADVERTISEMENT_WORDS - IPV6;
    let [a, b, c, d, e, f] = own;
    let option = [
        u32::from_ne_bytes([TARGET_ADDRESS, 1, a, b]),
        u32::from_ne_bytes([c, d, e, f]),
    ];
    let flags = u32::from_ne_bytes([flags, 0, 0, 0]);
    let kind = u32::from_ne_bytes([ADVERTISEMENT, 0, 0, 0]);
    let heading = pseudo_header(target, to, LENGTH);
    let sum = heading + sum([kind, flags]) + sum(target) + sum(option);
    let [g, h] = (!fold(sum)).to_ne_bytes();
    let ([q, r, s, t], [u, v, w, x]) = (target, to);
    Answer {
        macs: macs(to_mac, own),
        packet: [
            u32::from_ne_bytes([0x60, 0, 0, 0]),
            u32::from_ne_bytes([0, LENGTH as u8, ICMPV6, u8::MAX]),
            q,
            r,
            s,
            t,
            u,
            v,
            w,
            x,
            u32::from_ne_bytes([ADVERTISEMENT, 0, g, h]),
            flags,
            q,
            r,
            s,
            t,
            option[0],
            option[1],
        ],
    }
}

/// A VIP that somebody announces.
#[inline(always)]
fn announced(vip: Option<&VipValue>) -> Option<&VipValue> {
    const SOMEBODY: u16 = vip_flags::ANNOUNCED | vip_flags::ELSEWHERE;
    vip.filter(|vip| vip.flags & SOMEBODY != 0)
}

/// By which address this node answers a question about a VIP, if it does.
#[inline(always)]
fn answering<T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &T,
    vip: &VipValue,
) -> Result<[u8; 6], Reason> {
    let to = frame.read::<6>(0).ok_or(Reason::Malformed)?;
    // A switch that floods shows us what is for others.
    let is_for_us =
        is_group(to) || headers::destination_mac(frame).is_some_and(|mac| tables.is_own_mac(mac));
    if !is_for_us {
        return Err(Reason::OtherMac);
    }
    if vip.flags & vip_flags::ANNOUNCED == 0 {
        return Err(Reason::NotAnnouncer);
    }
    let own = tables.mac_here().ok_or(Reason::NoTable)?;
    Ok(own.bytes())
}

/// What the options of a solicitation say.
struct Options {
    /// Of their words.
    sum: u64,
    /// One names the sender's link-layer address.
    has_source: bool,
}

/// Walks through options of so many `units` of eight bytes at `at`.
#[inline(always)]
fn options(frame: &(impl Frame + ?Sized), at: usize, units: usize) -> Result<Options, Reason> {
    let mut options = Options {
        sum: 0,
        has_source: false,
    };
    // Where the next one starts.
    let (mut next, mut unit) = (0, 0);
    while unit < MOST_UNITS {
        if unit < units {
            let words: [u32; 2] = frame.words(at + 8 * unit).ok_or(Reason::Malformed)?;
            options.sum += sum(words);
            if unit == next {
                let [kind, length, ..] = words[0].to_ne_bytes();
                if length == 0 {
                    return Err(Reason::Malformed);
                }
                options.has_source |= kind == SOURCE_ADDRESS;
                next += length as usize;
            }
        }
        unit += 1;
    }
    if next == units {
        Ok(options)
    } else {
        Err(Reason::Malformed)
    }
}

#[inline(always)]
const fn is_group([first, ..]: [u8; 6]) -> bool {
    first & 1 != 0
}

/// Whether an address is a group that is asked for a neighbour: ff02::1:ff00:0/104.
#[inline(always)]
const fn is_of_solicited([a, b, c, d]: [u32; 4]) -> bool {
    let [last, ..] = d.to_ne_bytes();
    a == ALL_NODES[0] && b == 0 && c == u32::from_ne_bytes([0, 0, 0, 1]) && last == 0xff
}

/// The sum of what a checksum of ICMPv6 covers beside the message (RFC 8200 section 8.1).
#[inline(always)]
fn pseudo_header(source: [u32; 4], destination: [u32; 4], length: usize) -> u64 {
    sum(source) + sum(destination) + sum([(length as u32).to_be(), u32::from(ICMPV6).to_be()])
}

/// The sum of words, of which [`fold`] makes the Internet checksum: it is the same for words of any width
/// and order of bytes (RFC 1071 section 2).
#[inline(always)]
fn sum<const N: usize>(words: [u32; N]) -> u64 {
    let (mut sum, mut index) = (0, 0);
    while index < N {
        sum += words[index] as u64;
        index += 1;
    }
    sum
}

#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(all(test, feature = "fixtures"))]
mod tests {
    use super::*;
    use crate::fixtures::{
        Action, OWN_MAC, VIP, VIP6, World, outcome,
        packet::{raw, raw6},
        questions::{Arp, Discovery},
    };

    fn bytes<const WORDS: usize>(answer: &Answer<WORDS>, ethertype: [u8; 2]) -> Vec<u8> {
        let bytes =
            |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_ne_bytes()).collect() };
        [bytes(&answer.macs), ethertype.into(), bytes(&answer.packet)].concat()
    }

    /// Written down byte by byte.
    #[test]
    fn answers_are_these_bytes() {
        let world = World::new();
        let asked = Arp {
            padding: 0,
            ..Arp::default()
        };
        assert_eq!(
            outcome(&world, &asked.bytes()).frame,
            [
                2, 0, 0, 0, 7, 9, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1,
                198, 51, 100, 10, 2, 0, 0, 0, 7, 9, 198, 18, 1, 1
            ]
        );
        let golden = [
            2, 0, 0, 0, 7, 9, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255, 0x20, 1,
            0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 10, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 9, 0, 0,
            0, 0, 0, 0, 0, 1, 136, 0, 0x8a, 0x57, 0x60, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0,
            0, 0, 0, 0, 0, 0, 10, 2, 1, 2, 0, 0, 0, 0, 1,
        ];
        assert_eq!(outcome(&world, &Discovery::default().bytes()).frame, golden);
    }

    #[test]
    fn nobody_is_answered_before_somebody_announces() {
        let mut world = World::new();
        let values = world.vips4.values_mut().chain(world.vips6.values_mut());
        values.for_each(|value| value.flags = 0);
        for (frame, reason) in [
            (Arp::default().bytes(), Reason::NotIp),
            (Discovery::default().bytes(), Reason::NotTcp),
        ] {
            let outcome = outcome(&world, &frame);
            assert_eq!((outcome.action, outcome.reason), (Action::Pass, reason));
            assert_eq!(outcome.frame, frame);
        }
    }

    #[test]
    fn a_question_that_is_cut_anywhere_is_never_answered() {
        let world = World::new();
        let arp = Arp {
            padding: 0,
            vlans: vec![7],
            ..Arp::default()
        };
        for frame in [
            arp.bytes(),
            Discovery::default().bytes(),
            Discovery::probe().bytes(),
        ] {
            assert_eq!(outcome(&world, &frame).action, Action::Transmit);
            for length in 0..frame.len() {
                let outcome = outcome(&world, &frame[..length]);
                assert_eq!(outcome.action, Action::Pass, "{length} bytes");
                assert_eq!(outcome.frame, &frame[..length]);
            }
        }
    }

    #[test]
    fn a_solicitation_with_any_bit_changed_is_answered_only_where_its_checksum_is_of_no_avail() {
        let world = World::new();
        let frame = Discovery::default().bytes();
        // From the IPv6 header's length on; below is the link layer, and the flow label.
        for at in 18..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                let outcome = outcome(&world, &changed);
                assert_eq!(outcome.action, Action::Pass, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_nobody_asked_for_says_where_the_vip_is() {
        let [request, reply] = gratuitous(raw(VIP), OWN_MAC);
        let said = |operation, target| Arp {
            to_mac: [0xff; 6],
            from_mac: OWN_MAC,
            operation,
            sender: (OWN_MAC, VIP),
            target: (target, VIP),
            padding: 0,
            ..Arp::default()
        };
        assert_eq!(bytes(&request, [8, 6]), said(1, [0; 6]).bytes());
        assert_eq!(bytes(&reply, [8, 6]), said(2, OWN_MAC).bytes());
        let told = unsolicited(raw6(VIP6), OWN_MAC);
        let said = Discovery::probe().answer();
        assert_eq!(bytes(&told, [0x86, 0xdd]), said.bytes());
    }
}
