//! What is done once per cluster: hears all nodes and publishes the set that they make their table of.
//!
//! Two operators may run; one of them is elected by a Lease, to spare the API server the others' work. That
//! no two histories come about does not hang on it: what is published replaces the version that the plan
//! was made from, or nothing.
//!
//! Without an operator nothing changes: nodes that die keep their share, and new ones wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Node},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    cluster::{Cluster, KEY, PUBLISHED, is_conflict, reason},
    follow::read,
    nodes::Membership,
    plan::{Heard, LOST, Plan, Reason, Step, plan},
    report::{LABEL, Report, holder},
};

/// Who of the operators acts.
const ELECTION: &str = "forebay-operator";
/// How often all is looked at.
const ROUND: Duration = Duration::from_secs(1);
/// How often who acts says so.
const RENEWAL: Duration = Duration::from_secs(3);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often labels of nodes are looked at.
const LABELS: Duration = Duration::from_secs(10);
/// Nodes with this label get no connections from outside, as the Kubernetes documentation of well-known
/// labels has it.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Publishes sets of nodes, without end, while this process, on `node`, is the one that does.
pub async fn operate(cluster: Cluster, node: &str) {
    // Two on one node are two all the same.
    let identity = format!("{node}/{:016x}", fastrand::u64(..));
    tracing::info!(identity, ?cluster, "hears nodes");
    let mut operator = Operator {
        cluster,
        election: Election::new(identity),
        hearing: Hearing::default(),
        labels: Labels::default(),
        published: None,
        told: None,
    };
    let mut failing: Option<String> = None;
    loop {
        let done = timeout(ANSWER * 4, operator.round()).await;
        let failed = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(reason(&error)),
            Err(_) => Some("no answer".to_owned()),
        };
        if failed.is_some() && failed != failing {
            tracing::warn!(reason = failed, "cannot see to the set of nodes");
        }
        failing = failed;
        sleep(ROUND).await;
    }
}

struct Operator {
    cluster: Cluster,
    election: Election,
    hearing: Hearing,
    labels: Labels,
    /// The epoch that was seen last, and since when it is that.
    published: Option<(u64, Instant)>,
    /// Why nothing was published, as the log says already.
    told: Option<Reason>,
}

impl Operator {
    async fn round(&mut self) -> Result<(), kube::Error> {
        if !self.election.is_won(&self.cluster).await? {
            // What was heard before may be old when this process acts again.
            self.hearing = Hearing::default();
            self.labels = Labels::default();
            self.published = None;
            return Ok(());
        }
        let params = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let leases = self.cluster.leases().list(&params).await?;
        let excluded = self.labels.excluded(&self.cluster).await?;
        let now = Instant::now();
        let nodes = self.hearing.hear(&leases.items, excluded, now);
        let object = self.cluster.published().get_opt(PUBLISHED).await?;
        let published = match object.as_ref().map(read).transpose() {
            Ok(published) => published,
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the set of nodes stays as it is; correct or delete it"
                );
                return Ok(());
            }
        };
        let age = self.age(published.as_ref(), now);
        match plan(published.as_ref(), &nodes, age) {
            Plan::Keep(reason) => {
                self.tell(reason);
                Ok(())
            }
            Plan::Publish(next, step) => self.publish(object, &next, step).await,
        }
    }

    /// For how long what is published has been that, as far as this process knows.
    fn age(&mut self, published: Option<&Membership>, now: Instant) -> Duration {
        let epoch = published.map_or(0, |published| published.epoch);
        let since = match self.published {
            Some((seen, since)) if seen == epoch => since,
            _ => now,
        };
        self.published = Some((epoch, since));
        now.saturating_duration_since(since)
    }

    async fn publish(
        &mut self,
        object: Option<ConfigMap>,
        next: &Membership,
        step: Step,
    ) -> Result<(), kube::Error> {
        let objects = self.cluster.published();
        let params = PostParams::default();
        let data = Some([(KEY.to_owned(), next.write())].into());
        let written = match object {
            Some(mut object) => {
                object.data = data;
                objects.replace(PUBLISHED, &params, &object).await
            }
            None => {
                let object = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(PUBLISHED.to_owned()),
                        ..ObjectMeta::default()
                    },
                    data,
                    ..ConfigMap::default()
                };
                objects.create(&params, &object).await
            }
        };
        match written {
            Ok(_) => {
                let (epoch, step) = (next.epoch, step.name());
                let owners = names(next, next.owners.current());
                let announced = next.owners.next().map(|set| names(next, set));
                tracing::info!(epoch, step, ?owners, ?announced, "published a set of nodes");
                Ok(())
            }
            // Somebody else was faster: the next plan is made from that.
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&mut self, reason: Reason) {
        if self.told.as_ref() == Some(&reason) {
            return;
        }
        match &reason {
            Reason::Behind(nodes) => tracing::info!(?nodes, "waits for nodes to follow"),
            Reason::NoOwners => {
                tracing::warn!("no node could own connections; the last owners stay")
            }
            Reason::Full => tracing::error!("more nodes than ids; the others get no connections"),
            Reason::Settled | Reason::Lingering | Reason::NoNodes => {}
        }
        self.told = Some(reason);
    }
}

