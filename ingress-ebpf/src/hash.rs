//! The seeded hash of a flow: the same on every node, in the kernel and on the host.

use crate::{
    abi::{SocketSet, TABLE_LEN},
    headers::{Ipv4, Ports},
};

/// The four-tuple that names a TCP connection, as in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Client address.
    pub source: u32,
    /// VIP.
    pub destination: u32,
    /// Client port.
    pub source_port: u16,
    /// VIP's port.
    pub destination_port: u16,
}

impl Flow {
    /// The flow that a packet belongs to.
    #[inline(always)]
    pub fn of(packet: &Ipv4, ports: Ports) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            source_port: ports.source,
            destination_port: ports.destination,
        }
    }
}

/// Hashes a flow: HalfSipHash with one round per word and two at the end, keyed so that nobody
/// outside can aim at a bucket (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
#[inline(always)]
pub fn flow(flow: Flow, seed: [u32; 2]) -> u32 {
    let ports = (u32::from(flow.source_port) << 16) | u32::from(flow.destination_port);
    let mut state = [
        seed[0],
        seed[1],
        seed[0] ^ 0x6c79_6765,
        seed[1] ^ 0x7465_6462,
    ];
    for word in [flow.source, flow.destination, ports] {
        state[3] ^= word;
        state = round(state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    let state = round(round(state));
    state[1] ^ state[3]
}

/// The bucket of a hash: a multiplication in place of a division, which costs more in the kernel
/// and tells the verifier no bound.
#[inline(always)]
pub const fn bucket(hash: u32) -> u32 {
    spread(hash, TABLE_LEN as u32)
}

/// Maps a hash evenly onto `0..count`; 0 for no slots.
#[inline(always)]
pub const fn spread(hash: u32, count: u32) -> u32 {
    // Lemire, "Fast Random Integer Generation in an Interval" (2019), without its rejection: the
    // bias is below one in 65,000 for a table and less for a set.
    ((hash as u64 * count as u64) >> 32) as u32
}

/// The slot of `SOCKS` for a new connection of a flow; `None` in an empty set.
///
/// The seed's words change places: a bucket's connections still spread over all workers.
#[inline(always)]
pub fn slot(of: Flow, seed: [u32; 2], set: SocketSet) -> Option<u32> {
    let hash = flow(of, [seed[1], seed[0]]);
    if set.count == 0 {
        None
    } else {
        Some(set.base.wrapping_add(spread(hash, set.count)))
    }
}

#[inline(always)]
const fn round([mut v0, mut v1, mut v2, mut v3]: [u32; 4]) -> [u32; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(5) ^ v0;
    v0 = v0.rotate_left(16);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(8) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(7) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v2;
    v2 = v2.rotate_left(16);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Flow {
        Flow {
            source: number,
            destination: 0x0a64_33c6,
            source_port: 40_000,
            destination_port: 443,
        }
    }

    #[test]
    fn buckets_are_hit_evenly_by_neighbouring_clients() {
        let mut eighths = [0u32; 8];
        for number in 0..80_000 {
            let bucket = bucket(flow(client(number), [1, 2]));
            assert!((bucket as usize) < TABLE_LEN);
            eighths[bucket as usize * 8 / TABLE_LEN] += 1;
        }
        assert!(
            eighths.iter().all(|count| (9_600..10_400).contains(count)),
            "{eighths:?}"
        );
    }

    /// Nodes of two versions must agree. The numbers are those of another implementation.
    #[test]
    fn a_flow_has_the_same_hash_in_every_version() {
        let zero = Flow {
            source: 0,
            destination: 0,
            source_port: 0,
            destination_port: 0,
        };
        let full = Flow {
            source: 0xffff_ffff,
            destination: 0x8000_0001,
            source_port: 0xffff,
            destination_port: 0x8000,
        };
        for (of, seed, hash, index) in [
            (zero, [0, 0], 0x011c_40b6, 284),
            (client(0x0100_000a), [1, 2], 0xa921_4c6b, 43_297),
            (full, [0xdead_beef, 0x0123_4567], 0xb5cf_0f7e, 46_543),
        ] {
            assert_eq!(flow(of, seed), hash, "{of:?}");
            assert_eq!(bucket(hash), index, "{of:?}");
        }
    }

    #[test]
    fn a_slot_lies_in_its_set_and_an_empty_set_has_none() {
        let slot = |base, count| slot(client(0x0100_000a), [1, 2], SocketSet { base, count });
        assert_eq!(slot(10, 7), Some(12));
        assert_eq!(slot(10, 1), Some(10));
        assert_eq!(slot(10, 0), None);
    }

    #[test]
    fn a_spread_reaches_both_ends_and_no_further() {
        for (hash, count, at) in [
            (0, 5, 0),
            (u32::MAX, 5, 4),
            (u32::MAX, 1, 0),
            (u32::MAX, 0, 0),
            (1 << 31, 6, 3),
        ] {
            assert_eq!(spread(hash, count), at, "{hash} {count}");
        }
    }

    #[test]
    fn another_seed_is_another_hash() {
        let same = (0..1000)
            .filter(|n| bucket(flow(client(*n), [1, 2])) == bucket(flow(client(*n), [1, 3])))
            .count();
        assert!(same < 5, "{same} of 1000 flows kept their bucket");
    }

    #[test]
    fn every_field_counts() {
        let base = client(7);
        let others = [
            Flow { source: 8, ..base },
            Flow {
                destination: 8,
                ..base
            },
            Flow {
                source_port: 8,
                ..base
            },
            Flow {
                destination_port: 8,
                ..base
            },
        ];
        for other in others {
            assert_ne!(flow(base, [1, 2]), flow(other, [1, 2]), "{other:?}");
        }
    }
}
