//! How the watches are doing, in words and numbers; the source is as good as its worst watch.

use std::time::SystemTime;

use tokio::sync::watch as channel;

use super::super::super::source::{Condition, SourceState, SourceStatus, WatchStatus};

/// Where one kind's watch says how it is doing.
#[derive(Clone, Debug)]
pub(super) struct Health {
    kind: String,
    status: channel::Sender<SourceStatus>,
}

impl Health {
    /// A kind that is to be listed.
    pub(super) fn new(kind: String, status: channel::Sender<SourceStatus>) -> Self {
        status.send_modify(|status| {
            status.kinds.push(WatchStatus {
                kind: kind.clone(),
                condition: Condition::Listing,
                listed: false,
                last_heard: None,
                restarts: 0,
            });
        });
        Self { kind, status }
    }

    /// The server said something. Whoever reads the status sees it; only `tell` wakes them, which
    /// is not for each of many changes.
    pub(super) fn heard(&self, tell: bool) {
        self.update(|watch| {
            watch.last_heard = Some(SystemTime::now());
            tell
        });
    }

    /// Changes are seen.
    pub(super) fn fine(&self) {
        self.update(|watch| {
            let changed = watch.condition != Condition::Fine;
            watch.condition = Condition::Fine;
            watch.listed = true;
            changed
        });
    }

    /// A try failed, and there will be another one.
    pub(super) fn failing(&self, reason: String) {
        self.update(|watch| {
            watch.restarts += 1;
            watch.condition = Condition::Failing { reason };
            true
        });
    }

    fn update(&self, change: impl FnOnce(&mut WatchStatus) -> bool) {
        self.status.send_if_modified(|status| {
            let Some(watch) = status
                .kinds
                .iter_mut()
                .find(|watch| watch.kind == self.kind)
            else {
                return false;
            };
            if !change(watch) {
                return false;
            }
            let state = overall(&status.kinds);
            status.turn(state, "API server");
            true
        });
    }
}

fn overall(kinds: &[WatchStatus]) -> SourceState {
    let failing = kinds.iter().find_map(|watch| match &watch.condition {
        Condition::Failing { reason } => Some(reason.clone()),
        Condition::Listing | Condition::Fine => None,
    });
    match failing {
        Some(reason) => SourceState::Degraded { reason },
        None if kinds.iter().all(|watch| watch.listed) => SourceState::InSync,
        None => SourceState::Starting,
    }
}
