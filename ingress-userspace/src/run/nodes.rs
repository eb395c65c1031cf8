//! Which nodes share the virtual IPs, from wherever that is said, put in force as it changes.
//!
//! Flags say it once. A file is looked at again and again. In a cluster this node says how it is, and the
//! operator publishes the set.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use ingress_agent::{
    kernel::KernelPart,
    membership::{self, Cluster, Keeping, Membership, NodeState, Published, Report},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{UsageError, nodes_file::NodesFile};
use crate::config::{DataPlaneArgs, Nodes as Asked};

/// How often the file of nodes is looked at, and how this node is.
const LOOK: Duration = Duration::from_secs(1);
/// How often a node that is not listed says so.
const STILL_WAITING: Duration = Duration::from_secs(10);

/// The set of nodes as it was at the start, and where changes come from.
pub(super) struct Nodes {
    source: Source,
    /// What is done meanwhile; ends with this.
    tasks: JoinSet<()>,
    /// This node is to get no new connections.
    drains: watch::Sender<bool>,
    /// The same for a time.
    rests: watch::Sender<bool>,
    /// Why what is said is not in force.
    trouble: watch::Sender<Option<String>>,
    /// Whether other nodes take over by themselves from one that ends.
    are_changed_for_us: bool,
}

enum Source {
    Fixed,
    File(NodesFile),
    Cluster {
        published: watch::Receiver<Published>,
        report: watch::Sender<Report>,
        /// Why other nodes do not hear of this one.
        unheard: watch::Receiver<Option<String>>,
    },
}

impl Nodes {
    /// Learns which nodes there are. In a cluster this takes until the operator has listed this one.
    ///
    /// # Errors
    /// Flags, the file or the cluster's configuration cannot be used.
    pub(super) async fn start(
        config: &DataPlaneArgs,
        node_name: &str,
        kubeconfig: Option<&Path>,
    ) -> anyhow::Result<(Self, Membership)> {
        let mut tasks = JoinSet::new();
        let (source, membership) = match config.nodes() {
            Asked::Fixed => {
                let membership = config.membership(node_name).map_err(UsageError::from)?;
                (Source::Fixed, membership)
            }
            Asked::File(path) => {
                let (file, membership) = NodesFile::open(path)?;
                (Source::File(file), membership)
            }
            Asked::Cluster { namespace, address } => {
                let seed = config.seed().map_err(UsageError::from)?;
                config.check_address(address).map_err(UsageError::from)?;
                let kubeconfig = kubeconfig.map(Path::to_owned);
                let cluster = Cluster::new(kubeconfig, namespace.to_owned());
                let cluster = cluster.await.map_err(UsageError::from)?;
                let (publish, mut published) = watch::channel(None);
                let (report, reports) = watch::channel(Report::new(address, seed));
                let (trouble, unheard) = watch::channel(None);
                tasks.spawn(membership::follow(cluster.clone(), publish));
                let keeping = Keeping::new(cluster, node_name);
                tasks.spawn(membership::keep(keeping, reports, trouble));
                let membership = listed(&mut published, node_name).await?;
                let source = Source::Cluster {
                    published,
                    report,
                    unheard,
                };
                (source, membership)
            }
        };
        let nodes = Self {
            are_changed_for_us: matches!(source, Source::Cluster { .. }),
            source,
            tasks,
            drains: watch::Sender::new(false),
            rests: watch::Sender::new(false),
            trouble: watch::Sender::new(None),
        };
        Ok((nodes, membership))
    }

    /// Puts what changes in force from now on.
    pub(super) fn follow(&mut self, kernel_part: Arc<KernelPart>) {
        let trouble = self.trouble.clone();
        match std::mem::replace(&mut self.source, Source::Fixed) {
            Source::Fixed => {}
            Source::File(file) => drop(self.tasks.spawn(follow_file(file, kernel_part, trouble))),
            Source::Cluster {
                published,
                report,
                unheard,
            } => {
                let asks = [self.drains.subscribe(), self.rests.subscribe()];
                let says = say(report, Arc::clone(&kernel_part), asks);
                self.tasks.spawn(says);
                self.tasks
                    .spawn(follow_cluster(published, unheard, kernel_part, trouble));
            }
        }
    }

    /// Asks for no new connections.
    pub(super) fn drain(&self) {
        self.drains.send_replace(true);
    }

    /// Asks for none for a time, or for some again.
    pub(super) fn rest(&self, rests: bool) {
        self.rests.send_replace(rests);
    }

    /// Whether other nodes take over by themselves from one that ends: somebody changes the set.
    pub(super) fn are_changed_for_us(&self) -> bool {
        self.are_changed_for_us
    }

    /// Why what is said is not in force.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }
}

