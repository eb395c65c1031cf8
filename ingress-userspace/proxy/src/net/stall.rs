//! Tells a peer that stands still from one that takes little at a time.
//!
//! The kernel says that a socket may be written to only when a third of its queue is free. That queue
//! grows to megabytes, so that a slow peer takes longer for the third than it may stand still.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::Deadline;

/// What a peer has to take within the limit, at least, in order not to stand still.
const LEAST: u32 = 16 * 1024;

/// A write that the peer's connection does not take.
#[derive(Debug)]
pub(crate) struct Stall {
    /// What the peer had not acknowledged when the deadline was set; `NOTHING` while nothing waits.
    before: u32,
}

const NOTHING: u32 = u32::MAX;

impl Default for Stall {
    fn default() -> Self {
        Self { before: NOTHING }
    }
}

impl Stall {
    /// Notes that something was written.
    pub(crate) fn clear(&mut self) {
        self.before = NOTHING;
    }

    /// Notes that nothing could be written at `now`. Ready once the peer has taken nothing for
    /// `limit`, which `deadline` counts; `unacknowledged` is what it has not taken, in bytes.
    pub(crate) fn poll(
        &mut self,
        unacknowledged: impl Fn() -> u32,
        deadline: &mut Deadline,
        now: Instant,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.before == NOTHING {
            deadline.set(now + limit);
            self.before = unacknowledged();
        }
        while deadline.poll(cx).is_ready() {
            let left = unacknowledged();
            if self.before.saturating_sub(left) < LEAST {
                return Poll::Ready(());
            }
            self.before = left;
            deadline.set(Instant::now() + limit);
        }
        Poll::Pending
    }
}
