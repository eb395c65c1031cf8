//! The Maglev table: which node owns each bucket, the same on every node that knows the same names.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4.

use crate::abi::{Bucket, NO_HOP, TABLE_LEN};

/// A node that takes part: its id for the buckets, its name for its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Index into `NODES`.
    pub id: u16,
    /// The node's name; its preferences depend on nothing else, so that others' changes move
    /// little.
    pub name: &'a str,
}

/// Fills the table: each node in turn takes the first free bucket of its own order.
///
/// The result depends on names, ids and seed, not on the order of `members`. With none, no bucket
/// has an owner and every node keeps what it receives.
pub fn table(members: &[Member<'_>], seed: u64) -> Vec<Bucket> {
    let mut owners = vec![NO_HOP; TABLE_LEN];
    let mut members = members.to_vec();
    members.sort_by_key(|member| member.name);
    let mut walks: Vec<Walk> = members
        .iter()
        .map(|member| Walk::new(member.name, seed))
        .collect();
    let mut free = if members.is_empty() { 0 } else { TABLE_LEN };
    'fill: loop {
        for (walk, member) in walks.iter_mut().zip(&members) {
            if free == 0 {
                break 'fill;
            }
            let bucket = walk.find(|bucket| owners[*bucket] == NO_HOP).unwrap_or(0);
            owners[bucket] = member.id;
            free -= 1;
        }
        if free == 0 {
            break;
        }
    }
    owners
        .into_iter()
        .map(|owner| Bucket {
            hops: [owner, NO_HOP, NO_HOP],
        })
        .collect()
}

/// A node's order of preference: every bucket once, since the table's length is prime.
struct Walk {
    next: usize,
    step: usize,
}

impl Walk {
    fn new(name: &str, seed: u64) -> Self {
        let len = TABLE_LEN as u64;
        let next = (mix(name, seed) % len) as usize;
        let step = (mix(name, !seed) % (len - 1) + 1) as usize;
        Self { next, step }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bucket = self.next;
        self.next = (self.next + self.step) % TABLE_LEN;
        Some(bucket)
    }
}

/// FNV-1a over the name, finished by the mixer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(name: &str, seed: u64) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, b| {
        (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owners(names: &[(u16, &str)], seed: u64) -> Vec<u16> {
        let members: Vec<_> = names
            .iter()
            .map(|(id, name)| Member { id: *id, name })
            .collect();
        table(&members, seed)
            .iter()
            .map(|bucket| bucket.hops[0])
            .collect()
    }

    #[test]
    fn buckets_are_shared_evenly() {
        for nodes in [1u16, 2, 3, 7, 100] {
            let names: Vec<_> = (0..nodes).map(|id| format!("node-{id}")).collect();
            let named: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(id, name)| (id as u16, name.as_str()))
                .collect();
            let owners = owners(&named, 7);
            let share = TABLE_LEN / usize::from(nodes);
            for id in 0..nodes {
                let count = owners.iter().filter(|owner| **owner == id).count();
                assert!(
                    count == share || count == share + 1,
                    "{count} of {share} for node {id} of {nodes}"
                );
            }
        }
    }

    #[test]
    fn a_node_that_leaves_moves_little_beyond_its_own_buckets() {
        let before = owners(&[(0, "a"), (1, "b"), (2, "c")], 7);
        let after = owners(&[(0, "a"), (1, "b")], 7);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| b != a && **b != 2)
            .count();
        assert!(
            moved < TABLE_LEN / 100,
            "{moved} buckets moved between nodes that stayed"
        );
    }

    /// Nodes of two versions must agree. The numbers are those of another implementation.
    #[test]
    fn a_table_is_the_same_in_every_version() {
        let owners = owners(&[(0, "node-a"), (7, "node-b"), (3, "node-c")], 7);
        assert_eq!(owners[..12], [0, 3, 7, 7, 3, 7, 3, 0, 0, 7, 3, 7]);
        let digest = owners.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, owner| {
            (hash ^ u64::from(*owner)).wrapping_mul(0x100_0000_01b3)
        });
        assert_eq!(digest, 0xfd7b_9ec3_372f_4eea);
    }

    #[test]
    fn nobody_owns_a_table_without_nodes() {
        assert!(owners(&[], 7).iter().all(|owner| *owner == NO_HOP));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_order_of_members_does_not_matter(seed: u64, rotate in 0usize..4) {
            let mut names = vec![(0, "a"), (1, "b"), (2, "c"), (3, "d")];
            let straight = owners(&names, seed);
            names.rotate_left(rotate);
            prop_assert_eq!(straight, owners(&names, seed));
        }
    }
}
