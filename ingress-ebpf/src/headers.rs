//! Ethernet, VLAN, IPv4, IPv6, TCP, UDP and ICMP headers, as far as steering needs them.
//!
//! Addresses and ports keep the bytes of the packet (network byte order in memory); lengths are
//! numbers. Each header is read in one piece, so that one comparison proves its bounds, and its
//! fields are taken out as words: byte by byte they would cost a load and a shift each.

use crate::{abi::Mac, frame::Frame};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Bytes of a VLAN tag.
pub const TAG: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6: usize = 40;
/// Bytes of a UDP header.
pub const UDP_LENGTH: usize = 8;
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a frame with an IEEE 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;

const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Bytes of a TCP header without options.
const TCP_LENGTH: usize = 20;
/// The bits of IPv4's fragment word that are set in a fragment: more-fragments and the offset.
const FRAGMENT: u16 = 0x3fff;
/// IANA number of IPv6's fragment header.
const FRAGMENT_HEADER: u8 = 44;
/// IANA numbers of the other headers that may stand between IPv6 and what it carries: hop-by-hop,
/// routing, authentication, destination options, mobility, HIP, shim6.
const EXTENSIONS: [u8; 7] = [0, 43, 51, 60, 135, 139, 140];
/// Bits of TCP's flags.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The link layer: who the frame is for, and where its payload starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType after the tags; host byte order.
    pub ethertype: u16,
    /// Offset of the payload: 14, 18 or 22.
    pub payload: usize,
}

impl Link {
    /// Reads the EtherType behind up to two VLAN tags (IEEE 802.1Q, 802.1ad); `None` past the end.
    ///
    /// A third tag stays the EtherType, so that the frame is nobody's.
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let mut ethertype = u16::from_be_bytes(frame.read::<2>(12)?);
        // No loop over tags: each is read at a constant offset.
        let mut payload = ETHERNET;
        if is_tag(ethertype) {
            ethertype = u16::from_be_bytes(frame.read::<2>(16)?);
            payload = ETHERNET + TAG;
            if is_tag(ethertype) {
                ethertype = u16::from_be_bytes(frame.read::<2>(20)?);
                payload = ETHERNET + 2 * TAG;
            }
        }
        Some(Self { ethertype, payload })
    }
}

/// The MAC address a frame is for; `None` past the end.
#[inline(always)]
pub fn destination_mac<F: Frame + ?Sized>(frame: &F) -> Option<Mac> {
    Some(Mac::new(frame.read::<6>(0)?))
}

/// The MAC address a frame is from; `None` past the end.
#[inline(always)]
pub fn source_mac<F: Frame + ?Sized>(frame: &F) -> Option<Mac> {
    Some(Mac::new(frame.read::<6>(6)?))
}

/// The VLAN id of the only tag of a frame (network byte order, without priority), 0 where there is
/// none; `None` for two tags.
#[inline(always)]
pub fn vlan<F: Frame + ?Sized>(frame: &F, link: &Link) -> Option<u16> {
    match link.payload {
        ETHERNET => Some(0),
        18 => Some(u16::from_ne_bytes(frame.read::<2>(ETHERNET)?) & 0x0fff_u16.to_be()),
        _ => None,
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// What steering looks at of an IP header, of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    /// Bytes of the whole packet, by its own account.
    pub total: usize,
    /// IANA number of what follows the header.
    pub protocol: u8,
    /// Why it cannot be steered.
    pub oddity: Option<Oddity>,
    /// Source address, as in the packet.
    pub source: A,
    /// Destination address, as in the packet.
    pub destination: A,
}

/// What keeps a packet from being steered: its ports are elsewhere or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Part of a packet: not the first, or not the last.
    Fragment,
    /// IPv4 options or IPv6 extension headers.
    Options,
}

impl Packet<u32> {
    /// Reads an IPv4 header (RFC 791).
    #[inline(always)]
    pub(crate) fn parse4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Self> {
        // Twenty bytes, whatever the header says: a read of a length out of the packet would have
        // no bound that the verifier knows.
        let [start, fragment, transport, source, destination] = frame.words(offset)?;
        let ([first, _], total) = halves(start);
        let header = usize::from(first & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(total));
        if first >> 4 != 4 || header < IPV4 || total < header || frame.length() < offset + total {
            return None;
        }
        let is_fragment = u16::from_ne_bytes(halves(fragment).1) & FRAGMENT.to_be() != 0;
        let oddity = if is_fragment {
            Some(Oddity::Fragment)
        } else if header != IPV4 {
            Some(Oddity::Options)
        } else {
            None
        };
        Some(Self {
            total,
            protocol: halves(transport).0[1],
            oddity,
            source,
            destination,
        })
    }

