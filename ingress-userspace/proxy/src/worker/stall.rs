//! Tells a client that stands still from one that takes little at a time.
//!
//! The kernel says that a socket may be written to only when a third of its queue is free. That queue
//! grows to megabytes, so that a slow client takes longer for the third than it may stand still.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::stream::Stream;
use crate::net::Deadline;

/// What a client has to take within the limit, at least, in order not to stand still.
const LEAST: u32 = 16 * 1024;

/// A write that the client's connection does not take.
#[derive(Debug)]
pub(super) struct Stall {
    /// What the client had not acknowledged when the deadline was set; `NOTHING` while nothing waits.
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
    pub(super) fn clear(&mut self) {
        self.before = NOTHING;
    }

    /// Notes that nothing could be written at `now`. Ready once the client has taken nothing for
    /// `limit`, which `deadline` counts.
    pub(super) fn poll(
        &mut self,
        stream: &Stream,
        deadline: &mut Deadline,
        now: Instant,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        if self.before == NOTHING {
            deadline.set(now + limit);
            self.before = stream.unacknowledged();
        }
        while deadline.poll(cx).is_ready() {
            let left = stream.unacknowledged();
            if self.before.saturating_sub(left) < LEAST {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.before = left;
            deadline.set(Instant::now() + limit);
        }
        Poll::Pending
    }
}
