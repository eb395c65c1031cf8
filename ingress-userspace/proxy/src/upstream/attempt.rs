//! When a request that failed is tried again.

use std::{cell::Cell, time::Duration};

use ingress_model::RetryPolicy;

use super::ForwardError;

/// Retries that a worker has in hand when it starts, and most that it saves up.
const BUDGET: f32 = 100.0;
/// What each request adds: in the long run, one retry for five requests.
const DEPOSIT: f32 = 0.2;

/// Keeps retries from doubling the load on pods that are failing already.
#[derive(Debug)]
pub(crate) struct RetryBudget(Cell<f32>);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Cell::new(BUDGET))
    }
}

impl RetryBudget {
    /// Notes a request.
    pub(crate) fn deposit(&self) {
        self.0.set((self.0.get() + DEPOSIT).min(BUDGET));
    }

    /// Takes one retry out, if there is one.
    fn withdraw(&self) -> bool {
        let left = self.0.get();
        if left >= 1.0 {
            self.0.set(left - 1.0);
        }
        left >= 1.0
    }
}

/// A try that failed.
#[derive(Debug)]
pub(crate) struct Failure<'e> {
    pub(crate) error: &'e ForwardError,
    /// The endpoint, by its index.
    pub(crate) index: usize,
    /// The connection came from the pool.
    pub(crate) reused: bool,
}

/// Whether a request may be sent once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeatable {
    /// Its method says so.
    pub(crate) idempotent: bool,
    /// No byte of its body is gone.
    pub(crate) replayable: bool,
}

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Attempts<'w> {
    budget: &'w RetryBudget,
    policy: &'w RetryPolicy,
    left: u8,
    /// Endpoints that are not asked again, by index.
    tried: Vec<usize>,
    /// Pooled connections are passed over: one was dead, others may be.
    fresh: bool,
    made: u8,
}

impl<'w> Attempts<'w> {
    /// As many tries as `policy` allows.
    pub(crate) fn new(budget: &'w RetryBudget, policy: &'w RetryPolicy) -> Self {
        budget.deposit();
        Self {
            budget,
            policy,
            left: policy.tries.max(1),
            tried: Vec::new(),
            fresh: false,
            made: 0,
        }
    }

    /// Endpoints that were tried in vain.
    pub(crate) fn tried(&self) -> &[usize] {
        &self.tried
    }

    /// Whether the next try needs a new connection.
    pub(crate) fn fresh(&self) -> bool {
        self.fresh
    }

    /// How many tries were made.
    pub(crate) fn made(&self) -> u8 {
        self.made
    }

