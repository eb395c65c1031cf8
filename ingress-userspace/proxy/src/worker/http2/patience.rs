//! How many streams a client may leave before they are answered (CVE-2023-44487, "rapid reset").
//!
//! A client that resets its streams at once has an endpoint work for nobody, as often as it likes: the
//! limit on open streams does not hold it. Clients that leave now and then do no harm.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// Streams that a client may leave in one go.
const MOST: f64 = 200.0;
/// What each second adds, up to that.
const PER_SECOND: f64 = 20.0;
/// What each whole response adds.
const PER_RESPONSE: f64 = 1.0;

/// A client that has waited for so long may have lost its own patience: that does not count.
const BRIEF: Duration = Duration::from_secs(1);

/// What one connection may still leave.
#[derive(Debug)]
pub(super) struct Patience(Cell<(f64, Instant)>);

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self(Cell::new((MOST, now)))
    }

    /// Notes that a stream had its whole response.
    pub(super) fn served(&self, now: Instant) {
        self.add(PER_RESPONSE, now);
    }

    /// Notes that the client left a stream that `began` then.
    pub(super) fn left(&self, began: Instant, now: Instant) {
        if now.saturating_duration_since(began) < BRIEF {
            self.add(-1.0, now);
        }
    }

    /// Whether the client has left too many.
    pub(super) fn is_over(&self) -> bool {
        self.0.get().0 < 0.0
    }

    fn add(&self, count: f64, now: Instant) {
        let (before, at) = self.0.get();
        let earned = now.saturating_duration_since(at).as_secs_f64() * PER_SECOND;
        self.0.set(((before + earned).min(MOST) + count, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(patience: &Patience, count: usize, now: Instant) -> bool {
        (0..count).for_each(|_| patience.left(now, now));
        patience.is_over()
    }

    #[test]
    fn only_who_leaves_many_streams_at_once_is_out() {
        let start = Instant::now();
        let patience = Patience::new(start);
        assert!(!leave(&patience, 200, start));
        assert!(leave(&patience, 1, start));

        let patience = Patience::new(start);
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            assert!(!leave(&patience, 20, now), "in second {second}");
        }

        let patience = Patience::new(start);
        (0..1000).for_each(|_| patience.left(start, start + BRIEF));
        assert!(!patience.is_over());

        let patience = Patience::new(start);
        for round in 0..1000 {
            patience.served(start);
            assert!(!leave(&patience, 1, start), "in round {round}");
        }
    }
}
