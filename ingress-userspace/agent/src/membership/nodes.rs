//! The set of nodes: what every node makes the same table of.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ingress_ebpf::{
    abi::NODES,
    owners::{Nodes, Owners, StepError},
};
use serde::Deserialize;

/// The longest description of a membership that is read, in bytes: each of 1024 nodes has a few dozen.
pub const LONGEST: u64 = 1 << 20;

/// A set of nodes and who owns connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Grows with each change that is published; the same on every node that has the same.
    pub epoch: u64,
    /// Each under its id, which nobody else ever has.
    pub nodes: BTreeMap<u16, NamedNode>,
    /// Whose sockets may have a connection.
    pub owners: Owners,
}

/// A node by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNode {
    /// What buckets and packets call it.
    pub id: u16,
    /// Its place in the table.
    pub name: String,
    /// Where other nodes reach it.
    pub address: Ipv4Addr,
    /// It will not come back with the connections that it had. Its name stays, for the tables of sets
    /// that it was in.
    pub is_gone: bool,
}

/// A set of nodes that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It is no YAML of this form.
    #[error("{0}")]
    Syntax(String),
    /// It may go on: nothing says that this is all of it.
    #[error(
        "epoch: it must come last, since a file that is cut short would be valid without what follows"
    )]
    EpochFirst,
    /// Ids are indices of a map.
    #[error("nodes: the id {id} of {name} is not below {NODES}")]
    Id {
        /// Which id.
        id: u16,
        /// Whose.
        name: String,
    },
    /// No host can have the address.
    #[error("nodes: {address}, the address of {name}, is none that other nodes can send to")]
    Address {
        /// Which one.
        address: Ipv4Addr,
        /// Whose.
        name: String,
    },
    /// Two nodes share what tells them apart.
    #[error("nodes: two nodes have the {what} {value}")]
    Double {
        /// `id`, `name` or `address`.
        what: &'static str,
        /// Which one.
        value: String,
    },
    /// There is none.
    #[error("nodes: there must be at least one")]
    Empty,
    /// A node without a name has no place in the table.
    #[error("nodes: the node with the id {0} has no name")]
    NoName(u16),
    /// Somebody owns connections who is not there.
    #[error("owners: no node has the id {0}")]
    Unknown(u16),
    /// New connections would have no owner.
    #[error("owners: each set must have a node that is not gone")]
    NoOwner,
    /// Nobody would own the buckets of a node that is gone: each node would serve what it receives.
    #[error("owners: {0} is gone; announce the set without it as next")]
    Gone(String),
    /// More sets than a bucket has hops.
    #[error("owners: {0}")]
    Step(#[from] StepError),
}

impl Membership {
    /// One node for itself.
    pub fn alone(name: &str) -> Self {
        Self::fixed([(name.to_owned(), Ipv4Addr::UNSPECIFIED)].into())
    }

