//! The outer headers between nodes: IPv4, UDP and the eight bytes of [`Steer`], 36 in all.
//!
//! The UDP source port carries the flow hash, so that routers and receive queues spread flows; the
//! UDP checksum is zero (RFC 768 allows it over IPv4, and the inner packet has its own).

use crate::{
    abi::{ENCAP_PORT, NO_HOP, Steer, steer_flags},
    headers::{IPV4, UDP, UDP_LENGTH},
};

/// Bytes that encapsulation adds between the link-layer header and the inner packet.
pub const OVERHEAD: usize = IPV4 + UDP_LENGTH + size_of::<Steer>();

/// The time to live of the outer packet: nodes are few hops apart.
const TIME_TO_LIVE: u8 = 64;

/// Sum of the constant 16-bit words of the outer IPv4 header: version, don't-fragment, TTL and
/// protocol.
const CONSTANT_SUM: u32 = 0x4500 + 0x4000 + u16::from_be_bytes([TIME_TO_LIVE, UDP]) as u32;

/// What the outer headers of one packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// MAC address of the next hop.
    pub destination_mac: [u8; 6],
    /// MAC address of this node.
    pub source_mac: [u8; 6],
    /// IPv4 address of this node, as in the packet.
    pub source: u32,
    /// IPv4 address of the owner, as in the packet.
    pub destination: u32,
    /// Bytes of the inner packet; with [`OVERHEAD`] it fits the owner's MTU.
    pub inner_length: u16,
    /// Hash of the inner flow.
    pub flow_hash: u32,
    /// This node's id.
    pub from: u16,
    /// Nodes to try after the owner, [`NO_HOP`] where there is none.
    pub hops: [u16; 2],
}

impl Outer {
    /// The IPv4, UDP and `Steer` headers.
    #[inline(always)]
    pub fn headers(&self) -> [u8; OVERHEAD] {
        // Wrapping, though it cannot: a checked sum would bring a panic's code into the program.
        let total = self.inner_length.wrapping_add(OVERHEAD as u16);
        let [t0, t1] = total.to_be_bytes();
        let [c0, c1] = self.checksum(total).to_be_bytes();
        let [s0, s1, s2, s3] = self.source.to_ne_bytes();
        let [d0, d1, d2, d3] = self.destination.to_ne_bytes();
        // The upper quarter of the port space: the ephemeral ports of RFC 6335.
        let [p0, p1] = (0xc000 | (self.flow_hash as u16 & 0x3fff)).to_be_bytes();
        let [e0, e1] = ENCAP_PORT.to_be_bytes();
        let [u0, u1] = total.wrapping_sub(IPV4 as u16).to_be_bytes();
        let flags = if self.hops[0] == NO_HOP {
            steer_flags::FINAL
        } else {
            0
        };
        let [f0, f1] = self.from.to_be_bytes();
        let [h0, h1] = self.hops[0].to_be_bytes();
        let [h2, h3] = self.hops[1].to_be_bytes();
        #[rustfmt::skip]
        let headers = [
            0x45, 0, t0, t1, 0, 0, 0x40, 0, TIME_TO_LIVE, UDP, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3,
            p0, p1, e0, e1, u0, u1, 0, 0,
            Steer::VERSION_LENGTH, flags, f0, f1, h0, h1, h2, h3,
        ];
        headers
    }

    /// The Internet checksum of the outer IPv4 header (RFC 1071).
    #[inline(always)]
    fn checksum(&self, total: u16) -> u16 {
        let words = |address: u32| {
            let address = u32::from_be(address);
            (address >> 16) + (address & 0xffff)
        };
        let sum = CONSTANT_SUM + u32::from(total) + words(self.source) + words(self.destination);
        // Six words of 16 bits: the first fold leaves a carry of one at most, the second none.
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outer(source: u32, destination: u32, inner_length: u16) -> Outer {
        Outer {
            destination_mac: [2; 6],
            source_mac: [4; 6],
            source,
            destination,
            inner_length,
            flow_hash: 1,
            from: 1,
            hops: [NO_HOP; 2],
        }
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

    #[test]
    fn a_carry_of_the_first_fold_is_added_too() {
        // The words without the checksum sum to 0x1ffff: the first fold gives 0x10000.
        let source = u32::from_ne_bytes([0xff, 0xff, 0x3a, 0xa3]);
        let headers = outer(source, 0, 40).headers();
        assert_eq!(headers[10..12], [0xff, 0xfe]);
        assert_eq!(folded_sum(&headers), 0xffff);
    }

    proptest! {
        #[test]
        fn the_outer_checksum_sums_to_all_ones(source: u32, destination: u32, inner_length in 40u16..65_000) {
            prop_assert_eq!(folded_sum(&outer(source, destination, inner_length).headers()), 0xffff);
        }
    }
}
