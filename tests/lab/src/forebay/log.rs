//! What the process logs, line by line, and waits for lines.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use serde_json::Value;

use super::LIMIT;

/// What a process wrote to stderr, shared with the thread that reads it.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    closed: bool,
}

impl Log {
    pub(super) fn push(&self, line: String) {
        self.change(|log| log.lines.push(line));
    }

    pub(super) fn close(&self) {
        self.change(|log| log.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .clone()
    }

    pub(super) fn text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }

    pub(super) fn find<T>(&self, find: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.lines()
            .iter()
            .find_map(|line| find(&serde_json::from_str(line).ok()?))
    }

    /// Waits for a line; `false` when the process closed its stderr or 20 s went by without it.
    pub(super) fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        let mut log = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            for line in log.lines.iter().skip(seen) {
                if serde_json::from_str(line).is_ok_and(|line| wanted(&line)) {
                    return true;
                }
            }
            seen = log.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if log.closed || left.is_zero() {
                return false;
            }
            log = self
                .0
                .1
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
