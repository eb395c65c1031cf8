//! Puts what the agent says in force, on a thread of its own, and shows what came of it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use ingress_agent::{Report, SourceState, SourceStatus as Source, WatchStatus};
use ingress_model::Update;
use ingress_proxy::{
    metrics::{Exposition, Kind, Registry},
    table::Site,
};

use crate::{
    admin::{DataPlaneStatus, Readiness, SourceStatus, Status},
    sockets::Steering,
};

/// How often what nothing refers to any more is freed.
const TIDY: Duration = Duration::from_secs(2);

/// Adopts updates as they come.
pub(super) struct Publisher {
    site: Site,
    updates: mpsc::Receiver<Arc<Update>>,
    resync: mpsc::Sender<()>,
    /// Who wants to know of each update whether it is in force.
    adopted: Option<mpsc::UnboundedSender<bool>>,
    status: watch::Sender<Arc<Status>>,
    counts: Arc<Counts>,
}

/// What was adopted so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    updates: AtomicU64,
    compiled: AtomicU64,
}

impl Publisher {
    /// Of `updates` the first must be a whole state; `resync` asks for one; `adopted` hears of each
    /// whether it is in force.
    pub(super) fn new(
        site: Site,
        updates: mpsc::Receiver<Arc<Update>>,
        resync: mpsc::Sender<()>,
        adopted: Option<mpsc::UnboundedSender<bool>>,
        status: watch::Sender<Arc<Status>>,
    ) -> Self {
        Self {
            site,
            updates,
            resync,
            adopted,
            status,
            counts: Arc::default(),
        }
    }

    /// What was adopted so far, now and later.
    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Follows the updates on a thread of its own; tells `first` when one is in force, and drops
    /// `alive` when the agent has ended: then the last table stays, but nobody may rely on it.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub(super) fn start(
        mut self,
        first: oneshot::Sender<()>,
        alive: oneshot::Sender<()>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let follow = move || {
            runtime.block_on(self.follow(first));
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("table".to_owned());
        thread.spawn(follow).map(drop)
    }

    async fn follow(&mut self, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = self.updates.recv() => {
                    let Some(update) = update else { return };
                    let is_in_force = self.adopt(&update);
                    if let Some(adopted) = &self.adopted {
                        // Nobody keeps it any more when the process is about to stop.
                        let _ = adopted.send(is_in_force);
                    }
                    if is_in_force && let Some(first) = first.take() {
                        // Nobody waits any more when the process is about to stop.
                        let _ = first.send(());
                    }
                }
                _ = tidy.tick() => self.site.tidy(),
            }
        }
    }

    /// Puts an update in force, or asks for the whole state if one is missing between.
    fn adopt(&mut self, update: &Update) -> bool {
        if let Err(gap) = self.site.apply(update) {
            tracing::warn!(%gap, "asking for the whole state");
            // One request that waits is enough.
            let _ = self.resync.try_send(());
            return false;
        }
        self.counts.updates.fetch_add(1, Relaxed);
        self.counts.compiled.store(self.site.compiled(), Relaxed);
        let table = Arc::clone(&self.site.tables().borrow());
        tracing::debug!(
            epoch = update.epoch,
            hosts = update.hosts.len(),
            endpoints = update.endpoints.len(),
            certificates = update.certificates.len(),
            "adopted"
        );
        let is_other_table = !update.hosts.is_empty() || update.base.is_none();
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            if is_other_table {
                status.routes = table.rules();
                status.denied_routes = table.denied();
                status.changed = Some(SystemTime::now());
            }
            if !update.certificates.is_empty() || update.base.is_none() {
                let expiries = self.site.expiries();
                status.certificates = expiries
                    .map(|(secret, expiry)| (secret.to_string(), expiry))
                    .collect();
            }
        });
        true
    }
}

