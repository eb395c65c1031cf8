//! How the watches are doing, in words and numbers; the source is as good as its worst watch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::sync::watch as channel;

use super::super::super::source::{Condition, SourceState, SourceStatus, WatchStatus};

/// What the status calls the watches of Secrets by name.
const NAMED: &str = "Secret by name";

/// Where one watch says how it is doing: a line for one kind, or a part of a common one.
#[derive(Debug)]
pub(super) struct Health {
    kind: String,
    status: channel::Sender<SourceStatus>,
    share: Option<Share>,
}

/// The watches of Secrets by name: one line for all of them, as long as there is any.
#[derive(Debug)]
pub(super) struct Group {
    status: channel::Sender<SourceStatus>,
    counts: Arc<Counts>,
}

/// One watch's part of a common line.
#[derive(Debug)]
struct Share {
    counts: Arc<Counts>,
    is_failing: AtomicBool,
}

/// All their watches run on one thread, so that no order matters.
#[derive(Debug, Default)]
struct Counts {
    watches: AtomicUsize,
    failing: AtomicUsize,
}

impl Group {
    pub(super) fn new(status: channel::Sender<SourceStatus>) -> Self {
        Self {
            status,
            counts: Arc::default(),
        }
    }

    /// One more watch, until it is dropped.
    pub(super) fn join(&self) -> Health {
        let share = Share {
            counts: Arc::clone(&self.counts),
            is_failing: AtomicBool::new(false),
        };
        if self.counts.watches.fetch_add(1, Relaxed) == 0 {
            enter(NAMED.to_owned(), &self.status);
        }
        Health {
            kind: NAMED.to_owned(),
            status: self.status.clone(),
            share: Some(share),
        }
    }
}

impl Share {
    /// Notes whether this watch fails, and tells whether any does.
    fn set_failing(&self, is_failing: bool) -> bool {
        let failing = &self.counts.failing;
        match (self.is_failing.swap(is_failing, Relaxed), is_failing) {
            (false, true) => drop(failing.fetch_add(1, Relaxed)),
            (true, false) => drop(failing.fetch_sub(1, Relaxed)),
            (false, false) | (true, true) => {}
        }
        failing.load(Relaxed) > 0
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        let Some(share) = &self.share else {
            return;
        };
        let any_fails = share.set_failing(false);
        if share.counts.watches.fetch_sub(1, Relaxed) == 1 {
            self.status.send_modify(|status| {
                status.kinds.retain(|watch| watch.kind != self.kind);
                let state = overall(&status.kinds);
                status.turn(state, "API server");
            });
        } else if !any_fails {
            self.update(|watch| {
                let has_failed = matches!(watch.condition, Condition::Failing { .. });
                if has_failed {
                    watch.condition = Condition::Fine;
                }
                has_failed
            });
        }
    }
}

fn enter(kind: String, status: &channel::Sender<SourceStatus>) {
    status.send_modify(|status| {
        status.kinds.push(WatchStatus {
            kind,
            condition: Condition::Listing,
            listed: false,
            last_heard: None,
            restarts: 0,
            unnamed: 0,
        });
    });
}

impl Health {
    /// A kind that is to be listed.
    pub(super) fn new(kind: String, status: channel::Sender<SourceStatus>) -> Self {
        enter(kind.clone(), &status);
        Self {
            kind,
            status,
            share: None,
        }
    }

    /// The server said something. Whoever reads the status sees it; only `tell` wakes them, which
    /// is not for each of many changes.
    pub(super) fn heard(&self, tell: bool) {
        self.update(|watch| {
            watch.last_heard = Some(SystemTime::now());
            tell
        });
    }

    /// An object was left out.
    pub(super) fn unnamed(&self) {
        self.update(|watch| {
            watch.unnamed += 1;
            false
        });
    }

    /// Changes are seen.
    pub(super) fn fine(&self) {
        let share = self.share.as_ref();
        let others_fail = share.is_some_and(|share| share.set_failing(false));
        self.update(|watch| {
            watch.listed = true;
            let changed = !others_fail && watch.condition != Condition::Fine;
            if changed {
                watch.condition = Condition::Fine;
            }
            changed
        });
    }

    /// A try failed, and there will be another one.
    pub(super) fn failing(&self, reason: String) {
        if let Some(share) = &self.share {
            share.set_failing(true);
        }
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
        // A Secret that is wanted later does not undo the start.
        None if kinds
            .iter()
            .all(|watch| watch.listed || watch.kind == NAMED) =>
        {
            SourceState::InSync
        }
        None => SourceState::Starting,
    }
}