/// The first set in which this node is listed.
async fn listed(
    published: &mut watch::Receiver<Published>,
    node_name: &str,
) -> anyhow::Result<Membership> {
    loop {
        let reason = match &*published.borrow_and_update() {
            Some(Ok(membership)) => {
                let own = membership.named(node_name);
                if own.is_some_and(|node| !node.is_gone) {
                    return Ok(membership.clone());
                }
                format!("{node_name} is not listed yet")
            }
            Some(Err(reason)) => reason.clone(),
            None => "no set of nodes is published yet; does `forebay operator` run?".to_owned(),
        };
        match timeout(STILL_WAITING, published.changed()).await {
            Ok(changed) => changed.context("nothing follows the set of nodes any more")?,
            Err(_) => tracing::warn!(reason, "waits for the nodes that share the virtual IPs"),
        }
    }
}

async fn follow_file(
    mut file: NodesFile,
    kernel_part: Arc<KernelPart>,
    trouble: watch::Sender<Option<String>>,
) {
    loop {
        sleep(LOOK).await;
        let Some(read) = file.changed() else {
            continue;
        };
        let path = file.path().display().to_string();
        let failed = match read {
            Ok(membership) => {
                let failed = change(&kernel_part, &path, &membership).await.err();
                if failed.is_some() {
                    // What is in the way, as another process that changes the pins, may go.
                    file.repeat();
                }
                failed
            }
            Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
        };
        tell(failed, &kernel_part, &trouble);
    }
}

async fn follow_cluster(
    mut published: watch::Receiver<Published>,
    mut unheard: watch::Receiver<Option<String>>,
    kernel_part: Arc<KernelPart>,
    trouble: watch::Sender<Option<String>>,
) {
    let mut failed = None;
    loop {
        let latest = published.borrow_and_update().clone();
        match latest {
            Some(Ok(membership)) => {
                let place = "the published set";
                failed = change(&kernel_part, place, &membership).await.err();
            }
            Some(Err(reason)) => failed = Some(reason),
            None => {}
        }
        tell(failed.clone(), &kernel_part, &trouble);
        // That the log says already.
        let silent = unheard.borrow_and_update().clone();
        if failed.is_none() && silent.is_some() {
            trouble.send_replace(silent);
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() {
                let reason = "nothing follows the set of nodes any more; restart Forebay";
                return tell(Some(reason.to_owned()), &kernel_part, &trouble);
            },
            changed = unheard.changed() => if changed.is_err() {
                let reason = "nothing says any more how this node is; restart Forebay";
                return tell(Some(reason.to_owned()), &kernel_part, &trouble);
            },
            // What failed may not fail again: a neighbour answers by now.
            () = sleep(LOOK), if failed.is_some() => {}
        }
    }
}

/// Says how this node is, as it changes.
async fn say(
    report: watch::Sender<Report>,
    kernel_part: Arc<KernelPart>,
    asks_for_none: [watch::Receiver<bool>; 2],
) {
    loop {
        let is_serving = kernel_part.is_serving();
        let drains = asks_for_none.iter().any(|asks| *asks.borrow());
        let state = match (drains, is_serving) {
            (true, _) => NodeState::Draining,
            (false, true) => NodeState::Active,
            (false, false) => NodeState::Joining,
        };
        // What was only prepared steers nothing.
        let epoch = if is_serving { kernel_part.epoch() } else { 0 };
        report.send_if_modified(|report| {
            let is_new = (report.state, report.epoch) != (state, epoch);
            (report.state, report.epoch) = (state, epoch);
            is_new
        });
        sleep(LOOK / 4).await;
    }
}

fn tell(failed: Option<String>, kernel_part: &KernelPart, trouble: &watch::Sender<Option<String>>) {
    trouble.send_if_modified(|told| {
        if *told == failed {
            return false;
        }
        if let Some(reason) = &failed {
            let epoch = kernel_part.epoch();
            tracing::error!(reason, epoch, "the nodes stay as they were");
        }
        *told = failed;
        true
    });
}

/// Puts a set of nodes that is said at `place` in force, unless it is.
///
/// # Errors
/// Why it is not, for a person.
async fn change(
    kernel_part: &KernelPart,
    place: &str,
    membership: &Membership,
) -> Result<(), String> {
    if kernel_part.is_steering_by(membership) {
        return Ok(());
    }
    let (epoch, before) = (membership.epoch, kernel_part.epoch());
    // Who distributes files may be late with one: nodes must not go back to what others have left.
    if epoch <= before {
        return Err(format!(
            "{place}: its epoch is {epoch}, and {before} is in force; each change needs a higher one"
        ));
    }
    let applied = kernel_part.apply(membership).await;
    applied.map_err(|error| format!("{place}: {:#}", anyhow::Error::from(error)))?;
    let owners = membership.owners.current();
    tracing::info!(epoch, ?owners, next = ?membership.owners.next(), "the nodes changed");
    Ok(())
}