/// Shows the state of the source in the status until the source is gone.
pub(super) async fn follow_state(
    mut state: watch::Receiver<Source>,
    kind: &'static str,
    status: watch::Sender<Arc<Status>>,
) {
    loop {
        let state_now = serde_json::to_value(&*state.borrow_and_update()).unwrap_or_default();
        status.send_modify(|status| {
            Arc::make_mut(status).source = SourceStatus {
                kind,
                state: state_now,
            }
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Shows in the status how connections reach the sockets, until nobody says it any more.
pub(super) async fn follow_steering(
    mut steering: watch::Receiver<Steering>,
    status: watch::Sender<Arc<Status>>,
) {
    while steering.changed().await.is_ok() {
        let now = steering.borrow_and_update().clone();
        status.send_modify(|status| Arc::make_mut(status).data_plane = DataPlaneStatus::of(now));
    }
}

/// Shows in the metrics what every process has: its version, and whether it is ready.
pub(super) fn expose_process(
    metrics: &Registry,
    status: watch::Receiver<Arc<Status>>,
    readiness: watch::Receiver<Readiness>,
) {
    metrics.collect_with(Box::new(move |exposition| {
        let status = status.borrow().clone();
        gauge(
            exposition,
            "forebay_build_info",
            "Version of the binary; always 1.",
            &[(vec![("version", status.version)], 1)],
        );
        gauge(
            exposition,
            "forebay_ready",
            "1 while this process does what it is for; see the readiness probe.",
            &[(vec![], readiness.borrow().is_ready().into())],
        );
        gauge(
            exposition,
            "forebay_data_plane_degraded",
            "1 when connections are not steered as asked.",
            &[(
                vec![("mode", &*status.data_plane.mode)],
                status.data_plane.degraded.is_some().into(),
            )],
        );
    }));
}

/// Shows in the metrics what is in force.
pub(super) fn expose_table(
    metrics: &Registry,
    status: watch::Receiver<Arc<Status>>,
    counts: Arc<Counts>,
) {
    metrics.collect_with(Box::new(move |exposition| {
        let status = status.borrow().clone();
        gauge(
            exposition,
            "forebay_routes",
            "Routes in force.",
            &[(vec![], count(status.routes))],
        );
        gauge(
            exposition,
            "forebay_denied_routes",
            "Routes in force that answer 503, because they ask for protection that cannot be given.",
            &[(vec![], count(status.denied_routes))],
        );
        let expiries: Vec<Sample<'_>> = status
            .certificates
            .iter()
            .map(|(secret, expiry)| (vec![("secret", secret.as_str())], *expiry))
            .collect();
        gauge(
            exposition,
            "forebay_certificate_expiry_timestamp_seconds",
            "When the certificate of a Secret expires.",
            &expiries,
        );
        gauge(
            exposition,
            "forebay_table_changed_timestamp_seconds",
            "When the table last changed.",
            &[(vec![], status.changed.map_or(0, unix_seconds))],
        );
        for (name, help, value) in [
            (
                "forebay_updates_total",
                "Updates of the agent that were put in force.",
                &counts.updates,
            ),
            (
                "forebay_hosts_compiled_total",
                "Hosts whose rules were compiled.",
                &counts.compiled,
            ),
        ] {
            exposition.family(name, Kind::Counter, help);
            exposition.sample(name, &[], value.load(Relaxed));
        }
    }));
}

/// Shows in the metrics how the source is doing and, where the agent is in this process, the objects.
pub(super) fn expose_source(
    metrics: &Registry,
    report: Option<Report>,
    source: watch::Receiver<Source>,
) {
    metrics.collect_with(Box::new(move |exposition| {
        let source = source.borrow().clone();
        if let Some(report) = &report {
            let (warnings, errors) = report.counts();
            gauge(
                exposition,
                "forebay_object_problems",
                "Problems of objects, as /status lists them.",
                &[
                    (vec![("severity", "warning")], count(warnings)),
                    (vec![("severity", "error")], count(errors)),
                ],
            );
            let unnamed = i64::try_from(report.unnamed_secrets()).unwrap_or(i64::MAX);
            gauge(
                exposition,
                "forebay_unnamed_secrets",
                "Secrets that no Ingress names and that are kept by name alone, because their namespace has many of them.",
                &[(vec![], unnamed)],
            );
        }
        gauge(
            exposition,
            "forebay_source_in_sync",
            "1 while changes arrive.",
            &[(vec![], (source.state == SourceState::InSync).into())],
        );
        gauge(
            exposition,
            "forebay_watch_last_heard_timestamp_seconds",
            "When the API server last said something about a kind.",
            &of_kinds(&source.kinds, |watch| {
                watch.last_heard.map_or(0, unix_seconds)
            }),
        );
        let restarts = of_kinds(&source.kinds, |watch| {
            i64::try_from(watch.restarts).unwrap_or(i64::MAX)
        });
        let name = "forebay_watch_restarts_total";
        exposition.family(
            name,
            Kind::Counter,
            "How often the watch of a kind was started again after a failure.",
        );
        for (labels, value) in &restarts {
            exposition.sample(name, labels.as_slice(), value);
        }
    }));
}

fn gauge(exposition: &mut Exposition, name: &str, help: &str, samples: &[Sample<'_>]) {
    exposition.family(name, Kind::Gauge, help);
    for (labels, value) in samples {
        exposition.sample(name, labels.as_slice(), value);
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn of_kinds(watches: &[WatchStatus], value: fn(&WatchStatus) -> i64) -> Vec<Sample<'_>> {
    let watches = watches.iter();
    watches
        .map(|watch| (vec![("kind", watch.kind.as_str())], value(watch)))
        .collect()
}

/// Labels and value.
type Sample<'a> = (Vec<(&'a str, &'a str)>, i64);

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
