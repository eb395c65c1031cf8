//! What is to be published next, from what is published and what the nodes say: one step at a time, so that
//! no two nodes are more than one step apart.
//!
//! | the set that is published | what comes next |
//! |---|---|
//! | none | all nodes that are there own connections |
//! | lacks a node that asks to join, or knows it by another address | it is listed; it owns nothing yet |
//! | has a next set | commit, or announce another one where a node of it was lost |
//! | is settled, and other nodes should own connections | prepare |
//! | is settled, and older connections had time to end | expire |
//!
//! Each waits until every node that is heard of has taken the step before. A node that is heard of and does
//! not follow holds a change up only so long: then it is fenced, which is to say that it owns no connections
//! until it has caught up.
//!
//! A node that is not heard of any more is treated like one that drains. Its agent may be all that is lost:
//! then packets still reach the connections that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ingress_ebpf::{
    abi::NODES,
    owners::{EARLIER, Nodes, Owners},
};

use super::{
    nodes::{Membership, NamedNode},
    report::{NodeState, Report},
};

/// After so long without a word, a node gets no new connections.
pub(super) const LOST: Duration = Duration::from_secs(15);
/// Longest wait for a node that is heard of and does not follow.
pub(super) const FENCE: Duration = Duration::from_secs(20);
/// After so long without a word, a node that can have no connections gives its address up.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How long connections are looked for where their owners were, after a change.
const LINGER: Duration = Duration::from_secs(900);
/// So long after the last one came, the nodes that are there begin: they are started together, and each that
/// comes later is a change.
const TOGETHER: Duration = Duration::from_secs(3);
/// No node counts up to here; who says a higher epoch is not to have all others refuse what comes.
const HIGHEST: u64 = u64::MAX / 2;
/// The same where another change waits for the room.
const SHORT_LINGER: Duration = Duration::from_secs(60);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// What it said last.
    pub(super) report: Report,
    /// For how long it has said nothing.
    pub(super) silent: Duration,
    /// For how long it has been known.
    pub(super) known: Duration,
    /// It has said something since it is listened to: what it said before may be of a node that is gone.
    pub(super) is_sure: bool,
    /// It is to own no connections, whatever it says.
    pub(super) is_excluded: bool,
}

impl Heard {
    fn is_there(&self) -> bool {
        self.silent < LOST
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing, for this reason.
    Keep(Reason),
    /// This is to be published; and what it does.
    Publish(Membership, Step),
}

/// Why nothing is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// All is as it should be.
    Settled,
    /// Nobody is there yet who serves.
    NoNodes,
    /// These have not followed yet.
    Behind(Vec<String>),
    /// Older connections have not had their time.
    Lingering,
    /// Nobody could own connections.
    NoOwners,
    /// There are no ids left.
    Full,
}

/// What a publication does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    List,
    Prepare,
    Commit,
    Cancel,
    Expire,
    Forget,
    Raise,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::List => "list",
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Cancel => "cancel",
            Self::Expire => "expire",
            Self::Forget => "forget",
            Self::Raise => "raise",
        }
    }
}

