//! Which node announces a virtual IP: computed from the set in force, by nobody elected.
//!
//! Any node that gets a packet for a virtual IP steers it to its owner without state, so two announcers at a
//! time break no connection. So each node finds out by itself, and knows at once when the set changes.

use std::{collections::BTreeSet, net::IpAddr};

use ingress_ebpf::{abi::Keys, hash};

use super::nodes::{Membership, NamedNode};

impl Membership {
    /// The node that announces a virtual IP: of those that own new connections, the one whose hash with it is
    /// the highest (rendezvous hashing). So another node's coming or going moves only what it announces, and
    /// the virtual IPs spread over the nodes. `seed` is that of the flow hash, the same on every node.
    ///
    /// None of `except`, unless nobody else is there. Where no owner is there any more, one of the other
    /// nodes; `None` where there is none at all.
    pub fn announcer(&self, vip: IpAddr, seed: u64, except: &BTreeSet<u16>) -> Option<&NamedNode> {
        let keys = Keys::of(seed);
        let present = self.nodes.values().filter(|node| !node.is_gone);
        present.max_by_key(|node| {
            let owns = self.owners.current().contains(&node.id);
            let is_excepted = except.contains(&node.id);
            (
                owns && !is_excepted,
                owns,
                score(vip, node.id, &keys),
                node.id,
            )
        })
    }
}

/// The hash of a node with a virtual IP.
fn score(vip: IpAddr, id: u16, keys: &Keys) -> u64 {
    let [first, second, third, fourth, _] = keys.words;
    let address = match vip {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let state = hash::mix(address as u64, first, 0);
    let state = hash::mix((address >> 64) as u64, second, state);
    let state = hash::mix(u64::from(id), third, state);
    // The last word's bits are in the upper half of its product alone until they are folded once more.
    hash::mix(0, fourth, state).wrapping_mul(keys.bucket)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use ingress_ebpf::owners::Owners;

    use super::*;

    fn of(count: u8) -> Membership {
        let node = |id| (format!("n{id}"), Ipv4Addr::new(198, 18, 0, id));
        Membership::fixed((1..=count).map(node).collect())
    }

    fn announcer(set: &Membership, vip: IpAddr, seed: u64) -> Option<u16> {
        let node = set.announcer(vip, seed, &BTreeSet::new());
        node.map(|node| node.id)
    }

    fn vips() -> impl Iterator<Item = IpAddr> {
        (0..=255).map(|last| Ipv4Addr::new(198, 51, 100, last).into())
    }

    #[test]
    fn virtual_ips_spread_over_the_nodes_and_another_seed_spreads_them_otherwise() {
        let mut shares = BTreeMap::<_, u32>::new();
        let (set, mut moved) = (of(4), 0);
        for vip in vips() {
            let id = announcer(&set, vip, 7).unwrap();
            *shares.entry(id).or_default() += 1;
            moved += u32::from(announcer(&set, vip, 8).unwrap() != id);
        }
        let is_even = |share: &u32| (40..=90).contains(share);
        assert!(shares.values().all(is_even), "{shares:?}");
        assert!(moved > 150, "{moved}");
    }

    #[test]
    fn a_node_that_drains_or_is_gone_hands_on_what_it_announced_and_moves_nothing_else() {
        let before = of(4);
        let drained = Membership {
            owners: Owners::of([0, 1, 3]),
            ..before.clone()
        };
        let mut gone = before.clone();
        gone.nodes.get_mut(&2).unwrap().is_gone = true;
        let mut handed_on = 0;
        for vip in vips() {
            let first = announcer(&before, vip, 7).unwrap();
            for after in [&drained, &gone] {
                let next = announcer(after, vip, 7).unwrap();
                assert_ne!(next, 2);
                if first == 2 {
                    handed_on += 1;
                } else {
                    assert_eq!(next, first);
                }
            }
        }
        assert!(handed_on > 60, "{handed_on}");
    }

    #[test]
    fn a_node_that_is_to_own_connections_next_announces_nothing_yet() {
        let one = Membership {
            owners: Owners::of([0]),
            ..of(2)
        };
        let joining = Membership {
            owners: one.owners.prepare([0, 1].into()).unwrap(),
            ..one.clone()
        };
        for vip in vips() {
            assert_eq!(announcer(&joining, vip, 7).unwrap(), 0);
        }
    }

    #[test]
    fn somebody_announces_as_long_as_anybody_is_there() {
        let mut set = Membership {
            owners: Owners::of([0]),
            ..of(2)
        };
        set.nodes.get_mut(&0).unwrap().is_gone = true;
        let vip = vips().next().unwrap();
        assert_eq!(announcer(&set, vip, 7).unwrap(), 1);
        set.nodes.get_mut(&1).unwrap().is_gone = true;
        assert!(announcer(&set, vip, 7).is_none());
    }

    #[test]
    fn who_seems_to_be_dead_is_passed_over_unless_all_are() {
        let set = of(3);
        for vip in vips() {
            let first = announcer(&set, vip, 7).unwrap();
            let of = |except: &[u16]| {
                let except = except.iter().copied().collect();
                set.announcer(vip, 7, &except).unwrap().id
            };
            let second = of(&[first]);
            assert_ne!(second, first);
            assert_eq!(of(&[second]), first);
            assert_ne!(of(&[first, second]), second);
            assert_eq!(of(&[0, 1, 2]), first);
        }
    }

    /// Nodes of two versions must agree during an upgrade.
    #[test]
    fn the_announcer_is_the_same_in_every_version() {
        let set = of(5);
        let ids: Vec<_> = vips()
            .take(12)
            .map(|vip| announcer(&set, vip, 0x5eed).unwrap())
            .collect();
        assert_eq!(ids, [1, 3, 1, 0, 2, 3, 3, 1, 4, 2, 3, 1]);
        let vip = "2001:db8::10".parse().unwrap();
        assert_eq!(announcer(&set, vip, 0x5eed).unwrap(), 2);
    }
}
