//! Events → snapshots: waits for a burst to end, translates, and sends what differs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch as channel},
    time::{Instant, timeout_at},
};

use super::{
    index::{Event, Index},
    settings::Settings,
    translate,
};
use ingress_model::Snapshot;

/// A burst of events has ended when nothing came for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst is cut when it lasts this long, so that no event waits longer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs until the source or the last receiver of snapshots is gone.
pub(super) async fn run(
    mut events: mpsc::Receiver<Event>,
    settings: Settings,
    snapshots: channel::Sender<Option<Arc<Snapshot>>>,
) {
    let mut index = Index::default();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = snapshots.closed() => return,
        };
        let Some(event) = event else { return };
        index.apply(event);
        let cut = Instant::now() + PATIENCE;
        while Instant::now() < cut {
            let quiet = Instant::now() + QUIET;
            let Ok(Some(event)) = timeout_at(quiet.min(cut), events.recv()).await else {
                break;
            };
            index.apply(event);
        }
        if !index.complete() {
            continue;
        }
        let next = translate::snapshot(&index, &settings);
        snapshots.send_if_modified(|snapshot| {
            let changed = snapshot.as_deref() != Some(&next);
            if changed {
                *snapshot = Some(Arc::new(next));
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{
        Ingress, IngressBackend, IngressServiceBackend, IngressSpec, ServiceBackendPort,
    };

    use super::{
        super::{
            kept::Change,
            kind::{self, Kind, Visitor},
        },
        *,
    };
    use ingress_model::ObjectName;

    fn settings() -> Settings {
        Settings {
            classes: Vec::new(),
            watch_without_class: true,
            allow_loopback_endpoints: false,
        }
    }

    fn applied(name: &str) -> Event {
        let port = ServiceBackendPort {
            number: Some(80),
            name: None,
        };
        let service = IngressServiceBackend {
            name: "s".into(),
            port: Some(port),
        };
        let backend = IngressBackend {
            service: Some(service),
            resource: None,
        };
        let spec = IngressSpec {
            default_backend: Some(backend),
            ..IngressSpec::default()
        };
        let ingress = Ingress {
            spec: Some(spec),
            ..Ingress::default()
        };
        Event::Changed(Kind::changed(Change::Applied(
            ObjectName::new("default", name),
            Box::new(ingress),
        )))
    }

    /// An empty list of each kind.
    struct Lists(Vec<Event>);

    impl Visitor for Lists {
        fn visit<K: Kind>(&mut self) {
            let list = K::changed(Change::Listed(Vec::new()));
            self.0.push(Event::Changed(list));
        }
    }

    struct Run {
        events: mpsc::Sender<Event>,
        snapshots: channel::Receiver<Option<Arc<Snapshot>>>,
    }

    fn start() -> Run {
        let (events, inbox) = mpsc::channel(1000);
        let (sender, snapshots) = channel::channel(None);
        tokio::spawn(run(inbox, settings(), sender));
        Run { events, snapshots }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_published_before_every_list_is_complete() {
        let Run {
            events,
            mut snapshots,
        } = start();
        let mut lists = Lists(Vec::new());
        kind::visit_all(&mut lists);
        let last = lists.0.pop().unwrap();
        events.send(applied("old")).await.unwrap();
        for list in lists.0 {
            events.send(list).await.unwrap();
        }
        events.send(applied("a")).await.unwrap();
        // The clock is paused: this passes once every task has nothing to do.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!snapshots.has_changed().unwrap());
        events.send(last).await.unwrap();
        snapshots.changed().await.unwrap();
        assert_eq!(snapshots.borrow().as_ref().unwrap().routes.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_snapshot_and_what_changes_nothing_is_none() {
        let Run {
            events,
            mut snapshots,
        } = start();
        events.send(Event::Whole(Box::default())).await.unwrap();
        snapshots.changed().await.unwrap();
        snapshots.borrow_and_update();
        for number in 0..100 {
            events.send(applied(&number.to_string())).await.unwrap();
        }
        snapshots.changed().await.unwrap();
        assert_eq!(
            snapshots.borrow_and_update().as_ref().unwrap().routes.len(),
            100
        );
        events.send(applied("7")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!snapshots.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_never_pause_do_not_keep_a_change_back() {
        let Run {
            events,
            mut snapshots,
        } = start();
        events.send(Event::Whole(Box::default())).await.unwrap();
        snapshots.changed().await.unwrap();
        snapshots.borrow_and_update();
        let sender = tokio::spawn(async move {
            for number in 0.. {
                if events.send(applied(&number.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let started = Instant::now();
        snapshots.changed().await.unwrap();
        assert!(
            started.elapsed() <= PATIENCE + QUIET,
            "{:?}",
            started.elapsed()
        );
        sender.abort();
    }
}