/// Plans the next step. `age` is for how long the published set has been that.
pub(super) fn plan(
    published: Option<&Membership>,
    nodes: &BTreeMap<String, Heard>,
    age: Duration,
) -> Plan {
    let seed = seed(published, nodes);
    let Some(published) = published else {
        return begin(nodes, seed);
    };
    if let Some(epoch) = ahead(published, nodes, seed) {
        let raised = Membership {
            epoch,
            ..published.clone()
        };
        return publish(
            &raised,
            raised.nodes.clone(),
            raised.owners.clone(),
            Step::Raise,
        );
    }
    let (listed, is_full) = list(published, nodes, seed);
    if listed != published.nodes {
        return publish(published, listed, published.owners.clone(), Step::List);
    }
    let behind = behind(published, nodes);
    if !behind.is_empty() && age <= FENCE {
        return Plan::Keep(Reason::Behind(behind));
    }
    let candidates = Candidates {
        published,
        nodes,
        seed,
        age,
    };
    let wanted: Nodes = published
        .nodes
        .values()
        .filter(|node| candidates.may_own(node))
        .map(|node| node.id)
        .collect();
    let owners = &published.owners;
    let step = if wanted.is_empty() {
        // Whoever owns connections goes on: nobody could take them. The first ones only begin.
        let begins = age <= FENCE && owners.earlier().is_empty();
        return Plan::Keep(if begins {
            Reason::NoNodes
        } else {
            Reason::NoOwners
        });
    } else if let Some(next) = owners.next() {
        announced(owners, next, &wanted)
    } else if *owners.current() != wanted {
        match prepare(owners, wanted, &candidates) {
            Some(step) => step,
            None => return Plan::Keep(Reason::Lingering),
        }
    } else if !owners.earlier().is_empty() && age >= LINGER {
        (owners.expire(), Step::Expire)
    } else {
        return match forget(published, nodes) {
            Plan::Keep(_) if is_full => Plan::Keep(Reason::Full),
            plan => plan,
        };
    };
    let (owners, step) = step;
    publish(published, published.nodes.clone(), owners, step)
}

/// The fingerprint that most nodes have: of those that own connections, or else of all.
fn seed<'a>(published: Option<&Membership>, nodes: &'a BTreeMap<String, Heard>) -> Option<&'a str> {
    let owns = |name: &str| {
        published.is_some_and(|published| {
            let node = published.named(name);
            node.is_some_and(|node| published.owners.current().contains(&node.id))
        })
    };
    let mut votes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, heard) in nodes.iter().filter(|(_, heard)| heard.is_there()) {
        let vote = votes.entry(&heard.report.seed).or_default();
        vote.0 += usize::from(owns(name));
        vote.1 += 1;
    }
    let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
    most.map(|(seed, _)| seed)
}

/// Whether a node could share virtual IPs with the others.
fn fits(heard: &Heard, seed: Option<&str>) -> bool {
    heard.report.is_understood() && seed == Some(&heard.report.seed)
}

/// The first set: nobody has a connection yet.
fn begin(nodes: &BTreeMap<String, Heard>, seed: Option<&str>) -> Plan {
    let comes = |heard: &Heard| heard.is_there() && heard.known < TOGETHER;
    if nodes.values().any(comes) {
        return Plan::Keep(Reason::NoNodes);
    }
    // One that is gone would get connections.
    if nodes
        .values()
        .any(|heard| heard.is_there() && !heard.is_sure)
    {
        return Plan::Keep(Reason::NoNodes);
    }
    let mut taken = BTreeSet::new();
    let there = nodes.iter().filter(|(_, heard)| {
        heard.is_there() && fits(heard, seed) && taken.insert(heard.report.address)
    });
    let named = (1u16..)
        .zip(there)
        .take(NODES - 1)
        .map(|(id, (name, heard))| (id, (named(id, name, heard), heard)));
    let named: BTreeMap<u16, (NamedNode, &Heard)> = named.collect();
    let may_own = |heard: &Heard| !heard.is_excluded && heard.report.state != NodeState::Draining;
    let owners = named
        .iter()
        .filter(|(_, (_, heard))| may_own(heard))
        .map(|(id, _)| *id);
    let owners = Owners::of(owners);
    if owners.current().is_empty() {
        return Plan::Keep(Reason::NoNodes);
    }
    // Above whatever a node still steers by, should the set have been deleted.
    let steered = nodes.values().map(|heard| heard.report.epoch);
    let steered = steered.filter(|epoch| *epoch <= HIGHEST).max();
    let first = Membership {
        epoch: steered.unwrap_or_default().saturating_add(1),
        nodes: named
            .into_iter()
            .map(|(id, (node, _))| (id, node))
            .collect(),
        owners,
    };
    Plan::Publish(first, Step::Begin)
}

fn named(id: u16, name: &str, heard: &Heard) -> NamedNode {
    NamedNode {
        id,
        name: name.to_owned(),
        address: heard.report.address,
        is_gone: false,
    }
}

