//! Ethernet, VLAN, IPv4, TCP and UDP headers, as far as steering needs them.
//!
//! Addresses and ports keep the bytes of the packet (network byte order in memory); lengths are
//! numbers.

use crate::frame::Frame;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LENGTH: usize = 8;
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Bytes of a TCP header without options.
const TCP_LENGTH: usize = 20;
/// The bits of the fragment word that are set in a fragment: more-fragments and the offset.
const FRAGMENT: u16 = 0x3fff;

/// The link layer: who the frame is for, and where its payload starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// EtherType after the tags; host byte order.
    pub ethertype: u16,
    /// Offset of the payload: 14, 18 or 22.
    pub payload: usize,
}

impl Link {
    /// Reads the Ethernet header and up to two VLAN tags (IEEE 802.1Q, 802.1ad); `None` past the
    /// end.
    ///
    /// A third tag stays the EtherType, so that the frame is nobody's.
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let destination = frame.read::<6>(0)?;
        let source = frame.read::<6>(6)?;
        let mut ethertype = u16::from_be_bytes(frame.read::<2>(12)?);
        // No loop over tags: each is read at a constant offset.
        let mut payload = ETHERNET;
        if is_tag(ethertype) {
            ethertype = u16::from_be_bytes(frame.read::<2>(16)?);
            payload = ETHERNET + 4;
            if is_tag(ethertype) {
                ethertype = u16::from_be_bytes(frame.read::<2>(20)?);
                payload = ETHERNET + 8;
            }
        }
        Some(Self {
            destination,
            source,
            ethertype,
            payload,
        })
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// The fields of an IPv4 header that steering looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Bytes of the header: 20 to 60.
    pub header: usize,
    /// Bytes of the whole packet, by its own account.
    pub total: usize,
    /// IANA number of the payload's protocol.
    pub protocol: u8,
    /// Part of a packet: not the first, or not the last.
    pub fragment: bool,
    /// Source address, as in the packet.
    pub source: u32,
    /// Destination address, as in the packet.
    pub destination: u32,
}

impl Ipv4 {
    /// Reads the header at `offset`; `None` past the end, or where the lengths contradict each
    /// other (RFC 791).
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Self> {
        // Twenty bytes, whatever the header says: a read of a length out of the packet would have
        // no bound that the verifier knows. Packets with options are told by `header`.
        let bytes = frame.read::<IPV4>(offset)?;
        let header = usize::from(bytes[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if bytes[0] >> 4 != 4 || header < IPV4 || total < header || frame.length() < offset + total
        {
            return None;
        }
        Some(Self {
            header,
            total,
            protocol: bytes[9],
            fragment: u16::from_be_bytes([bytes[6], bytes[7]]) & FRAGMENT != 0,
            source: u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
            destination: u32::from_ne_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]),
        })
    }
}

/// The ports of a TCP or UDP header, as in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

impl Ports {
    /// Reads the ports of the TCP header at `offset`, `length` bytes of TCP; `None` if the header
    /// does not fit or says it is shorter than 20 bytes (RFC 9293 section 3.1).
    #[inline(always)]
    pub fn of_tcp<F: Frame + ?Sized>(frame: &F, offset: usize, length: usize) -> Option<Self> {
        // The second read ends where the shortest header does: it proves that all of it is there,
        // and less goes to the stack than by a read of the whole.
        let ports = frame.read::<4>(offset)?;
        let header = usize::from(frame.read::<8>(offset + 12)?[0] >> 4) * 4;
        if header < TCP_LENGTH || header > length {
            return None;
        }
        Some(Self::from_bytes(ports))
    }

    /// Tells whether the TCP header at `offset` opens a connection: SYN without ACK (RFC 9293
    /// section 3.1).
    #[inline(always)]
    pub fn is_syn<F: Frame + ?Sized>(frame: &F, offset: usize) -> bool {
        frame
            .read::<1>(offset + 13)
            .is_some_and(|[flags]| flags & 0x12 == 0x02)
    }

    /// Reads the ports of the UDP header at `offset`, `length` bytes of UDP; `None` if the header
    /// does not fit.
    #[inline(always)]
    pub fn of_udp<F: Frame + ?Sized>(frame: &F, offset: usize, length: usize) -> Option<Self> {
        let bytes = frame.read::<UDP_LENGTH>(offset)?;
        if length < UDP_LENGTH {
            return None;
        }
        Some(Self::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    #[inline(always)]
    const fn from_bytes([a, b, c, d]: [u8; 4]) -> Self {
        Self {
            source: u16::from_ne_bytes([a, b]),
            destination: u16::from_ne_bytes([c, d]),
        }
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
                let parsed = Ipv4::parse(&frame[..], offset);
                assert_eq!(
                    parsed.map(|packet| (packet.header, packet.total)),
                    fits.then(|| (usize::from(first & 0x0f) * 4, usize::from(total))),
                    "first byte {first:#x}, {total} bytes in {length} at {offset}"
                );
            }
        }
    }
}
