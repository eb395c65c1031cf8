//! The outer headers between nodes: IP, UDP and the eight bytes of [`Steer`]; 36 bytes over IPv4, 56
//! over IPv6.
//!
//! The UDP source port carries the flow hash, so that routers and receive queues spread flows; the
//! UDP checksum is zero. RFC 768 allows it over IPv4, RFC 6936 for tunnels over IPv6: the inner
//! packet has its own. Headers are made in words, since a program has no wider store than one, and
//! needs a shift and an instruction more for each that is narrower.

use crate::{
    abi::{Addresses, ENCAP_PORT, NO_HOP, Node, Steer, node_flags, steer_flags},
    headers::{IPV4, IPV6, UDP, UDP_LENGTH},
};

/// Bytes that encapsulation in IPv4 adds between the link-layer header and the inner packet.
pub const OVERHEAD4: usize = IPV4 + UDP_LENGTH + size_of::<Steer>();

/// Bytes that encapsulation in IPv6 adds.
pub const OVERHEAD6: usize = IPV6 + UDP_LENGTH + size_of::<Steer>();

/// The time to live of the outer packet: nodes are few hops apart.
const TIME_TO_LIVE: u8 = 64;

/// Protocol and time to live, as IPv4 has them in one word; IPv6 the other way round.
const TTL_UDP: u16 = u16::from_be_bytes([TIME_TO_LIVE, UDP]);
const UDP_TTL: u16 = u16::from_be_bytes([UDP, TIME_TO_LIVE]);

/// Sum of the constant 16-bit words of the outer IPv4 header: version, don't-fragment, TTL and
/// protocol.
const CONSTANT_SUM: u32 = 0x4500 + 0x4000 + TTL_UDP as u32;

/// A packet that leaves for another node, inside outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer<'a> {
    /// This node's addresses.
    pub own: &'a Addresses,
    /// The node that it goes to.
    pub node: &'a Node,
    /// Bytes of the inner packet; with the outer headers it fits the node's MTU.
    pub inner_length: u16,
    /// Hash of the inner flow.
    pub flow_hash: u32,
    /// The [`Steer`] header, as [`Hops::steer`] makes it.
    pub steer: u64,
}

/// What the [`Steer`] header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    /// This node's id.
    pub from: u16,
    /// Nodes to try after the receiver, [`NO_HOP`] where there is none.
    pub hops: [u16; 2],
    /// Whether the inner packet is IPv6.
    pub inner_is_v6: bool,
    /// The mark of the table this node steers by.
    pub mark: u32,
}

impl Hops {
    /// The header as two words of the packet, the first one in the lower half.
    #[inline(always)]
    pub const fn steer(self) -> u64 {
        let is_final = if self.hops[0] == NO_HOP {
            steer_flags::FINAL
        } else {
            0
        };
        let is_v6 = if self.inner_is_v6 { steer_flags::V6 } else { 0 };
        let flags = (self.mark as u8) << 4 | is_final | is_v6;
        let version = (Steer::VERSION_LENGTH as u16) << 8;
        let first = pair(version | flags as u16, self.from);
        (pair(self.hops[0], self.hops[1]) as u64) << 32 | first as u64
    }
}

/// Bytes of the outer headers of packets to a node.
#[inline(always)]
pub const fn overhead(node: &Node) -> usize {
    if node.flags & node_flags::V4 != 0 {
        OVERHEAD4
    } else {
        OVERHEAD6
    }
}

