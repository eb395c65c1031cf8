//! The times of a watch: how long it may last, how long silence is borne, and the pauses between
//! tries.

use std::time::Duration;

/// The server is asked to end a watch after this long at most: what has not come by then was lost
/// on the way. Together with `GRACE` and `ANSWER` it stays below a minute.
const WATCH: Duration = Duration::from_secs(40);
/// A watch that the server should have ended is given up after this long.
const GRACE: Duration = Duration::from_secs(5);
/// A server that says nothing for this long, to a request or within a list, does not answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// A refusal follows at once on a watch that was taken; after this long none will come.
pub(super) const SETTLED: Duration = Duration::from_millis(500);

/// How long the next watch lasts: up to a quarter less than `WATCH`, so that neither kinds nor
/// nodes come back in step.
pub(super) fn watch_length() -> Duration {
    WATCH.mul_f64(1.0 - fastrand::f64() / 4.0)
}

/// When a watch of `length` must have ended.
pub(super) fn overdue(length: Duration) -> Duration {
    length + GRACE
}

/// Why a try failed, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody answered. Asking again costs a server that is away nothing.
    Unanswered,
    /// The server answered, and not as hoped: asking often makes it worse.
    Refused,
}

/// The pauses between failed tries.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<(Class, Duration)>,
}

impl Backoff {
    /// The pause after a failure of `class`: doubled by each further one of the same class, and
    /// varied by half so that nodes do not come back in step.
    pub(super) fn pause(&mut self, class: Class) -> Duration {
        let (first, longest) = match class {
            Class::Unanswered => (Duration::from_millis(100), Duration::from_millis(1500)),
            Class::Refused => (Duration::from_millis(300), Duration::from_secs(30)),
        };
        let pause = match self.last {
            Some((same, last)) if same == class => (last * 2).min(longest),
            _ => first,
        };
        self.last = Some((class, pause));
        // No longer than the cap, whatever the dice say.
        pause.mul_f64(0.5 + fastrand::f64()).min(longest)
    }

    /// The watch works: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_asked_often_and_one_that_refuses_ever_less() {
        for (class, first, longest) in [
            (Class::Unanswered, 150, 1500),
            (Class::Refused, 450, 30_000),
        ] {
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = (0..200).map(|_| backoff.pause(class).as_millis()).collect();
            assert!(pauses[0] <= first, "{class:?}: {}", pauses[0]);
            let greatest = *pauses.iter().max().unwrap();
            assert_eq!(greatest, longest, "{class:?}");
            let late: std::collections::BTreeSet<_> = pauses[100..].iter().collect();
            assert!(late.len() > 10, "{class:?}: no jitter in {late:?}");
            backoff.reset();
            assert!(backoff.pause(class).as_millis() <= first, "{class:?}");
        }
    }

    #[test]
    fn a_server_that_comes_back_but_refuses_is_asked_again_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.pause(Class::Unanswered);
        }
        assert!(backoff.pause(Class::Refused) <= Duration::from_millis(450));
    }

    #[test]
    fn silence_is_noticed_within_a_minute() {
        assert!(overdue(WATCH) + ANSWER < Duration::from_secs(60));
    }
}