/// By which later epoch nodes steer that take none before it: what is published is older than what was, as
/// it is where somebody restored it.
fn ahead(
    published: &Membership,
    nodes: &BTreeMap<String, Heard>,
    seed: Option<&str>,
) -> Option<u64> {
    let listed = published.nodes.values().filter(|node| !node.is_gone);
    let heard = listed.filter_map(|node| nodes.get(&node.name));
    let heard = heard.filter(|heard| heard.is_there() && heard.is_sure && fits(heard, seed));
    let epochs = heard.map(|heard| heard.report.epoch);
    let latest = epochs.filter(|epoch| *epoch <= HIGHEST).max();
    latest.filter(|epoch| *epoch > published.epoch)
}

/// The nodes, with those that ask for it and with new addresses; and whether there was no id for one.
fn list(
    published: &Membership,
    nodes: &BTreeMap<String, Heard>,
    seed: Option<&str>,
) -> (BTreeMap<u16, NamedNode>, bool) {
    let mut listed = published.nodes.clone();
    let mut is_full = false;
    for (name, heard) in nodes {
        if !heard.is_there() || !heard.is_sure || !fits(heard, seed) {
            continue;
        }
        let known = published.named(name).map(|node| node.id);
        let is_taken = |listed: &BTreeMap<u16, NamedNode>| {
            listed.values().any(|node| {
                node.name != *name && !node.is_gone && node.address == heard.report.address
            })
        };
        // Until the other one is forgotten, or says that it has another address.
        if is_taken(&listed) {
            continue;
        }
        match known.or_else(|| free(&listed, &published.owners)) {
            Some(id) => drop(listed.insert(id, named(id, name, heard))),
            None => is_full = true,
        }
    }
    (listed, is_full)
}

/// An id that nobody has; where all are taken, that of a node which is gone and in no set.
fn free(listed: &BTreeMap<u16, NamedNode>, owners: &Owners) -> Option<u16> {
    let ids = 1..NODES as u16;
    let is_spare = |id: &u16| {
        listed.get(id).is_some_and(|node| node.is_gone)
            && !owners.sets().any(|set| set.contains(id))
    };
    ids.clone()
        .find(|id| !listed.contains_key(id))
        .or_else(|| ids.clone().find(is_spare))
}

/// Nodes that are heard of and steer by an earlier set.
fn behind(published: &Membership, nodes: &BTreeMap<String, Heard>) -> Vec<String> {
    let is_behind = |node: &&NamedNode| {
        nodes.get(&node.name).is_some_and(|heard| {
            // Without a set of its own it steers nothing.
            let steers = heard.report.epoch != 0;
            heard.is_there() && steers && heard.report.epoch < published.epoch
        })
    };
    let behind = published.nodes.values().filter(is_behind);
    behind.map(|node| node.name.clone()).collect()
}

struct Candidates<'a> {
    published: &'a Membership,
    nodes: &'a BTreeMap<String, Heard>,
    seed: Option<&'a str>,
    age: Duration,
}

impl Candidates<'_> {
    fn heard(&self, id: u16) -> Option<&Heard> {
        self.nodes.get(&self.published.nodes.get(&id)?.name)
    }

    fn may_own(&self, node: &NamedNode) -> bool {
        self.heard(node.id).is_some_and(|heard| {
            heard.is_there()
                && (heard.is_sure || self.is_chosen(node.id))
                && !node.is_gone
                && !heard.is_excluded
                && heard.report.address == node.address
                && fits(heard, self.seed)
                && (self.is_beginning(node.id, heard)
                    || heard.report.state == NodeState::Active && !self.is_fenced(heard))
        })
    }

    /// Whether it owns connections, or is about to.
    fn is_chosen(&self, id: u16) -> bool {
        let owners = &self.published.owners;
        let mut sets = [owners.current()].into_iter().chain(owners.next());
        sets.any(|set| set.contains(&id))
    }

    /// Whether it is one of the first owners and about to serve: not all begin in the same second, and
    /// each change in between would take the room of two.
    fn is_beginning(&self, id: u16, heard: &Heard) -> bool {
        let owners = &self.published.owners;
        heard.report.state == NodeState::Joining
            && self.age <= FENCE
            && owners.sets().count() == 1
            && owners.current().contains(&id)
    }

    fn is_fenced(&self, heard: &Heard) -> bool {
        let (epoch, published) = (heard.report.epoch, self.published.epoch);
        epoch.saturating_add(1) < published || epoch < published && self.age > FENCE
    }

    /// Packets of new connections go where nobody serves them.
    fn is_urgent(&self) -> bool {
        let mut current = self.published.owners.current().iter();
        current.any(|id| {
            let heard = self.heard(*id);
            heard.is_none_or(|heard| !heard.is_there() || heard.report.state == NodeState::Joining)
        })
    }
}