impl Outer<'_> {
    /// The IPv4, UDP and `Steer` headers, for a node that is reached by IPv4.
    #[inline(always)]
    pub fn headers4(&self) -> [u32; OVERHEAD4 / 4] {
        // Wrapping, though it cannot: a checked sum would bring a panic's code into the program.
        let total = self.inner_length.wrapping_add(OVERHEAD4 as u16);
        let [ports, length, header, hops] = self.tail(total.wrapping_sub(IPV4 as u16));
        [
            pair(0x4500, total),
            pair(0, 0x4000),
            pair(TTL_UDP, self.checksum(total)),
            self.own.ip4,
            self.node.addresses.ip4,
            ports,
            length,
            header,
            hops,
        ]
    }

    /// The IPv6, UDP and `Steer` headers, for a node that is reached by IPv6. The flow label carries
    /// the hash too (RFC 6438).
    #[inline(always)]
    pub fn headers6(&self) -> [u32; OVERHEAD6 / 4] {
        let length = self.inner_length.wrapping_add((OVERHEAD6 - IPV6) as u16);
        let [ports, udp, header, hops] = self.tail(length);
        let ([a, b, c, d], [e, f, g, h]) = (self.own.ip6, self.node.addresses.ip6);
        [
            (6 << 28 | self.flow_hash & 0xf_ffff).to_be(),
            pair(length, UDP_TTL),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            ports,
            udp,
            header,
            hops,
        ]
    }

    /// The words of UDP, whose length is given, and of `Steer`.
    #[inline(always)]
    fn tail(&self, length: u16) -> [u32; 4] {
        // The upper quarter of the port space: the ephemeral ports of RFC 6335.
        let port = 0xc000 | (self.flow_hash as u16 & 0x3fff);
        [
            pair(port, ENCAP_PORT),
            pair(length, 0),
            self.steer as u32,
            (self.steer >> 32) as u32,
        ]
    }

    /// The Internet checksum of the outer IPv4 header (RFC 1071).
    #[inline(always)]
    fn checksum(&self, total: u16) -> u16 {
        let words = |address: u32| {
            let address = u32::from_be(address);
            (address >> 16) + (address & 0xffff)
        };
        let addresses = words(self.own.ip4) + words(self.node.addresses.ip4);
        let sum = CONSTANT_SUM + u32::from(total) + addresses;
        // Six words of 16 bits: the first fold leaves a carry of one at most, the second none.
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        !(sum as u16)
    }
}

/// Two fields of 16 bits as a word of the packet.
#[inline(always)]
const fn pair(first: u16, second: u16) -> u32 {
    ((first as u32) << 16 | second as u32).to_be()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(ip4: u32) -> Node {
        Node {
            addresses: Addresses {
                ip4,
                ip6: [0x2001_0db8, 0, 0, ip4].map(u32::to_be),
            },
            ..Node::default()
        }
    }

    fn outer<'a>(own: &'a Node, node: &'a Node, inner_length: u16) -> Outer<'a> {
        Outer {
            own: &own.addresses,
            node,
            inner_length,
            flow_hash: 0x0abc_de12,
            steer: Hops {
                from: 0x0102,
                hops: [0x0304, 0x0506],
                inner_is_v6: true,
                mark: 0x1_0009,
            }
            .steer(),
        }
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// The sum of the IPv4 header's words, folded until nothing is carried.
    fn folded_sum(headers: &[u8]) -> u64 {
        let words = headers[..IPV4].chunks(2);
        let sum: u64 = words
            .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        (folded & 0xffff) + (folded >> 16)
    }

    /// Nodes of two versions must understand each other.
    #[test]
    fn the_headers_are_those_that_other_nodes_read() {
        let address = |last| u32::from_ne_bytes([198, 18, 0, last]);
        let (own, other) = (node(address(11)), node(address(12)));
        let sent = outer(&own, &other, 40);
        let tail = [
            0xde, 0x12, 0x46, 0x42, 0, 56, 0, 0, 0x12, 0x91, 1, 2, 3, 4, 5, 6,
        ];
        let head = [
            0x45, 0, 0, 76, 0, 0, 0x40, 0, 64, 17, 0xae, 0x65, 198, 18, 0, 11, 198, 18, 0, 12,
        ];
        assert_eq!(bytes(&sent.headers4()), [&head[..], &tail].concat());
        let v6 = bytes(&sent.headers6());
        assert_eq!(v6[..8], [0x60, 0x0c, 0xde, 0x12, 0, 56, 17, 64]);
        assert_eq!(v6[8..24], bytes(&own.addresses.ip6));
        assert_eq!(v6[24..40], bytes(&other.addresses.ip6));
        assert_eq!(v6[40..], tail);
    }

    #[test]
    fn a_carry_of_the_first_fold_is_added_too() {
        // The words without the checksum sum to 0x1ffff: the first fold gives 0x10000.
        let own = node(u32::from_ne_bytes([0xff, 0xff, 0x3a, 0xa3]));
        let headers = bytes(&outer(&own, &node(0), 40).headers4());
        assert_eq!(headers[10..12], [0xff, 0xfe]);
        assert_eq!(folded_sum(&headers), 0xffff);
    }

    proptest! {
        #[test]
        fn the_outer_checksum_sums_to_all_ones(source: u32, destination: u32, inner_length in 40u16..65_000) {
            let (own, other) = (node(source), node(destination));
            let headers = bytes(&outer(&own, &other, inner_length).headers4());
            prop_assert_eq!(folded_sum(&headers), 0xffff);
        }
    }
}