    /// Protocol, source and destination of an IPv4 packet that an error quotes.
    #[inline(always)]
    pub(crate) fn parse4_start<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
    ) -> Option<(u8, u32, u32)> {
        let [start, fragment, transport, source, destination] = frame.words(offset)?;
        // Not a later fragment: its ports are elsewhere. A packet of ours has no options.
        let is_later = u16::from_be_bytes(halves(fragment).1) & 0x1fff != 0;
        let is_plain = halves(start).0[0] == 0x45 && !is_later;
        is_plain.then_some((halves(transport).0[1], source, destination))
    }
}

impl Packet<[u32; 4]> {
    /// Protocol, source and destination of an IPv6 packet that an error quotes.
    #[inline(always)]
    pub(crate) fn parse6_start<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
    ) -> Option<(u8, [u32; 4], [u32; 4])> {
        let [start, lengths, a, b, c, d, e, f, g, h] = frame.words(offset)?;
        let is_v6 = halves(start).0[0] >> 4 == 6;
        is_v6.then_some((halves(lengths).1[0], [a, b, c, d], [e, f, g, h]))
    }

    /// Reads an IPv6 header (RFC 8200 section 3). A jumbogram, whose length is in an option, has
    /// none here and is nobody's.
    #[inline(always)]
    pub(crate) fn parse6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Self> {
        let [start, lengths, a, b, c, d, e, f, g, h] = frame.words(offset)?;
        let (length, [protocol, _]) = halves(lengths);
        let total = IPV6 + usize::from(u16::from_be_bytes(length));
        if halves(start).0[0] >> 4 != 6 || frame.length() < offset + total {
            return None;
        }
        let oddity = if protocol == FRAGMENT_HEADER {
            Some(Oddity::Fragment)
        } else if EXTENSIONS.contains(&protocol) {
            Some(Oddity::Options)
        } else {
            None
        };
        Some(Self {
            total,
            protocol,
            oddity,
            source: [a, b, c, d],
            destination: [e, f, g, h],
        })
    }
}

/// The first two bytes of a word, and the last two.
#[inline(always)]
const fn halves(word: u32) -> ([u8; 2], [u8; 2]) {
    let [a, b, c, d] = word.to_ne_bytes();
    ([a, b], [c, d])
}

/// The first four bytes of TCP or UDP: source port in the lower half of the word, destination port
/// in the upper, both as in the packet.
#[inline(always)]
pub fn ports<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u32> {
    let [ports] = frame.words(offset)?;
    Some(ports)
}

/// What a TCP segment does to its connection, as far as it matters where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// SYN without ACK: it opens one (RFC 9293 section 3.1).
    Opening,
    /// ACK alone: it may be the last of a handshake that a SYN cookie stands for.
    Acknowledging,
    /// Any other.
    Within,
}

impl Segment {
    /// Reads the TCP header at `offset`, `length` bytes of TCP; `None` if the header does not fit or
    /// says it is shorter than 20 bytes (RFC 9293 section 3.1).
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize, length: usize) -> Option<Self> {
        // It ends where the shortest header does: so all of that is there.
        let bytes = frame.read::<8>(offset + 12)?;
        let header = usize::from(bytes[0] >> 4) * 4;
        if header < TCP_LENGTH || header > length {
            return None;
        }
        Some(if bytes[1] & (SYN | ACK) == SYN {
            Self::Opening
        } else if bytes[1] & (SYN | ACK | RST) == ACK {
            Self::Acknowledging
        } else {
            Self::Within
        })
    }
}

/// An ICMP message (RFC 792, RFC 4443), by what is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// An error about a packet, which follows the eight bytes of this header.
    Error,
    /// An echo request, which the kernel answers.
    Echo,
    /// Any other.
    Other,
}

/// Bytes of an ICMP header before the packet that an error is about.
pub const ICMP_LENGTH: usize = 8;