fn names<'a>(membership: &'a Membership, ids: &BTreeSet<u16>) -> Vec<&'a str> {
    let nodes = ids.iter().filter_map(|id| membership.nodes.get(id));
    nodes.map(|node| &*node.name).collect()
}

/// What was heard of each node, by this process' clock: those of nodes may differ.
#[derive(Default)]
struct Hearing {
    nodes: BTreeMap<String, Last>,
    /// When all of them were looked at last.
    looked: Option<Instant>,
    /// Leases that say nothing, as the log says already.
    told: BTreeSet<String>,
}

struct Last {
    report: Report,
    version: Option<String>,
    heard: Instant,
    /// Since when it is known.
    known: Instant,
    /// It has said something since.
    is_sure: bool,
}

impl Hearing {
    fn hear(
        &mut self,
        leases: &[Lease],
        excluded: &BTreeSet<String>,
        now: Instant,
    ) -> BTreeMap<String, Heard> {
        // While the server was away nobody could be heard.
        let looked = self.looked.replace(now);
        let was_deaf = looked.is_none_or(|looked| now.saturating_duration_since(looked) > LOST / 3);
        let was_there = |last: &Last| {
            looked.is_none_or(|looked| looked.saturating_duration_since(last.heard) < LOST)
        };
        let mut known = std::mem::take(&mut self.nodes);
        let mut told = BTreeSet::new();
        let mut nodes = BTreeMap::new();
        for lease in leases {
            let (node, report) = match Report::read(lease) {
                Ok(read) => read,
                Err(error) => {
                    let name = lease.metadata.name.clone().unwrap_or_default();
                    if !self.told.contains(&name) {
                        tracing::warn!(lease = name, %error, "a Lease says nothing of a node");
                    }
                    told.insert(name);
                    continue;
                }
            };
            let version = lease.metadata.resource_version.clone();
            let before = known.remove(&node);
            let since = before.as_ref().map_or(now, |last| last.known);
            let (heard, is_sure) = match before {
                Some(last) if last.version != version => (now, true),
                // Whoever was lost before is not there again for it.
                Some(last) if was_deaf && was_there(&last) => (now, last.is_sure),
                Some(last) => (last.heard, last.is_sure),
                None => (now, !was_deaf),
            };
            let last = Last {
                report,
                version,
                heard,
                known: since,
                is_sure,
            };
            nodes.insert(node, last);
        }
        self.told = told;
        // A Lease that is deleted, or cannot be read, says no more than one that is not renewed.
        known.retain(|_, last| now.saturating_duration_since(last.heard) < LOST);
        nodes.extend(known);
        self.nodes = nodes;
        let heard = |(node, last): (&String, &Last)| {
            let heard = Heard {
                report: last.report.clone(),
                silent: now.saturating_duration_since(last.heard),
                known: now.saturating_duration_since(last.known),
                is_sure: last.is_sure,
                is_excluded: excluded.contains(node),
            };
            (node.clone(), heard)
        };
        self.nodes.iter().map(heard).collect()
    }
}

/// Which nodes are excluded by their labels.
#[derive(Default)]
struct Labels {
    /// `None` until they were seen.
    excluded: Option<BTreeSet<String>>,
    looked: Option<Instant>,
    is_failing: bool,
}

impl Labels {
    /// # Errors
    /// They were never seen: a node that is drained would get connections.
    async fn excluded(&mut self, cluster: &Cluster) -> Result<&BTreeSet<String>, kube::Error> {
        let is_fresh = self.looked.is_some_and(|looked| looked.elapsed() < LABELS);
        if !is_fresh {
            let nodes: Api<Node> = Api::all(cluster.client.clone());
            let params = ListParams::default().labels(EXCLUDED);
            let list = nodes.list_metadata(&params).await;
            let names = list.map(|list| {
                let nodes = list.items.into_iter();
                nodes.filter_map(|node| node.metadata.name).collect()
            });
            self.see(names)?;
            self.looked = Some(Instant::now());
        }
        Ok(self.excluded.get_or_insert_default())
    }

    fn see(&mut self, names: Result<BTreeSet<String>, kube::Error>) -> Result<(), kube::Error> {
        match names {
            Ok(names) => {
                self.excluded = Some(names);
                self.is_failing = false;
            }
            Err(error) if self.excluded.is_none() => return Err(error),
            Err(error) => {
                if !self.is_failing {
                    let error = reason(&error);
                    tracing::warn!(
                        error,
                        "cannot see the nodes' labels: {EXCLUDED} stays as it was"
                    );
                }
                self.is_failing = true;
            }
        }
        Ok(())
    }
}

/// The Lease that says which operator acts.
struct Election {
    identity: String,
    /// As it was seen last, and since when it is so.
    seen: Option<(Lease, Instant)>,
    /// When this process said last that it acts.
    renewed: Option<Instant>,
}

