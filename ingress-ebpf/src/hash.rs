//! The keyed hash of a flow: the same on every node, in the kernel and on the host.
//!
//! One multiplication by a secret odd number for each word, with the upper half folded into the
//! lower, which the next multiplication spreads again: about 25 instructions for IPv4, where a
//! SipHash costs ten times that. It is no pseudo-random function: it keeps an attacker from aiming
//! at a bucket only as long as the keys are secret and nobody outside sees a hash. Nobody does: 14
//! bits of it travel between nodes, in the UDP source port, and none to a client.

use crate::abi::{Keys, SocketSet, TABLE_LEN};

/// What is left of a flow: two independent hashes come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub(crate) u64);

/// Takes in one more word.
///
/// The fold is what makes the upper bits, which a multiplication mixes best, count in the next one.
#[inline(always)]
pub const fn mix(word: u64, key: u64, state: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(key);
    product ^ product >> 32
}

impl Digest {
    /// The hash that picks a bucket.
    #[inline(always)]
    pub const fn bucket(self, keys: &Keys) -> u32 {
        (self.0.wrapping_mul(keys.bucket) >> 32) as u32
    }

    /// The hash that picks a worker: another one, so that a bucket's connections spread over all.
    #[inline(always)]
    pub const fn worker(self, keys: &Keys) -> u32 {
        (self.0.wrapping_mul(keys.worker) >> 32) as u32
    }
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

/// Slots of a set that are looked at, one after the other, for a socket: those of workers that are
/// gone are empty, and their share goes to the ones after them.
pub const PROBES: u32 = 4;

/// The slot of `SOCKS` for a new connection, by the hash that picks a worker and the number of
/// slots that were empty; `None` in an empty set.
#[inline(always)]
pub const fn slot(hash: u32, set: SocketSet, probe: u32) -> Option<u32> {
    if set.count == 0 {
        return None;
    }
    let at = spread(hash, set.count).wrapping_add(probe);
    let at = if at >= set.count {
        at.wrapping_sub(set.count)
    } else {
        at
    };
    // A set may have fewer slots than there are probes.
    if at >= set.count {
        return None;
    }
    Some(set.base.wrapping_add(at))
}

#[cfg(feature = "userspace")]
impl Keys {
    /// The keys of a seed: what SplitMix64 gives, made odd (Steele, Lea and Flood, "Fast Splittable
    /// Pseudorandom Number Generators", 2014).
    pub fn of(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ word >> 31) | 1
        };
        Self {
            words: [next(), next(), next(), next(), next()],
            bucket: next(),
            worker: next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        family::{Family as _, V4, V6},
        flow::{Flow, ports},
    };

    const KEYS: fn() -> Keys = || Keys::of(1);

    fn client(number: u32) -> Flow<u32> {
        Flow {
            source: number,
            destination: 0x0a64_33c6,
            ports: ports(40_000, 443),
        }
    }

    fn hash(flow: &Flow<u32>, keys: &Keys) -> u32 {
        V4::digest(flow, keys).bucket(keys)
    }

    /// A cheap source of numbers that look random.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    /// Pearson's statistic divided by its degrees of freedom: about 1 for an even spread.
    fn unevenness(hashes: impl Iterator<Item = u32>, cells: u32) -> f64 {
        let mut counts = vec![0u32; cells as usize];
        let mut total = 0;
        for hash in hashes {
            counts[spread(hash, cells) as usize] += 1;
            total += 1;
        }
        let expected = f64::from(total) / f64::from(cells);
        let squares = counts
            .iter()
            .map(|count| (f64::from(*count) - expected).powi(2));
        squares.sum::<f64>() / expected / f64::from(cells - 1)
    }

