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
            self.published = None;
            return Ok(());
        }
        let params = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let leases = self.cluster.leases().list(&params).await?;
        let excluded = self.labels.excluded(&self.cluster).await;
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
}

impl Hearing {
    fn hear(
        &mut self,
        leases: &[Lease],
        excluded: &BTreeSet<String>,
        now: Instant,
    ) -> BTreeMap<String, Heard> {
        // While the server was away nobody could be heard.
        let was_deaf = self
            .looked
            .is_none_or(|looked| now.saturating_duration_since(looked) > LOST / 3);
        self.looked = Some(now);
        let mut nodes = BTreeMap::new();
        for lease in leases {
            let (node, report) = match Report::read(lease) {
                Ok(read) => read,
                Err(error) => {
                    let name = lease.metadata.name.clone().unwrap_or_default();
                    if self.told.insert(name.clone()) {
                        tracing::warn!(lease = name, %error, "a Lease says nothing of a node");
                    }
                    continue;
                }
            };
            let version = lease.metadata.resource_version.clone();
            let before = self.nodes.remove(&node);
            let heard = match before {
                Some(last) if last.version == version && !was_deaf => last.heard,
                _ => now,
            };
            let last = Last {
                report,
                version,
                heard,
            };
            nodes.insert(node, last);
        }
        self.nodes = nodes;
        let heard = |(node, last): (&String, &Last)| {
            let heard = Heard {
                report: last.report.clone(),
                silent: now.saturating_duration_since(last.heard),
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
    excluded: BTreeSet<String>,
    looked: Option<Instant>,
    is_failing: bool,
}

impl Labels {
    async fn excluded(&mut self, cluster: &Cluster) -> &BTreeSet<String> {
        let is_fresh = self.looked.is_some_and(|looked| looked.elapsed() < LABELS);
        if is_fresh {
            return &self.excluded;
        }
        self.looked = Some(Instant::now());
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        match nodes
            .list_metadata(&ListParams::default().labels(EXCLUDED))
            .await
        {
            Ok(list) => {
                let names = list.items.into_iter().filter_map(|node| node.metadata.name);
                self.excluded = names.collect();
                self.is_failing = false;
            }
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
        &self.excluded
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
