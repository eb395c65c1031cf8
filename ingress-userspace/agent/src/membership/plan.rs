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
const FENCE: Duration = Duration::from_secs(20);
/// After so long without a word, a node that can have no connections gives its address up.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How long connections are looked for where their owners were, after a change.
const LINGER: Duration = Duration::from_secs(900);
/// The same where another change waits for the room.
const SHORT_LINGER: Duration = Duration::from_secs(60);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// What it said last.
    pub(super) report: Report,
    /// For how long it has said nothing.
    pub(super) silent: Duration,
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
    if let Some(plan) = list(published, nodes, seed) {
        return plan;
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
        return forget(published, nodes);
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
    let steered = nodes.values().map(|heard| heard.report.epoch).max();
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

/// Lists those that ask for it, and notes new addresses.
fn list(
    published: &Membership,
    nodes: &BTreeMap<String, Heard>,
    seed: Option<&str>,
) -> Option<Plan> {
    let mut listed = published.nodes.clone();
    let mut is_full = false;
    for (name, heard) in nodes {
        if !heard.is_there() || !fits(heard, seed) {
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
    if listed == published.nodes {
        return is_full.then_some(Plan::Keep(Reason::Full));
    }
    Some(publish(
        published,
        listed,
        published.owners.clone(),
        Step::List,
    ))
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
                && !node.is_gone
                && !heard.is_excluded
                && heard.report.state == NodeState::Active
                && heard.report.address == node.address
                && fits(heard, self.seed)
                && !self.is_fenced(heard)
        })
    }

    fn is_fenced(&self, heard: &Heard) -> bool {
        let (epoch, published) = (heard.report.epoch, self.published.epoch);
        epoch.saturating_add(1) < published || epoch < published && self.age > FENCE
    }

    /// Packets of new connections go where nobody serves them.
    fn is_urgent(&self) -> bool {
        let mut current = self.published.owners.current().iter();
        current.any(|id| self.heard(*id).is_none_or(|heard| !heard.is_there()))
    }
}

/// What becomes of a set that was announced.
fn announced(owners: &Owners, next: &Nodes, wanted: &Nodes) -> (Owners, Step) {
    if next.is_subset(wanted)
        && let Ok(committed) = owners.commit()
    {
        return (committed, Step::Commit);
    }
    // Nobody has made a connection by it, so another may take its place.
    let without = owners.cancel();
    if owners.current() == wanted {
        return (without, Step::Cancel);
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

    /// What may happen to a cluster in a second.
    #[derive(Clone, Debug)]
    enum Happening {
        Nothing,
        Mute(usize, bool),
        Follow(usize, bool),
        Exclude(usize, bool),
        State(usize, NodeState),
        Restart(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        use Happening::{Exclude, Follow, Mute, Nothing, Restart, State};
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
                let node = match &happening {
                    Happening::Nothing => None,
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
                        Happening::Nothing | Happening::State(..) => {}
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