    #[test]
    fn neighbouring_clients_and_ports_spread_evenly() {
        for seed in 0..40 {
            let keys = Keys::of(seed);
            let clients = (0..40_000u32).map(|n| client((0xc612_0000 + n).to_be()));
            let ports = (0..40_000u16).map(|n| Flow {
                ports: ports((1024 + n).to_be(), 443u16.to_be()),
                ..client(0x0101_12c6)
            });
            for flows in [clients.collect::<Vec<_>>(), ports.collect()] {
                let uneven = unevenness(flows.iter().map(|flow| hash(flow, &keys)), 1009);
                // A spread that is too even is no accident either, but harms nobody.
                assert!(uneven < 1.3, "seed {seed}: {uneven}");
            }
        }
    }

    #[test]
    fn each_bit_of_a_flow_flips_each_bit_of_its_hash_half_of_the_time() {
        const TRIALS: u32 = 4000;
        let mut next = numbers(7);
        for bit in 0..96 {
            let mut flips = [0u32; 32];
            for _ in 0..TRIALS {
                let keys = Keys::of(next());
                let words = [next() as u32, next() as u32, next() as u32];
                let mut other = words;
                other[bit / 32] ^= 1 << (bit % 32);
                let of = |[source, destination, ports]: [u32; 3]| Flow {
                    source,
                    destination,
                    ports,
                };
                let changed = hash(&of(words), &keys) ^ hash(&of(other), &keys);
                for (at, count) in flips.iter_mut().enumerate() {
                    *count += changed >> at & 1;
                }
            }
            for (at, count) in flips.iter().enumerate() {
                let share = f64::from(*count) / f64::from(TRIALS);
                assert!(
                    (0.45..0.55).contains(&share),
                    "bit {bit} flips bit {at}: {share}"
                );
            }
        }
    }

    #[test]
    fn a_bucket_spreads_its_connections_over_all_workers() {
        let keys = KEYS();
        let of_one_bucket = (0..4_000_000u32)
            .map(client)
            .map(|flow| V4::digest(&flow, &keys))
            .filter(|digest| spread(digest.bucket(&keys), 1009) == 5);
        let uneven = unevenness(of_one_bucket.map(|digest| digest.worker(&keys)), 16);
        assert!(uneven < 2.5, "{uneven}");
    }

    /// Nodes of two versions must agree. The numbers are those of another implementation.
    #[test]
    fn a_flow_has_the_same_hash_in_every_version() {
        let keys = Keys::of(0x0123_4567_89ab_cdef);
        let four = Flow {
            source: u32::from_le_bytes([198, 18, 1, 1]),
            destination: u32::from_le_bytes([198, 51, 100, 10]),
            ports: u32::from_le_bytes([0x9c, 0x40, 0x01, 0xbb]),
        };
        let digest4 = V4::digest(&four, &keys);
        let six = Flow {
            source: [0x2001_0db8, 1, 2, 3].map(u32::to_be),
            destination: [0x2001_0db8, 0, 0, 10].map(u32::to_be),
            ports: four.ports,
        };
        let digest6 = V6::digest(&six, &keys);
        assert_eq!(
            [digest4, digest6].map(|digest| (digest.bucket(&keys), digest.worker(&keys))),
            GOLDEN
        );
    }

    const GOLDEN: [(u32, u32); 2] = [(0xfedc_fd69, 0x4fad_8e38), (0xadd9_2e70, 0x0c19_ca7c)];

    #[test]
    fn a_slot_lies_in_its_set_and_the_next_one_is_tried() {
        let set = |count| SocketSet { base: 10, count };
        assert_eq!(slot(0, set(7), 0), Some(10));
        assert_eq!(slot(u32::MAX, set(7), 0), Some(16));
        assert_eq!(slot(u32::MAX, set(7), 1), Some(10));
        assert_eq!(slot(u32::MAX, set(1), 0), Some(10));
        assert_eq!(slot(u32::MAX, set(1), 1), Some(10));
        assert_eq!(slot(u32::MAX, set(1), 2), None);
        assert_eq!(slot(0, set(0), 0), None);
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
        let [one, other] = [1, 2].map(Keys::of);
        let same = (0..1000)
            .filter(|n| bucket(hash(&client(*n), &one)) == bucket(hash(&client(*n), &other)))
            .count();
        assert!(same < 5, "{same} of 1000 flows kept their bucket");
    }
}