    /// A set that never changes: ids are places in the order of names, so that every node that was
    /// told of the same nodes gives the same.
    ///
    /// Its epoch is a digest of the set: nodes that were told of others see each other's packets as
    /// steered by another epoch.
    pub fn fixed(nodes: BTreeMap<String, Ipv4Addr>) -> Self {
        let mut epoch = 0x811c_9dc5_u32;
        let mut by_id = BTreeMap::new();
        for (id, (name, address)) in (0u16..).zip(nodes) {
            // FNV-1a.
            for byte in name.bytes().chain([0]).chain(address.octets()) {
                epoch = (epoch ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
            let node = NamedNode {
                id,
                name,
                address,
                is_gone: false,
            };
            by_id.insert(id, node);
        }
        Self {
            epoch: u64::from(epoch),
            owners: Owners::of(by_id.keys().copied()),
            nodes: by_id,
        }
    }

    /// Reads a description in YAML.
    ///
    /// It may be a half of one, which would be valid all the same, and say that all nodes own connections
    /// where the end says who does. So the epoch comes last: what is cut short has none, or a lower one. A
    /// flow mapping, as in JSON, shows its end by itself.
    ///
    /// # Errors
    ///
    /// [`MembershipError`], which names the field.
    pub fn read(text: &str) -> Result<Self, MembershipError> {
        let written: Written = serde_saphyr::from_str(text)
            .map_err(|error| MembershipError::Syntax(error.to_string()))?;
        if !text.trim_start().starts_with('{') && !ends_with_epoch(text) {
            return Err(MembershipError::EpochFirst);
        }
        written.check()
    }

    /// Tells this set from others, of the same epoch too: somebody may have forgotten to raise it.
    ///
    /// Every node that was told the same gives the same, in every version.
    pub fn digest(&self) -> u64 {
        // FNV-1a.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        };
        take(&self.epoch.to_le_bytes());
        for node in self.nodes.values() {
            take(&node.id.to_le_bytes());
            take(node.name.as_bytes());
            take(&[0, u8::from(node.is_gone)]);
            take(&node.address.octets());
        }
        take(&[u8::from(self.owners.next().is_some())]);
        for set in self.owners.sets() {
            take(&u16::MAX.to_le_bytes());
            for id in set {
                take(&id.to_le_bytes());
            }
        }
        // Its lower bits are made of lower bits alone, and few of them travel with a packet.
        (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }

    /// The node of this name.
    pub fn named(&self, name: &str) -> Option<&NamedNode> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// The description that [`read`](Self::read) reads.
    pub fn write(&self) -> String {
        // Names in quotes of JSON, which YAML knows too: some would be numbers without.
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let list = |set: &Nodes| {
            let ids: Vec<_> = set.iter().map(u16::to_string).collect();
            format!("[{}]", ids.join(", "))
        };
        let mut text = "nodes:\n".to_owned();
        for node in self.nodes.values() {
            let (id, name, address) = (node.id, quoted(&node.name), node.address);
            let gone = if node.is_gone { ", gone: true" } else { "" };
            text += &format!("- {{id: {id}, name: {name}, address: {address}{gone}}}\n");
        }
        text += &format!("owners:\n  current: {}\n", list(self.owners.current()));
        if let Some(next) = self.owners.next() {
            text += &format!("  next: {}\n", list(next));
        }
        let earlier: Vec<_> = self.owners.earlier().iter().map(list).collect();
        text + &format!(
            "  earlier: [{}]\nepoch: {}\n",
            earlier.join(", "),
            self.epoch
        )
    }

    fn is_alive(&self, id: u16) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.is_gone)
    }
}

/// Whether an address is one by which a host can be reached.
pub fn is_of_a_host(address: Ipv4Addr) -> bool {
    !(address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
        || address.is_broadcast())
}

/// Whether nothing is said after the epoch.
fn ends_with_epoch(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end).rev();
    let last = lines.find(|line| {
        let is_comment = line.trim_start().starts_with('#');
        !line.is_empty() && !is_comment && *line != "..."
    });
    last.is_some_and(|line| line.starts_with("epoch:"))
}

/// How a membership is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    epoch: u64,
    nodes: Vec<WrittenNode>,
    owners: Option<WrittenOwners>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    id: u16,
    name: String,
    address: Ipv4Addr,
    #[serde(default)]
    gone: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOwners {
    current: Nodes,
    next: Option<Nodes>,
    #[serde(default)]
    earlier: Vec<Nodes>,
}

