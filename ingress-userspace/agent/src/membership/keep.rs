//! The Lease of this node: written anew while this process speaks for the node.
//!
//! Two processes of a node, of which one takes over from the other, have one Lease. Whoever began to serve last
//! speaks: one that only starts leaves the words of one that serves alone, and one that was taken over says
//! no more.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::api::PostParams;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    cluster::{Cluster, is_conflict, reason},
    plan::LOST,
    report::{NodeState, Report, holder, lease_name},
};

/// How often the Lease is written where nothing changes.
const RENEWAL: Duration = Duration::from_secs(5);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(4);

/// The Lease of a node.
pub struct Keeping {
    cluster: Cluster,
    node: String,
    /// The node's name, and what tells this process from others on it.
    holder: String,
    /// As it was written or read last.
    last: Option<Lease>,
    /// Which words of another process were read last, and since when they are the same.
    others: Option<(Option<String>, Instant)>,
    /// This process has said that it serves.
    has_spoken: bool,
}

impl Keeping {
    /// Of a node in a cluster.
    pub fn new(cluster: Cluster, node: &str) -> Self {
        let process = fastrand::u64(..);
        Self {
            cluster,
            node: node.to_owned(),
            holder: format!("{node}/{process:016x}"),
            last: None,
            others: None,
            has_spoken: false,
        }
    }

    /// Says `report`, if it is this process' turn.
    async fn say(&mut self, report: &Report) -> Result<(), kube::Error> {
        let leases = self.cluster.leases();
        let name = lease_name(&self.node);
        // Taken: after a failure, and while others speak, it is read anew.
        let last = match self.last.take() {
            Some(last) => Some(last),
            None => leases.get_opt(&name).await?,
        };
        if let Some(last) = &last
            && !self.may_speak(last, report, Instant::now())
        {
            return Ok(());
        }
        let mut lease = report.lease(&self.node, &self.holder, LOST.as_secs() as i32);
        let params = PostParams::default();
        let written = match last {
            Some(last) => {
                lease.metadata.resource_version = last.metadata.resource_version;
                leases.replace(&name, &params, &lease).await
            }
            None => leases.create(&params, &lease).await,
        };
        self.last = Some(written?);
        self.has_spoken |= report.state != NodeState::Joining;
        Ok(())
    }

    fn may_speak(&mut self, last: &Lease, report: &Report, now: Instant) -> bool {
        if holder(last) == Some(&*self.holder) || self.is_stale(last, now) {
            return true;
        }
        match report.state {
            // Not what serves, but what is about to.
            NodeState::Joining => {
                let said = Report::read(last).map(|(_, report)| report.state);
                !matches!(said, Ok(NodeState::Active))
            }
            NodeState::Active => !self.has_spoken,
            NodeState::Draining => false,
        }
    }

    /// Whether the other process that wrote a Lease writes it no more.
    ///
    /// It did so by the clock of this node, which may have been set since: then the Lease looks old while it
    /// is renewed.
    fn is_stale(&mut self, lease: &Lease, now: Instant) -> bool {
        let version = &lease.metadata.resource_version;
        let since = match &self.others {
            Some((seen, since)) if seen == version => *since,
            _ => now,
        };
        self.others = Some((version.clone(), since));
        let unchanged = now.saturating_duration_since(since);
        unchanged >= LOST || unchanged > RENEWAL + AGAIN && is_old(lease)
    }
}

fn is_old(lease: &Lease) -> bool {
    let renewed = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.renew_time.as_ref());
    renewed.is_none_or(|renewed| {
        let age = Timestamp::now().duration_since(renewed.0);
        age.unsigned_abs() >= LOST
    })
}

/// Keeps the Lease of a node as the report says, without end; and why it cannot.
pub async fn keep(
    mut keeping: Keeping,
    mut reports: watch::Receiver<Report>,
    trouble: watch::Sender<Option<String>>,
) {
    loop {
        let report = reports.borrow_and_update().clone();
        let said = match timeout(ANSWER, keeping.say(&report)).await {
            // It is read anew.
            Ok(Err(error)) if is_conflict(&error) => {
                Err("another process writes it, too".to_owned())
            }
            Ok(said) => said.map_err(|error| reason(&error)),
            Err(_) => Err("no answer".to_owned()),
        };
        let failed = said.err().map(|reason| {
            let lease = lease_name(&keeping.node);
            format!("cannot write the Lease {lease}: {reason}")
        });
        let pause = if failed.is_some() { AGAIN } else { RENEWAL };
        trouble.send_if_modified(|trouble| {
            let is_new = *trouble != failed;
            if is_new && let Some(reason) = &failed {
                tracing::warn!(reason, "other nodes do not hear of this one");
            }
            trouble.clone_from(&failed);
            is_new
        });
        tokio::select! {
            () = sleep(pause) => {}
            changed = reports.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn report(state: NodeState) -> Report {
        Report {
            state,
            ..Report::new(Ipv4Addr::new(198, 18, 0, 11), 7)
        }
    }

    #[test]
    fn of_two_processes_of_a_node_the_one_that_began_to_serve_last_speaks() {
        use NodeState::{Active, Draining, Joining};
        let client = || {
            let config = kube::Config::new("http://192.0.2.1".parse().unwrap());
            kube::Client::try_from(config).unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().unwrap().enter();
        let cluster = Cluster::of(client(), "forebay-system");
        let mut keeping = Keeping::new(cluster, "n1");
        let of = |state, holder: &str| report(state).lease("n1", holder, 15);
        for (has_spoken, said, now, may) in [
            (false, Active, Joining, false),
            (false, Joining, Joining, true),
            (false, Draining, Joining, true),
            (false, Active, Active, true),
            (true, Active, Active, false),
            (true, Active, Draining, false),
            (false, Active, Draining, false),
        ] {
            keeping.has_spoken = has_spoken;
            let (lease, report) = (of(said, "n1/other"), report(now));
            let start = Instant::now();
            keeping.others = None;
            assert_eq!(
                keeping.may_speak(&lease, &report, start),
                may,
                "{said:?}, then {now:?}"
            );
            let own = of(said, &keeping.holder);
            assert!(keeping.may_speak(&own, &report, start));
            let mut old = of(said, "n1/other");
            let spec = old.spec.as_mut().unwrap();
            spec.renew_time.as_mut().unwrap().0 -= LOST;
            let mut may_speak_after = |lease: &mut Lease, seconds, version: &str| {
                lease.metadata.resource_version = Some(version.to_owned());
                let now = start + Duration::from_secs(seconds);
                keeping.may_speak(lease, &report, now)
            };
            // The clock may have been set: it shows whether it is renewed.
            assert_eq!(may_speak_after(&mut old, 0, "1"), may);
            assert_eq!(may_speak_after(&mut old, 5, "2"), may);
            assert_eq!(may_speak_after(&mut old, 10, "3"), may);
            assert!(may_speak_after(&mut old, 20, "3"), "an old one");
            let mut fresh = lease;
            assert_eq!(may_speak_after(&mut fresh, 30, "4"), may);
            assert_eq!(may_speak_after(&mut fresh, 40, "4"), may);
            assert!(
                may_speak_after(&mut fresh, 45, "4"),
                "by no clock of others"
            );
        }
    }
}