    /// Begins a try.
    pub(crate) fn begin(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// Whether to try again after `failure` of the `request`, `elapsed` after it came.
    ///
    /// Safe is what no endpoint has seen, and what may be done twice (RFC 9110 section 9.2.2). A
    /// pooled connection that dies tells nothing about its endpoint, which had closed it just then:
    /// that costs no try, and the same endpoint is asked once more over a new connection.
    pub(crate) fn again(
        &mut self,
        failure: &Failure<'_>,
        request: Repeatable,
        elapsed: Duration,
    ) -> bool {
        let causes = &self.policy.causes;
        let safe_twice = request.idempotent || causes.non_idempotent;
        let (is_cause, is_safe) = match failure.error {
            ForwardError::Connect { .. } => (causes.error, true),
            ForwardError::ConnectTimeout { .. } => (causes.timeout, true),
            ForwardError::Unanswered { .. } | ForwardError::Truncated { .. } => {
                (causes.error, safe_twice)
            }
            ForwardError::ReadTimeout { .. } | ForwardError::SendTimeout { .. } => {
                (causes.timeout, safe_twice)
            }
            ForwardError::Response { .. } => (causes.invalid_header, safe_twice),
            ForwardError::NoEndpoint
            | ForwardError::BodyTooLarge
            | ForwardError::Body(_)
            | ForwardError::BodyTimeout
            | ForwardError::ClientGone => (false, false),
        };
        if !is_safe || !request.replayable {
            return false;
        }
        if failure.reused && !self.fresh && matches!(failure.error, ForwardError::Unanswered { .. })
        {
            self.fresh = true;
            return true;
        }
        is_cause && self.next(failure.index, elapsed)
    }

    /// Whether the response with `status` of the endpoint `index` is thrown away for another try.
    pub(crate) fn again_after(
        &mut self,
        status: u16,
        index: usize,
        request: Repeatable,
        elapsed: Duration,
    ) -> bool {
        let causes = &self.policy.causes;
        causes.statuses.contains(&status)
            && (request.idempotent || causes.non_idempotent)
            && request.replayable
            && self.next(index, elapsed)
    }

    fn next(&mut self, tried: usize, elapsed: Duration) -> bool {
        let is_late = self.policy.within.is_some_and(|within| elapsed >= within);
        self.tried.push(tried);
        self.left -= 1;
        self.left > 0 && !is_late && self.budget.withdraw()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use ingress_model::RetryCauses;

    use super::*;

    fn refused() -> ForwardError {
        ForwardError::Connect {
            endpoint: ([192, 0, 2, 1], 80).into(),
            source: io::ErrorKind::ConnectionRefused.into(),
        }
    }

    fn unanswered() -> ForwardError {
        ForwardError::Unanswered {
            endpoint: ([192, 0, 2, 1], 80).into(),
            source: None,
        }
    }

    const NOW: Duration = Duration::ZERO;
    const SAFE: Repeatable = Repeatable {
        idempotent: true,
        replayable: true,
    };

    fn failure(error: &ForwardError, index: usize, reused: bool) -> Failure<'_> {
        Failure {
            error,
            index,
            reused,
        }
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        let (budget, policy) = (RetryBudget::default(), RetryPolicy::default());
        for (error, reused, idempotent, replayable, again) in [
            (refused(), false, false, true, true),
            (refused(), false, true, false, false),
            (unanswered(), false, true, true, true),
            (unanswered(), false, false, true, false),
            (unanswered(), true, true, true, true),
            (unanswered(), true, false, true, false),
            (ForwardError::BodyTooLarge, false, true, true, false),
            (ForwardError::ClientGone, false, true, true, false),
        ] {
            let request = Repeatable {
                idempotent,
                replayable,
            };
            assert_eq!(
                Attempts::new(&budget, &policy).again(&failure(&error, 0, reused), request, NOW),
                again,
                "{error}, reused {reused}, {request:?}"
            );
        }
    }

    #[test]
    fn a_policy_says_after_what_another_endpoint_is_tried() {
        let endpoint = ([192, 0, 2, 1], 80).into();
        let none = RetryCauses::none;
        for (causes, error, again) in [
            (none(), refused(), false),
            (none(), ForwardError::ReadTimeout { endpoint }, false),
            (
                RetryCauses {
                    error: true,
                    ..none()
                },
                refused(),
                true,
            ),
            (
                RetryCauses {
                    error: true,
                    ..none()
                },
                unanswered(),
                true,
            ),
            (
                RetryCauses {
                    error: true,
                    ..none()
                },
                ForwardError::ConnectTimeout { endpoint },
                false,
            ),
            (
                RetryCauses {
                    timeout: true,
                    ..none()
                },
                ForwardError::ConnectTimeout { endpoint },
                true,
            ),
            (
                RetryCauses {
                    timeout: true,
                    ..none()
                },
                ForwardError::ReadTimeout { endpoint },
                true,
            ),
            (
                RetryCauses {
                    timeout: true,
                    ..none()
                },
                unanswered(),
                false,
            ),
        ] {
            let policy = RetryPolicy {
                causes,
                ..RetryPolicy::default()
            };
            let budget = RetryBudget::default();
            let mut attempts = Attempts::new(&budget, &policy);
            let failure = failure(&error, 0, false);
            assert_eq!(
                attempts.again(&failure, SAFE, NOW),
                again,
                "{policy:?}, {error}"
            );
        }
    }

    #[test]
    fn a_post_is_sent_again_only_where_the_policy_says_so() {
        let post = Repeatable {
            idempotent: false,
            replayable: true,
        };
        for non_idempotent in [false, true] {
            let policy = RetryPolicy {
                causes: RetryCauses {
                    non_idempotent,
                    statuses: [503].into(),
                    ..RetryCauses::default()
                },
                ..RetryPolicy::default()
            };
            let budget = RetryBudget::default();
            let mut attempts = Attempts::new(&budget, &policy);
            let error = unanswered();
            let failure = failure(&error, 0, false);
            assert_eq!(attempts.again(&failure, post, NOW), non_idempotent);
            assert_eq!(attempts.again_after(503, 1, post, NOW), non_idempotent);
        }
    }

    #[test]
    fn a_response_is_thrown_away_only_for_a_status_that_the_policy_names() {
        let policy = RetryPolicy {
            causes: RetryCauses {
                statuses: [502, 503].into(),
                ..RetryCauses::none()
            },
            ..RetryPolicy::default()
        };
        let budget = RetryBudget::default();
        let mut attempts = Attempts::new(&budget, &policy);
        let gone = Repeatable {
            replayable: false,
            ..SAFE
        };
        assert!(!attempts.again_after(500, 0, SAFE, NOW));
        assert!(!attempts.again_after(503, 0, gone, NOW));
        assert!(attempts.again_after(503, 0, SAFE, NOW));
        assert!(attempts.again_after(502, 1, SAFE, NOW));
        // The last one is the answer.
        assert!(!attempts.again_after(502, 2, SAFE, NOW));
    }

    #[test]
    fn tries_end_and_exclude_what_was_tried() {
        let (budget, policy) = (RetryBudget::default(), RetryPolicy::default());
        let mut attempts = Attempts::new(&budget, &policy);
        let error = refused();
        assert!(attempts.again(&failure(&error, 4, false), SAFE, NOW));
        assert!(attempts.again(&failure(&error, 2, false), SAFE, NOW));
        assert_eq!(attempts.tried(), [4, 2]);
        assert!(!attempts.again(&failure(&error, 1, false), SAFE, NOW));
    }

    #[test]
    fn each_try_is_counted_that_over_a_dead_pooled_connection_too() {
        let (budget, policy) = (RetryBudget::default(), RetryPolicy::default());
        let mut attempts = Attempts::new(&budget, &policy);
        assert_eq!(attempts.made(), 0);
        for (made, error) in [(1, unanswered()), (2, refused()), (3, refused())] {
            attempts.begin();
            assert_eq!(attempts.made(), made);
            let failure = failure(&error, 0, made == 1);
            assert!(attempts.again(&failure, SAFE, NOW), "{made}: {error}");
        }
    }

    #[test]
    fn no_try_begins_after_the_time_for_all_of_them() {
        let policy = RetryPolicy {
            within: Some(Duration::from_secs(2)),
            ..RetryPolicy::default()
        };
        let (budget, error) = (RetryBudget::default(), refused());
        for (seconds, again) in [(0, true), (1, true), (2, false), (3, false)] {
            let mut attempts = Attempts::new(&budget, &policy);
            let then = Duration::from_secs(seconds);
            let failure = failure(&error, 0, false);
            assert_eq!(attempts.again(&failure, SAFE, then), again, "{seconds} s");
        }
    }

    #[test]
    fn a_dead_pooled_connection_costs_no_try_and_is_believed_once() {
        let policy = RetryPolicy {
            tries: 1,
            causes: RetryCauses::none(),
            ..RetryPolicy::default()
        };
        let (budget, error) = (RetryBudget::default(), unanswered());
        let mut attempts = Attempts::new(&budget, &policy);
        assert!(!attempts.fresh(), "the first try may use the pool");
        assert!(attempts.again(&failure(&error, 0, true), SAFE, NOW));
        assert!(attempts.fresh() && attempts.tried().is_empty());
        assert!(!attempts.again(&failure(&error, 0, true), SAFE, NOW));
    }

    #[test]
    fn retries_are_a_fraction_of_requests_when_everything_fails() {
        let (budget, policy) = (RetryBudget::default(), RetryPolicy::default());
        let error = refused();
        let retries = (0..10_000)
            .filter(|_| {
                let mut attempts = Attempts::new(&budget, &policy);
                attempts.again(&failure(&error, 0, false), SAFE, NOW)
            })
            .count();
        assert!((2_000..=2_200).contains(&retries), "{retries}");
    }
}