impl Control {
    /// Reads the type of the message at `offset`; `None` past the end.
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize, is_v6: bool) -> Option<Self> {
        let [kind, ..] = frame.read::<ICMP_LENGTH>(offset)?;
        Some(match (is_v6, kind) {
            // Unreachable, time exceeded, parameter problem; unreachable, too big, time exceeded,
            // parameter problem.
            (false, 3 | 11 | 12) | (true, 1..=4) => Self::Error,
            (false, 8) | (true, 128) => Self::Echo,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header whose first byte and total length are given, without options.
    fn ipv4(first: u8, total: u16) -> [u8; 20] {
        let mut header = [0; 20];
        header[0] = first;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header
    }

    #[test]
    fn a_packet_may_be_as_short_as_its_header_and_as_long_as_its_frame() {
        for (first, total, length, fits) in [
            (0x45, 20, 20, true),
            (0x45, 20, 60, true),
            (0x45, 19, 20, false),
            (0x45, 21, 20, false),
            (0x46, 24, 24, true),
            (0x46, 23, 24, false),
            (0x4f, 60, 60, true),
            (0x4f, 59, 60, false),
            (0x44, 20, 20, false),
            (0x55, 20, 20, false),
        ] {
            for offset in [0, ETHERNET] {
                let mut frame = vec![0; offset];
                frame.extend(ipv4(first, total));
                frame.resize(offset + length, 0);
                let parsed = Packet::parse4(&frame[..], offset);
                let oddity = (first != 0x45).then_some(Oddity::Options);
                assert_eq!(
                    parsed.map(|packet| (packet.oddity, packet.total)),
                    fits.then(|| (oddity, usize::from(total))),
                    "first byte {first:#x}, {total} bytes in {length} at {offset}"
                );
            }
        }
    }

    #[test]
    fn a_quoted_packet_is_read_where_its_ports_follow_at_once() {
        for (first, fragment, fits) in [
            (0x45, 0, true),
            (0x45, 0x4000, true),
            (0x45, 0x2000, true),
            (0x45, 1, false),
            (0x46, 0, false),
            (0x46, 1, false),
        ] {
            let mut header = ipv4(first, 20);
            header[6..8].copy_from_slice(&u16::to_be_bytes(fragment));
            header[9] = TCP;
            let parsed = Packet::parse4_start(&header[..], 0);
            assert_eq!(
                parsed.map(|(protocol, ..)| protocol),
                fits.then_some(TCP),
                "first byte {first:#x}, fragment word {fragment:#x}"
            );
        }
    }

    #[test]
    fn a_segment_is_told_by_its_flags() {
        use Segment::{Acknowledging, Opening, Within};
        const FIN: u8 = 0x01;
        const PSH: u8 = 0x08;
        for (flags, told) in [
            (SYN, Opening),
            (SYN | 0xc0, Opening),
            (SYN | ACK, Within),
            (ACK, Acknowledging),
            (ACK | PSH, Acknowledging),
            (ACK | FIN, Acknowledging),
            (ACK | RST, Within),
            (RST, Within),
            (SYN | ACK | RST, Within),
            (FIN, Within),
            (0, Within),
        ] {
            for offset in [0, ETHERNET] {
                let mut frame = vec![0; offset + TCP_LENGTH];
                frame[offset + 12..offset + 14].copy_from_slice(&[0x50, flags]);
                let parsed = Segment::parse(&frame[..], offset, TCP_LENGTH);
                assert_eq!(parsed, Some(told), "{flags:#x} at {offset}");
            }
        }
    }

    #[test]
    fn a_tcp_header_is_as_long_as_it_says_and_no_longer_than_the_packet() {
        for (first, length, fits) in [
            (0x50, 20, true),
            (0x40, 20, false),
            (0x50, 19, false),
            (0x60, 24, true),
            (0x60, 23, false),
            (0xf0, 60, true),
        ] {
            let mut frame = [0_u8; 60];
            frame[12] = first;
            let parsed = Segment::parse(&frame[..], 0, length);
            assert_eq!(parsed.is_some(), fits, "{first:#x} in {length} bytes");
        }
    }

    #[test]
    fn a_message_is_told_by_its_type() {
        use Control::{Echo, Error, Other};
        for (is_v6, kind, told) in [
            (false, 3, Error),
            (false, 11, Error),
            (false, 12, Error),
            (false, 8, Echo),
            (false, 0, Other),
            (false, 1, Other),
            (false, 128, Other),
            (true, 1, Error),
            (true, 2, Error),
            (true, 3, Error),
            (true, 4, Error),
            (true, 128, Echo),
            (true, 0, Other),
            (true, 5, Other),
            (true, 8, Other),
            (true, 11, Other),
        ] {
            let mut frame = [0_u8; ICMP_LENGTH];
            frame[0] = kind;
            let parsed = Control::parse(&frame[..], 0, is_v6);
            assert_eq!(parsed, Some(told), "{kind} of IPv6: {is_v6}");
        }
    }
}
