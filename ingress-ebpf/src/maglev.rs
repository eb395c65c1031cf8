//! The Maglev table: which node owns each bucket, the same on every node that knows the same names.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4.

use crate::{
    abi::{Bucket, FIRST_HOPS, FirstHop, FirstHops, NO_HOP, TABLE_LEN},
    owners::Owners,
};

/// A node that may own connections: its id for the buckets, its name for its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Index into `NODES`.
    pub id: u16,
    /// The node's name; its preferences depend on nothing else, so that others' changes move
    /// little.
    pub name: &'a str,
    /// Its connections are gone, with it: it keeps its place in the tables of earlier sets, so that
    /// those of others are found, and is no bucket's hop.
    pub is_gone: bool,
}

/// Fills the table: a bucket's hops are its owners in the sets of `owners`, in that order.
///
/// The result depends on names, ids and seed, not on the order of `members`; each bucket says the
/// lower half of `epoch`. A node of a set that is not among `members` owns nothing. With none, no
/// bucket has an owner and every node keeps what it receives.
pub fn table(members: &[Member<'_>], owners: &Owners, seed: u64, epoch: u64) -> Vec<Bucket> {
    let mut table = vec![
        Bucket {
            hops: [NO_HOP; 3],
            epoch: epoch as u16,
        };
        TABLE_LEN
    ];
    let is_gone = |id| {
        members
            .iter()
            .any(|member| member.id == id && member.is_gone)
    };
    let gone: Vec<u16> = owners
        .sets()
        .flatten()
        .copied()
        .filter(|id| is_gone(*id))
        .collect();
    for set in owners.sets() {
        let of_set: Vec<_> = members
            .iter()
            .filter(|member| set.contains(&member.id))
            .copied()
            .collect();
        for (bucket, owner) in table.iter_mut().zip(fill(of_set, seed)) {
            if owner == NO_HOP || gone.contains(&owner) {
                continue;
            }
            let free = bucket
                .hops
                .iter_mut()
                .take_while(|hop| **hop != owner)
                .find(|hop| **hop == NO_HOP);
            if let Some(hop) = free {
                *hop = owner;
            }
        }
    }
    table
}

/// What `FIRST_HOPS` says of a table.
pub fn first_hops(table: &[Bucket]) -> Vec<FirstHops> {
    let values = table.chunks(FIRST_HOPS).map(|buckets| {
        // There are fewer buckets than places.
        let mut value = [NO_HOP; FIRST_HOPS];
        for (place, bucket) in value.iter_mut().zip(buckets) {
            *place = FirstHop::of(bucket).0;
        }
        FirstHops(value)
    });
    values.collect()
}

/// The owner of each bucket: each node in turn takes the first free bucket of its own order.
fn fill(mut members: Vec<Member<'_>>, seed: u64) -> Vec<u16> {
    let mut owners = vec![NO_HOP; TABLE_LEN];
    members.sort_by_key(|member| member.name);
    let mut walks: Vec<Walk> = members
        .iter()
        .map(|member| Walk::new(member.name, seed))
        .collect();
    let mut free = if members.is_empty() { 0 } else { TABLE_LEN };
    while free > 0 {
        for (walk, member) in walks.iter_mut().zip(&members) {
            if free == 0 {
                break;
            }
            let bucket = walk.find(|bucket| owners[*bucket] == NO_HOP).unwrap_or(0);
            owners[bucket] = member.id;
            free -= 1;
        }
    }
    owners
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
    use crate::abi::entries;

    fn members<'a>(names: &[(u16, &'a str)]) -> Vec<Member<'a>> {
        let member = |(id, name): &(u16, &'a str)| Member {
            id: *id,
            name,
            is_gone: false,
        };
        names.iter().map(member).collect()
    }

    fn owners(names: &[(u16, &str)], seed: u64) -> Vec<u16> {
        let all = Owners::of(names.iter().map(|(id, _)| *id));
        table(&members(names), &all, seed, 0)
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
    fn the_hops_of_a_bucket_are_its_owners_before_and_after_a_change() {
        let names = [(1, "a"), (2, "b"), (3, "c")];
        let tables = [&names[..2], &names[..], &names[1..]].map(|names| owners(names, 7));
        let [before, now, after] = &tables;
        let changing = Owners::of([1, 2])
            .prepare([1, 2, 3].into())
            .and_then(|owners| owners.commit())
            .and_then(|owners| owners.prepare([2, 3].into()))
            .unwrap();
        let table = table(&members(&names), &changing, 7, 0x1_0005);
        let mut changed = 0;
        for (bucket, hops) in table.iter().enumerate() {
            let mut expected = vec![now[bucket]];
            for owner in [after[bucket], before[bucket]] {
                if !expected.contains(&owner) {
                    expected.push(owner);
                }
            }
            changed += usize::from(expected.len() > 1);
            expected.resize(3, NO_HOP);
            assert_eq!(hops.hops[..], expected, "bucket {bucket}");
            assert_eq!(hops.epoch, 5);
        }
        let share = changed * 100 / TABLE_LEN;
        assert!((40..80).contains(&share), "{share} % have a second hop");
    }

    #[test]
    fn a_node_that_is_gone_is_no_hop_and_moves_nobody_elses() {
        let mut members = members(&[(1, "a"), (2, "b"), (3, "c")]);
        let owners = Owners::of([1, 2, 3]).prepare([1, 2].into()).unwrap();
        let with = table(&members, &owners, 7, 0);
        members[2].is_gone = true;
        let without = table(&members, &owners, 7, 0);
        for (with, without) in with.iter().zip(&without) {
            let mut left: Vec<_> = with.hops.into_iter().filter(|hop| *hop != 3).collect();
            left.resize(3, NO_HOP);
            assert_eq!(without.hops[..], left);
            assert_ne!(without.hops[0], NO_HOP);
        }
    }

    #[test]
    fn the_first_hops_of_a_table_are_those_of_its_buckets() {
        let members = members(&[(1, "a"), (2, "b"), (3, "c")]);
        let table = table(
            &members,
            &Owners::of([1, 2]).prepare([1, 2, 3].into()).unwrap(),
            7,
            5,
        );
        let hops = first_hops(&table);
        assert_eq!(hops.len(), entries::FIRST_HOPS);
        for (index, bucket) in (0..).zip(&table) {
            let (value, place) = FirstHops::place(index);
            let first = FirstHop(hops[value as usize].0[place]);
            assert_eq!(first.id(), bucket.hops[0], "bucket {index}");
            assert_eq!(
                first.has_others(),
                bucket.hops[1] != NO_HOP,
                "bucket {index}"
            );
        }
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