impl Written {
    fn check(self) -> Result<Membership, MembershipError> {
        let double = |what, value: String| MembershipError::Double { what, value };
        let mut nodes = BTreeMap::new();
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for WrittenNode {
            id,
            name,
            address,
            gone,
        } in self.nodes
        {
            if usize::from(id) >= NODES {
                return Err(MembershipError::Id { id, name });
            }
            if name.is_empty() {
                return Err(MembershipError::NoName(id));
            }
            if !is_of_a_host(address) {
                return Err(MembershipError::Address { address, name });
            }
            if !names.insert(name.clone()) {
                return Err(double("name", name));
            }
            // Whoever is gone may have left its address to another.
            if !gone && !addresses.insert(address) {
                return Err(double("address", address.to_string()));
            }
            let node = NamedNode {
                id,
                name,
                address,
                is_gone: gone,
            };
            if nodes.insert(id, node).is_some() {
                return Err(double("id", id.to_string()));
            }
        }
        if nodes.is_empty() {
            return Err(MembershipError::Empty);
        }
        let owners = match self.owners {
            Some(WrittenOwners {
                current,
                next,
                earlier,
            }) => Owners::restore(current, next, earlier)?,
            None => Owners::of(
                nodes
                    .values()
                    .filter(|node| !node.is_gone)
                    .map(|node| node.id),
            ),
        };
        let membership = Membership {
            epoch: self.epoch,
            nodes,
            owners,
        };
        for id in membership.owners.sets().flatten() {
            if !membership.nodes.contains_key(id) {
                return Err(MembershipError::Unknown(*id));
            }
        }
        // A bucket of one that is gone has the owner of the announced set.
        let owners = &membership.owners;
        let heirs = owners.next().unwrap_or(owners.current());
        for node in membership.nodes.values().filter(|node| node.is_gone) {
            if heirs.contains(&node.id) {
                return Err(MembershipError::Gone(node.name.clone()));
            }
        }
        let first = [owners.next(), Some(owners.current())];
        for set in first.into_iter().flatten() {
            if !set.iter().any(|id| membership.is_alive(*id)) {
                return Err(MembershipError::NoOwner);
            }
        }
        Ok(membership)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "
nodes:
- {id: 4, name: n1, address: 198.18.0.11}
- {id: 9, name: n2, address: 198.18.0.12}
- {id: 2, name: n3, address: 198.18.0.13, gone: true}
";

    /// The three with more about them, as a file says it.
    fn with(more: &str) -> String {
        format!("{THREE}{more}\nepoch: 7\n")
    }

    #[test]
    fn a_membership_is_read_with_its_owners() {
        let membership = Membership::read(&with("")).unwrap();
        assert_eq!(membership.epoch, 7);
        assert_eq!(membership.named("n2").unwrap().id, 9);
        assert_eq!(membership.owners, Owners::of([4, 9]));
        let text = with("owners: {current: [9], next: [4, 9], earlier: [[2, 9]]}");
        let owners = Membership::read(&text).unwrap().owners;
        let sets: Vec<Vec<u16>> = owners
            .sets()
            .map(|set| set.iter().copied().collect())
            .collect();
        assert_eq!(sets, [vec![9], vec![4, 9], vec![2, 9]]);
    }

    #[test]
    fn a_membership_is_read_as_it_was_written() {
        let owners = "owners: {current: [9], next: [4, 9], earlier: [[2, 9]]}";
        for text in [with(""), with(owners)] {
            let text = text.replace("n1", "'0x1F'").replace("n2", "'null'");
            let membership = Membership::read(&text).unwrap();
            let written = membership.write();
            assert_eq!(Membership::read(&written).unwrap(), membership, "{written}");
        }
    }

    #[test]
    fn a_membership_that_cannot_be_is_refused_by_the_field_that_is_wrong() {
        for (text, said) in [
            ("epoch: 7", "nodes"),
            ("nodes: []\nepoch: 7", "nodes: there must be at least one"),
            (
                &*with("- {id: 1024, name: n4, address: 198.18.0.14}"),
                "nodes: the id 1024 of n4 is not below 1024",
            ),
            (
                &*with("- {id: 4, name: n4, address: 198.18.0.14}"),
                "nodes: two nodes have the id 4",
            ),
            (
                &*with("- {id: 5, name: n3, address: 198.18.0.14}"),
                "nodes: two nodes have the name n3",
            ),
            (
                &*with("- {id: 5, name: n4, address: 198.18.0.11}"),
                "nodes: two nodes have the address 198.18.0.11",
            ),
            (
                &*with("- {id: 5, name: '', address: 198.18.0.14}"),
                "nodes: the node with the id 5 has no name",
            ),
            (
                &*with("- {id: 5, name: n4, address: 198.18.0.14, zone: a}"),
                "zone",
            ),
            (
                &*with("owners: {current: [4, 5]}"),
                "owners: no node has the id 5",
            ),
            (
                &*with("owners: {current: []}"),
                "owners: each set must have a node that is not gone",
            ),
            (
                &*with("owners: {current: [2], next: [4]}"),
                "owners: each set must have a node that is not gone",
            ),
            (
                &*with("owners: {current: [2, 4]}"),
                "owners: n3 is gone; announce the set without it",
            ),
            (
                &*with("owners: {current: [4], next: [2, 4]}"),
                "owners: n3 is gone; announce the set without it",
            ),
            (
                &*with("owners: {current: [4], next: [9], earlier: [[4], [9]]}"),
                "owners: the oldest of the earlier sets must expire first",
            ),
        ] {
            let error = Membership::read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_address_of_a_node_that_is_gone_may_be_anothers() {
        let text = with("- {id: 5, name: n4, address: 198.18.0.13}");
        assert_eq!(Membership::read(&text).unwrap().nodes.len(), 4);
    }

    /// A file may be read while it is being written, and by a writer that died it stays so.
    #[test]
    fn a_file_that_is_cut_short_anywhere_is_refused_or_has_a_lower_epoch() {
        let block = "
nodes:
- id: 4
  name: n1
  address: 198.18.0.11
- id: 9
  name: n2
  address: 198.18.0.12
owners:
  current:
  - 4
  next:
  - 9
  - 4
  earlier:
  - [9]
# The twelfth change.
epoch: 123 # of many
";
        let flow = r#"{"epoch": 123, "nodes": [{"id": 4, "name": "n1", "address": "198.18.0.11"},
 {"id": 9, "name": "n2", "address": "198.18.0.12"}], "owners": {"current": [4], "next": [9]}}"#;
        let rows = with("owners:\n  current: [9]\n  next: [4, 9]");
        for text in [block, flow, &rows, &format!("---\n{rows}...\n")] {
            let whole = Membership::read(text).unwrap();
            for end in 0..text.len() {
                let Ok(cut) = Membership::read(&text[..end]) else {
                    continue;
                };
                assert_eq!(cut.nodes, whole.nodes, "{}", &text[..end]);
                assert_eq!(cut.owners, whole.owners, "{}", &text[..end]);
                assert!(cut.epoch <= whole.epoch, "{}", &text[..end]);
            }
        }
    }

    #[test]
    fn an_epoch_that_does_not_come_last_is_refused() {
        let error = Membership::read(&format!("epoch: 7{THREE}")).unwrap_err();
        assert!(error.to_string().contains("must come last"), "{error}");
    }

    #[test]
    fn an_address_that_no_host_can_have_is_refused() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.5",
            "239.255.255.250",
            "255.255.255.255",
        ] {
            let node = format!("- {{id: 5, name: n4, address: {address}}}");
            let error = Membership::read(&with(&node)).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("n4"), "{error}");
        }
    }

    #[test]
    fn sets_of_one_epoch_that_differ_in_anything_have_other_digests() {
        let of = |text: &str| Membership::read(text).unwrap().digest();
        let base = with("owners: {current: [4], next: [9]}");
        let mut digests = vec![of(&base)];
        for (before, after) in [
            ("198.18.0.12", "198.18.0.28"),
            ("n2", "n12"),
            ("id: 2,", "id: 18,"),
            (", gone: true", ""),
            ("next: [9]", "earlier: [[9]]"),
            ("next: [9]", "next: [4, 9]"),
            ("epoch: 7", "epoch: 23"),
        ] {
            digests.push(of(&base.replace(before, after)));
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 8);
        assert_eq!(
            of(&base),
            of(&base.replace("id: 4, name: n1", "name: n1, id: 4"))
        );
    }

    #[test]
    fn nodes_that_were_told_of_other_nodes_have_another_epoch() {
        let of = |nodes: &[(&str, u8)]| {
            let node =
                |(name, last): &(&str, u8)| ((*name).to_owned(), Ipv4Addr::new(198, 18, 0, *last));
            Membership::fixed(nodes.iter().map(node).collect())
        };
        let both = of(&[("n1", 11), ("n2", 12)]);
        assert_eq!(both, of(&[("n2", 12), ("n1", 11)]));
        assert_eq!(both.named("n2").map(|node| node.id), Some(1));
        for other in [of(&[("n1", 11)]), of(&[("n1", 12), ("n2", 11)])] {
            assert_ne!(both.epoch, other.epoch);
        }
    }
}
