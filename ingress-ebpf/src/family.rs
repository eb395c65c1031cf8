//! IPv4 and IPv6: what differs between them, for code that is written once.

use crate::{
    abi::{Addresses, Keys, VipKey4, VipKey6, VipValue},
    flow::Flow,
    frame::Frame,
    hash::{Digest, mix},
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, Packet},
    tables::Tables,
};

/// A version of IP. Code that is generic over it is compiled once for each.
pub trait Family {
    /// An address, in words that hold the bytes of the packet.
    type Address: Copy + PartialEq;

    /// EtherType, host byte order.
    const ETHERTYPE: u16;
    /// Bytes of a header without options or extensions.
    const HEADER: usize;
    /// Whether it is IPv6.
    const IS_V6: bool;
    /// IANA number of its control messages.
    const ICMP: u8;

    /// What the maps say of a VIP and a [`crate::abi::service`].
    fn vip<T: Tables>(tables: &T, address: Self::Address, service: u32) -> Option<&VipValue>;

    /// Whether a socket of this node has the connection; see [`Tables::has4`].
    fn has<T: Tables>(tables: &T, flow: &Flow<Self::Address>, cookie: Option<usize>) -> bool;

    /// Whether the packet whose header is at `offset` comes from this address; nothing comes from a node
    /// that has none. Read where it is asked: kept from the header on, addresses would take a program's
    /// stack.
    fn is_from<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool;

    /// Whether it goes to this address.
    fn is_to<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool;

    /// Digests a flow.
    fn digest(flow: &Flow<Self::Address>, keys: &Keys) -> Digest;

    /// Reads the header at `offset`; `None` past the end, or where the lengths contradict each other.
    fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Packet<Self::Address>>;

    /// Reads the part of a header at `offset` that names the ends of a packet of which only a start is
    /// there: protocol, source, destination; `None` past the end, or where ports do not follow it.
    fn parse_start<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
    ) -> Option<(u8, Self::Address, Self::Address)>;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V4 {
    type Address = u32;

    const ETHERTYPE: u16 = ETHERTYPE_IPV4;
    const HEADER: usize = IPV4;
    const IS_V6: bool = false;
    const ICMP: u8 = 1;

    #[inline(always)]
    fn vip<T: Tables>(tables: &T, address: u32, service: u32) -> Option<&VipValue> {
        tables.vip4(&VipKey4 { address, service })
    }

    #[inline(always)]
    fn has<T: Tables>(tables: &T, flow: &Flow<u32>, cookie: Option<usize>) -> bool {
        tables.has4(flow, cookie)
    }

    #[inline(always)]
    fn is_from<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool {
        node.ip4 != 0 && frame.words(offset + 12) == Some([node.ip4])
    }

    #[inline(always)]
    fn is_to<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool {
        node.ip4 != 0 && frame.words(offset + 16) == Some([node.ip4])
    }

    #[inline(always)]
    fn digest(flow: &Flow<u32>, keys: &Keys) -> Digest {
        let state = mix(u64::from(flow.ports), keys.words[0], 0);
        let addresses = u64::from(flow.destination) << 32 | u64::from(flow.source);
        Digest(mix(addresses, keys.words[1], state))
    }

    #[inline(always)]
    fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Packet<u32>> {
        Packet::parse4(frame, offset)
    }

    #[inline(always)]
    fn parse_start<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<(u8, u32, u32)> {
        Packet::parse4_start(frame, offset)
    }
}

impl Family for V6 {
    type Address = [u32; 4];

    const ETHERTYPE: u16 = ETHERTYPE_IPV6;
    const HEADER: usize = IPV6;
    const IS_V6: bool = true;
    const ICMP: u8 = 58;

    #[inline(always)]
    fn vip<T: Tables>(tables: &T, address: [u32; 4], service: u32) -> Option<&VipValue> {
        tables.vip6(&VipKey6 { address, service })
    }

    #[inline(always)]
    fn has<T: Tables>(tables: &T, flow: &Flow<[u32; 4]>, cookie: Option<usize>) -> bool {
        tables.has6(flow, cookie)
    }

    #[inline(always)]
    fn is_from<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool {
        frame
            .words(offset + 8)
            .is_some_and(|address| is_same(address, node.ip6) && !is_same(address, [0; 4]))
    }

    #[inline(always)]
    fn is_to<F: Frame + ?Sized>(frame: &F, offset: usize, node: &Addresses) -> bool {
        frame
            .words(offset + 24)
            .is_some_and(|address| is_same(address, node.ip6) && !is_same(address, [0; 4]))
    }

    #[inline(always)]
    fn digest(flow: &Flow<[u32; 4]>, keys: &Keys) -> Digest {
        let long = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let ([a, b, c, d], [e, f, g, h]) = (flow.source, flow.destination);
        let state = mix(u64::from(flow.ports), keys.words[0], 0);
        let state = mix(long(a, b), keys.words[1], state);
        let state = mix(long(c, d), keys.words[2], state);
        let state = mix(long(e, f), keys.words[3], state);
        Digest(mix(long(g, h), keys.words[4], state))
    }

    #[inline(always)]
    fn parse<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Packet<[u32; 4]>> {
        Packet::parse6(frame, offset)
    }

    #[inline(always)]
    fn parse_start<F: Frame + ?Sized>(
        frame: &F,
        offset: usize,
    ) -> Option<(u8, [u32; 4], [u32; 4])> {
        Packet::parse6_start(frame, offset)
    }
}

/// Compares word by word: a comparison of arrays is a call of memcmp.
#[inline(always)]
const fn is_same([a, b, c, d]: [u32; 4], [e, f, g, h]: [u32; 4]) -> bool {
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_where_every_bit_is() {
        let address = [0x2001_0db8, 0x0bad_cafe, 0x1234_5678, 1];
        assert!(is_same(address, address));
        let flipped = |mut address: [u32; 4], bit: usize| {
            address[bit / 32] ^= 1 << (bit % 32);
            address
        };
        for one in 0..128 {
            let once = flipped(address, one);
            assert!(!is_same(address, once), "{one}");
            // Differences do not make up for each other.
            for other in (0..128).filter(|other| *other != one) {
                assert!(!is_same(address, flipped(once, other)), "{one} {other}");
            }
        }
    }
}