/// What becomes of a set that was announced.
fn announced(owners: &Owners, next: &Nodes, wanted: &Nodes) -> (Owners, Step) {
    // Nobody has made a connection by it, so another may take its place, or none.
    let without = owners.cancel();
    if owners.current() == wanted {
        return (without, Step::Cancel);
    }
    if next.is_subset(wanted)
        && let Ok(committed) = owners.commit()
    {
        return (committed, Step::Commit);
    }
    match without.prepare(wanted.clone()) {
        Ok(prepared) => (prepared, Step::Prepare),
        Err(_) => (without, Step::Cancel),
    }
}

/// Announces the set that should be; `None` while there is no room for it.
fn prepare(owners: &Owners, wanted: Nodes, candidates: &Candidates<'_>) -> Option<(Owners, Step)> {
    if owners.earlier().len() < EARLIER {
        return owners.prepare(wanted).ok().map(|it| (it, Step::Prepare));
    }
    let room = owners.expire();
    if candidates.is_urgent() {
        return room.prepare(wanted).ok().map(|it| (it, Step::Prepare));
    }
    (candidates.age >= SHORT_LINGER).then_some((room, Step::Expire))
}

/// Lets go of nodes that can have no connections and have not been heard of for long. Their ids stay
/// theirs, should they come back.
fn forget(published: &Membership, nodes: &BTreeMap<String, Heard>) -> Plan {
    let in_sets: BTreeSet<u16> = published.owners.sets().flatten().copied().collect();
    let is_forgotten = |node: &NamedNode| {
        let silent = nodes.get(&node.name).map(|heard| heard.silent);
        !in_sets.contains(&node.id) && silent.is_none_or(|silent| silent >= FORGOTTEN)
    };
    let mut kept = published.nodes.clone();
    for node in kept.values_mut() {
        node.is_gone |= is_forgotten(node);
    }
    if kept == published.nodes {
        return Plan::Keep(Reason::Settled);
    }
    publish(published, kept, published.owners.clone(), Step::Forget)
}