impl Election {
    fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            renewed: None,
        }
    }

    /// Whether this process acts, for a moment.
    async fn is_won(&mut self, cluster: &Cluster) -> Result<bool, kube::Error> {
        let now = Instant::now();
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < RENEWAL;
        if self.renewed.is_some_and(is_fresh) {
            return Ok(true);
        }
        let was_won = self.renewed.take().is_some();
        let leases = cluster.leases();
        let params = PostParams::default();
        let current = leases.get_opt(ELECTION).await?;
        let written = match current {
            Some(lease) if self.may_take(&lease, now) => {
                let version = lease.metadata.resource_version;
                leases
                    .replace(ELECTION, &params, &self.lease(version))
                    .await
            }
            Some(_) => return Ok(false),
            None => leases.create(&params, &self.lease(None)).await,
        };
        match written {
            Ok(lease) => {
                if !was_won {
                    tracing::info!(identity = self.identity, "sees to the set of nodes");
                }
                self.seen = Some((lease, now));
                self.renewed = Some(now);
                Ok(true)
            }
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the Lease is this process' own, or its holder has not renewed it for long, by the clock
    /// of this process.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        if holder(lease).is_none_or(|holder| holder.is_empty() || holder == self.identity) {
            return true;
        }
        let version = &lease.metadata.resource_version;
        match &self.seen {
            Some((seen, since)) if seen.metadata.resource_version == *version => {
                now.saturating_duration_since(*since) >= LOST
            }
            _ => {
                self.seen = Some((lease.clone(), now));
                false
            }
        }
    }

    fn lease(&self, resource_version: Option<String>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(ELECTION.to_owned()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(LOST.as_secs() as i32),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Leases of nodes, each with its version.
    fn leases(nodes: &[(&str, u32)]) -> Vec<Lease> {
        let lease = |(node, version): &(&str, u32)| {
            let report = Report::new(Ipv4Addr::new(198, 18, 0, 11), 7);
            let mut lease = report.lease(node, &format!("{node}/1"), 15);
            lease.metadata.resource_version = Some(version.to_string());
            lease
        };
        nodes.iter().map(lease).collect()
    }

    /// What is heard of each: for how many seconds nothing, and whether it has spoken.
    fn hear(
        hearing: &mut Hearing,
        nodes: &[(&str, u32)],
        now: Instant,
    ) -> Vec<(String, u64, bool)> {
        let heard = hearing.hear(&leases(nodes), &BTreeSet::new(), now);
        let heard = heard.into_iter();
        heard
            .map(|(node, heard)| (node, heard.silent.as_secs(), heard.is_sure))
            .collect()
    }

    fn node(name: &str, silent: u64, is_sure: bool) -> (String, u64, bool) {
        (name.to_owned(), silent, is_sure)
    }

    #[test]
    fn nothing_is_planned_before_it_is_known_which_nodes_are_drained() {
        let mut labels = Labels::default();
        let failure = || Err(kube::Error::LinesCodecMaxLineLengthExceeded);
        assert!(labels.see(failure()).is_err());
        labels.see(Ok(["a".to_owned()].into())).unwrap();
        labels.see(failure()).unwrap();
        assert_eq!(labels.excluded, Some(["a".to_owned()].into()));
    }

    #[test]
    fn a_node_is_there_for_sure_once_it_speaks() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        let heard = hear(&mut hearing, &[("a", 1), ("b", 1)], start);
        assert_eq!(heard, [node("a", 0, false), node("b", 0, false)]);
        let heard = hear(
            &mut hearing,
            &[("a", 2), ("b", 1), ("c", 1)],
            start + SECOND,
        );
        let expected = [node("a", 0, true), node("b", 1, false), node("c", 0, true)];
        assert_eq!(heard, expected);
    }

    #[test]
    fn while_nobody_could_be_heard_nobody_is_lost_and_nobody_comes_back() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        for second in 0..20 {
            let nodes = [("a", second), ("b", 1)];
            hear(&mut hearing, &nodes, start + SECOND * second);
        }
        let later = start + SECOND * 100;
        let heard = hear(&mut hearing, &[("a", 19), ("b", 1)], later);
        assert_eq!(heard, [node("a", 0, true), node("b", 100, false)]);
    }

    #[test]
    fn a_lease_that_is_deleted_is_one_that_is_not_renewed() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        hear(&mut hearing, &[("a", 1)], start);
        hear(&mut hearing, &[("a", 2)], start + SECOND);
        for second in 2..16 {
            let heard = hear(&mut hearing, &[], start + SECOND * second);
            assert_eq!(heard, [node("a", u64::from(second) - 1, true)]);
        }
        assert_eq!(hear(&mut hearing, &[], start + SECOND * 16), []);
    }

    #[test]
    fn a_lease_of_another_name_does_not_keep_a_node_alive() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        for second in 0..5 {
            let mut all = leases(&[("a", 1)]);
            let mut other = leases(&[("a", 7)]);
            other[0].metadata.name = Some("forebay-node-b".to_owned());
            all.extend(other);
            let now = start + SECOND * second;
            let heard = hearing.hear(&all, &BTreeSet::new(), now);
            assert_eq!(heard["a"].silent, SECOND * second);
        }
    }
}
