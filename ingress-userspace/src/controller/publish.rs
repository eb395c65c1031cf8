//! Events → snapshots: waits for a burst to end, translates, and sends what differs.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch as channel},
    time::{Instant, timeout_at},
};

use super::{Settings, index::Index, translate, watch::Event};
use crate::model::{Problem, Severity, Snapshot};

/// A burst has ended when nothing came for this long,
const QUIET: Duration = Duration::from_millis(50);
/// and is cut when it lasts this long: an event waits no longer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs until the source or the last receiver of snapshots is gone.
pub(super) async fn run(
    mut events: mpsc::Receiver<Event>,
    settings: Settings,
    snapshots: channel::Sender<Option<Arc<Snapshot>>>,
) {
    let mut index = Index::default();
    let mut said = BTreeSet::new();
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
            let Ok(Some(event)) = timeout_at(quiet.min(cut), events.recv()).await else { break };
            index.apply(event);
        }
        if !index.complete() {
            continue;
        }
        let next = translate::snapshot(&index, &settings);
        said = say(said, &next.problems);
        snapshots.send_if_modified(|snapshot| {
            let changed = snapshot.as_deref() != Some(&next);
            if changed {
                *snapshot = Some(Arc::new(next));
            }
            changed
        });
    }
}

/// Logs each problem when it appears and when it is gone; gives back what is said now.
fn say(before: BTreeSet<Problem>, now: &[Problem]) -> BTreeSet<Problem> {
    let now: BTreeSet<Problem> = now.iter().cloned().collect();
    for Problem { severity, object, field, file, message } in now.difference(&before) {
        let served = *severity == Severity::Warning;
        tracing::warn!(object, field, file, served, problem = message, "problem with an object");
    }
    for Problem { object, field, file, message, .. } in before.difference(&now) {
        tracing::info!(object, field, file, problem = message, "problem resolved");
    }
    now
}