fn publish(
    published: &Membership,
    nodes: BTreeMap<u16, NamedNode>,
    owners: Owners,
    step: Step,
) -> Plan {
    let epoch = published.epoch.saturating_add(1);
    let membership = Membership {
        epoch,
        nodes,
        owners,
    };
    Plan::Publish(membership, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A node of a simulated cluster.
    #[derive(Clone, Debug)]
    struct Simulated {
        heard: Heard,
        /// It takes what is published.
        follows: bool,
        /// It says nothing.
        is_mute: bool,
    }

    /// A cluster whose clock ticks once a second.
    #[derive(Debug, Default)]
    struct Simulation {
        nodes: BTreeMap<String, Simulated>,
        published: Option<Membership>,
        age: Duration,
        /// Whose an id was first, unless that node is gone.
        ids: BTreeMap<u16, String>,
        steps: Vec<Step>,
    }

    impl Simulation {
        fn with(names: &[&str]) -> Self {
            let mut simulation = Self::default();
            for (index, name) in names.iter().enumerate() {
                simulation.join(name, index as u8 + 1);
            }
            simulation
        }

        fn join(&mut self, name: &str, last: u8) {
            let address = std::net::Ipv4Addr::new(198, 18, 0, last);
            let node = Simulated {
                heard: Heard {
                    report: Report::new(address, 7),
                    silent: Duration::ZERO,
                    known: TOGETHER,
                    is_sure: true,
                    is_excluded: false,
                },
                follows: true,
                is_mute: false,
            };
            self.nodes.insert(name.to_owned(), node);
        }

        fn node(&mut self, name: &str) -> &mut Simulated {
            self.nodes.get_mut(name).unwrap()
        }

        fn heard(&self) -> BTreeMap<String, Heard> {
            let heard = |(name, node): (&String, &Simulated)| (name.clone(), node.heard.clone());
            self.nodes.iter().map(heard).collect()
        }

        fn wanted(&self) -> Vec<&str> {
            let epoch = self
                .published
                .as_ref()
                .map_or(0, |published| published.epoch);
            let is_wanted = |node: &Simulated| {
                let heard = &node.heard;
                let serves = heard.report.state == NodeState::Active;
                let steers = node.follows || heard.report.epoch == epoch;
                serves && !node.is_mute && steers && !heard.is_excluded
            };
            let wanted = self.nodes.iter().filter(|(_, node)| is_wanted(node));
            wanted.map(|(name, _)| &**name).collect()
        }

        fn names(&self, ids: &Nodes) -> Vec<&str> {
            let nodes = &self.published.as_ref().unwrap().nodes;
            let mut names: Vec<_> = ids.iter().map(|id| &*nodes[id].name).collect();
            names.sort_unstable();
            names
        }

        fn owners(&self) -> Vec<&str> {
            self.names(self.published.as_ref().unwrap().owners.current())
        }

        /// A second passes: nodes do what is published and say so, then the operator looks.
        fn tick(&mut self) {
            self.age += SECOND;
            for (name, node) in &mut self.nodes {
                let report = &mut node.heard.report;
                let is_listed = |published: &Membership| {
                    published.named(name).is_some_and(|node| !node.is_gone)
                };
                if node.follows
                    && let Some(published) = &self.published
                    && is_listed(published)
                {
                    report.epoch = published.epoch;
                    if report.state == NodeState::Joining {
                        report.state = NodeState::Active;
                    }
                }
                node.heard.is_sure |= !node.is_mute;
                node.heard.known += SECOND;
                node.heard.silent = if node.is_mute {
                    node.heard.silent + SECOND
                } else {
                    Duration::ZERO
                };
            }
            let heard = self.heard();
            if let Plan::Publish(next, step) = plan(self.published.as_ref(), &heard, self.age) {
                self.check(&next, step, &heard);
                self.published = Some(next);
                self.age = Duration::ZERO;
                self.steps.push(step);
            }
        }

        /// What must be true of each publication.
        fn check(&mut self, next: &Membership, step: Step, heard: &BTreeMap<String, Heard>) {
            assert_eq!(Membership::read(&next.write()).unwrap(), *next);
            for node in next.nodes.values() {
                let first = self.ids.entry(node.id).or_insert_with(|| node.name.clone());
                assert_eq!(*first, node.name, "an id changed hands");
            }
            let Some(before) = &self.published else {
                return;
            };
            assert_eq!(next.epoch, before.epoch + 1);
            let (old, new) = (&before.owners, &next.owners);
            if old == new {
                assert_ne!(before.nodes, next.nodes, "nothing changed");
                return;
            }
            assert_eq!(before.nodes, next.nodes, "{step:?}");
            for node in before.nodes.values() {
                let Some(heard) = heard.get(&node.name) else {
                    continue;
                };
                let is_behind = heard.report.epoch != 0 && heard.report.epoch < before.epoch;
                assert!(
                    !heard.is_there() || !is_behind || self.age > FENCE,
                    "{step:?}: {} is at {} of {}",
                    node.name,
                    heard.report.epoch,
                    before.epoch
                );
            }
            // New connections go where every node has known to look since the step before.
            let knew: Vec<_> = old.sets().collect();
            assert!(knew.contains(&new.current()), "{step:?}: {old:?}, {new:?}");
            if new.current() != old.current() {
                assert_eq!(Some(new.current()), old.next());
                assert_eq!(new.earlier().first(), Some(old.current()));
            }
        }

        /// Another operator begins to listen: all seem to have spoken just now.
        fn replace_operator(&mut self) {
            self.age = Duration::ZERO;
            for node in self.nodes.values_mut() {
                node.heard.silent = Duration::ZERO;
                node.heard.is_sure = false;
            }
        }

        fn ticks(&mut self, count: usize) {
            for _ in 0..count {
                self.tick();
            }
        }
    }

    #[test]
    fn nodes_that_are_there_begin_together() {
        let mut cluster = Simulation::with(&["a", "b", "c"]);
        cluster.tick();
        assert_eq!(cluster.owners(), ["a", "b", "c"]);
        cluster.ticks(30);
        assert_eq!(cluster.steps, [Step::Begin]);
    }

    #[test]
    fn nodes_that_come_in_different_seconds_begin_together() {
        let mut cluster = Simulation::default();
        for (last, name) in [(1, "a"), (2, "b"), (3, "c")] {
            cluster.join(name, last);
            cluster.node(name).heard.known = Duration::ZERO;
            cluster.ticks(2);
        }
        cluster.ticks(30);
        assert_eq!(cluster.owners(), ["a", "b", "c"]);
        assert_eq!(cluster.steps, [Step::Begin]);
    }

    #[test]
    fn a_node_that_comes_is_listed_before_it_owns_connections() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        cluster.join("c", 9);
        cluster.ticks(5);
        assert_eq!(cluster.owners(), ["a", "b", "c"]);
        let steps = [Step::Begin, Step::List, Step::Prepare, Step::Commit];
        assert_eq!(cluster.steps, steps);
        let earlier = &cluster.published.as_ref().unwrap().owners.earlier()[0];
        assert_eq!(cluster.names(earlier), ["a", "b"]);
    }

    #[test]
    fn older_connections_have_their_time() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        cluster.node("b").heard.is_excluded = true;
        cluster.ticks(LINGER.as_secs() as usize);
        assert_eq!(cluster.owners(), ["a"]);
        assert!(!cluster.steps.contains(&Step::Expire));
        cluster.ticks(10);
        assert_eq!(cluster.steps.last(), Some(&Step::Expire));
    }

    #[test]
    fn a_node_that_is_silent_gets_no_new_connections_and_keeps_those_it_has() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        cluster.node("b").is_mute = true;
        cluster.node("b").follows = false;
        cluster.ticks(LOST.as_secs() as usize + 3);
        assert_eq!(cluster.owners(), ["a"]);
        let published = cluster.published.as_ref().unwrap();
        assert!(!published.named("b").unwrap().is_gone);
        assert_eq!(cluster.names(&published.owners.earlier()[0]), ["a", "b"]);
    }

    #[test]
    fn a_node_that_does_not_follow_holds_a_change_up_only_so_long_and_is_fenced() {
        let mut cluster = Simulation::with(&["a", "b", "c"]);
        cluster.ticks(5);
        cluster.node("b").follows = false;
        cluster.node("c").heard.report.state = NodeState::Draining;
        cluster.ticks(FENCE.as_secs() as usize - 1);
        assert_eq!(cluster.owners(), ["a", "b", "c"]);
        cluster.ticks(3 * FENCE.as_secs() as usize);
        assert_eq!(cluster.owners(), ["a"]);
        cluster.node("b").follows = true;
        cluster.ticks(5);
        assert_eq!(cluster.owners(), ["a", "b"]);
    }

    #[test]
    fn the_last_nodes_keep_their_connections_whatever_becomes_of_them() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        for name in ["a", "b"] {
            cluster.node(name).heard.report.state = NodeState::Draining;
        }
        cluster.ticks(100);
        assert_eq!(cluster.owners(), ["a", "b"]);
    }

    #[test]
    fn a_node_with_another_seed_gets_nothing() {
        let mut cluster = Simulation::with(&["a", "b", "c", "d"]);
        cluster.node("a").heard.report.seed = "other".to_owned();
        cluster.ticks(10);
        assert_eq!(cluster.owners(), ["b", "c", "d"]);
        assert!(cluster.published.as_ref().unwrap().named("a").is_none());
        // An owner that was started anew with it.
        cluster.node("c").heard.report.seed = "other".to_owned();
        cluster.ticks(10);
        assert_eq!(cluster.owners(), ["b", "d"]);
    }

    #[test]
    fn a_node_that_comes_back_has_its_id_again_and_its_new_address() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        let before = cluster.published.as_ref().unwrap().named("b").unwrap().id;
        let gone = cluster.nodes.remove("b").unwrap();
        let forgotten = LINGER + FORGOTTEN + 60 * SECOND;
        cluster.ticks(forgotten.as_secs() as usize);
        let published = cluster.published.as_ref().unwrap();
        assert!(published.named("b").unwrap().is_gone);
        cluster.nodes.insert("b".to_owned(), gone);
        cluster.node("b").heard.report.address = std::net::Ipv4Addr::new(198, 18, 0, 77);
        cluster.ticks(10);
        let node = cluster.published.as_ref().unwrap().named("b").unwrap();
        assert_eq!((node.id, node.is_gone), (before, false));
        assert_eq!(cluster.owners(), ["a", "b"]);
    }

    #[test]
    fn two_nodes_of_one_address_are_not_both_listed() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.node("b").heard.report.address = cluster.nodes["a"].heard.report.address;
        cluster.ticks(10);
        assert_eq!(cluster.owners(), ["a"]);
    }

    #[test]
    fn a_change_whose_reason_is_gone_before_its_time_is_taken_back() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        cluster.node("b").heard.report.state = NodeState::Draining;
        cluster.tick();
        assert_eq!(cluster.steps.last(), Some(&Step::Prepare));
        cluster.node("b").heard.report.state = NodeState::Active;
        cluster.ticks(10);
        assert_eq!(cluster.steps, [Step::Begin, Step::Prepare, Step::Cancel]);
    }

    #[test]
    fn the_first_owners_may_take_some_seconds_each() {
        let mut cluster = Simulation::with(&["a", "b", "c"]);
        cluster.node("b").follows = false;
        cluster.ticks(2);
        cluster.join("d", 9);
        cluster.node("d").follows = false;
        cluster.ticks(6);
        cluster.node("b").follows = true;
        cluster.ticks(30);
        assert_eq!(cluster.steps, [Step::Begin, Step::List]);
        let mut cluster = Simulation::with(&["a", "b", "c"]);
        cluster.node("b").follows = false;
        cluster.ticks(2 * FENCE.as_secs() as usize);
        assert_eq!(cluster.owners(), ["a", "c"], "not for ever");
    }

    #[test]
    fn a_node_of_which_only_old_words_are_known_gets_nothing() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.node("b").heard.is_sure = false;
        cluster.node("b").is_mute = true;
        cluster.ticks(5);
        assert!(cluster.published.is_none(), "it may have gone");
        cluster.ticks(LOST.as_secs() as usize);
        assert_eq!(cluster.owners(), ["a"]);
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        let gone = cluster.nodes.remove("b").unwrap();
        cluster.ticks((LINGER + FORGOTTEN).as_secs() as usize);
        let steps = cluster.steps.clone();
        assert_eq!(steps.last(), Some(&Step::Forget));
        cluster.nodes.insert("b".to_owned(), gone);
        cluster.replace_operator();
        cluster.node("b").is_mute = true;
        cluster.ticks(10);
        assert_eq!(cluster.steps, steps);
    }

    #[test]
    fn more_nodes_than_ids_do_not_keep_a_dead_one_in_its_place() {
        let mut cluster = Simulation::default();
        for index in 0..NODES {
            let name = format!("n{index:04}");
            cluster.join(&name, 1);
            let address = std::net::Ipv4Addr::from(0x0a00_0001 + index as u32);
            cluster.node(&name).heard.report.address = address;
        }
        cluster.ticks(2);
        let owners = |cluster: &Simulation| cluster.owners().len();
        assert_eq!(owners(&cluster), NODES - 1);
        let heard = cluster.heard();
        let plan = plan(cluster.published.as_ref(), &heard, cluster.age);
        assert_eq!(plan, Plan::Keep(Reason::Full));
        cluster.node("n0004").is_mute = true;
        cluster.ticks(LOST.as_secs() as usize + 5);
        assert_eq!(owners(&cluster), NODES - 2);
    }

    #[test]
    fn nodes_that_are_ahead_of_what_is_published_follow_again() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.ticks(5);
        // Somebody has restored an old one.
        for name in ["a", "b"] {
            cluster.node(name).heard.report.epoch = 80;
            cluster.node(name).follows = false;
        }
        cluster.node("b").heard.report.epoch = 79;
        let Plan::Publish(raised, Step::Raise) =
            plan(cluster.published.as_ref(), &cluster.heard(), cluster.age)
        else {
            panic!("nothing changes")
        };
        assert_eq!(raised.epoch, 81);
        assert_eq!(raised.owners, cluster.published.unwrap().owners);
    }

    #[test]
    fn a_node_that_says_the_last_epoch_does_not_end_all_change() {
        let mut cluster = Simulation::with(&["a", "b"]);
        cluster.node("b").follows = false;
        cluster.node("b").heard.report.epoch = u64::MAX;
        cluster.ticks(3);
        assert_eq!(cluster.published.as_ref().unwrap().epoch, 1);
        cluster.ticks(3);
        assert_eq!(cluster.published.as_ref().unwrap().epoch, 1);
    }

    /// What may happen to a cluster in a second.
    #[derive(Clone, Debug)]
    enum Happening {
        Nothing,
        Mute(usize, bool),
        Follow(usize, bool),
        Exclude(usize, bool),
        State(usize, NodeState),
        Restart(usize),
        Operator,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        use Happening::{Exclude, Follow, Mute, Nothing, Operator, Restart, State};
        let node = 0..5usize;
        prop_oneof![
            12 => Just(Nothing),
            1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Mute(node, on)),
            1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Follow(node, on)),
            1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Exclude(node, on)),
            1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| {
                State(node, if on { NodeState::Active } else { NodeState::Draining })
            }),
            1 => node.prop_map(Restart),
            1 => Just(Operator),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_happens_each_step_is_one_that_loses_nothing_and_the_right_nodes_own_in_the_end(
            happenings in proptest::collection::vec(happening(), 1..400),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut cluster = Simulation::with(&names[..3]);
            for (second, happening) in happenings.into_iter().enumerate() {
                if let (40 | 80, Some(name)) = (second, names.get(3 + second / 80)) {
                    cluster.join(name, 100 + second as u8);
                }
                if matches!(happening, Happening::Operator) {
                    cluster.replace_operator();
                }
                let node = match &happening {
                    Happening::Nothing | Happening::Operator => None,
                    Happening::Mute(node, _)
                    | Happening::Follow(node, _)
                    | Happening::Exclude(node, _)
                    | Happening::State(node, _)
                    | Happening::Restart(node) => cluster.nodes.get_mut(names[*node]),
                };
                if let Some(node) = node {
                    let report = &mut node.heard.report;
                    match happening {
                        Happening::Mute(_, on) => node.is_mute = on,
                        Happening::Follow(_, on) => node.follows = on,
                        Happening::Exclude(_, on) => node.heard.is_excluded = on,
                        Happening::State(_, state) if report.epoch > 0 => report.state = state,
                        Happening::Restart(_) => (report.epoch, report.state) = (0, NodeState::Joining),
                        Happening::Nothing | Happening::Operator | Happening::State(..) => {}
                    }
                }
                cluster.tick();
            }
            // Nothing happens any more.
            let quiet = LINGER * 4 + FORGOTTEN;
            cluster.ticks(quiet.as_secs() as usize);
            let wanted = cluster.wanted();
            if !wanted.is_empty() && cluster.published.is_some() {
                prop_assert_eq!(cluster.owners(), wanted);
                let owners = &cluster.published.as_ref().unwrap().owners;
                prop_assert_eq!(owners.sets().count(), 1);
            }
            let steps = cluster.steps.len();
            cluster.ticks(100);
            prop_assert_eq!(cluster.steps.len(), steps);
        }
    }
}
