//! When a request that failed is tried again.

use std::cell::Cell;

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

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Attempts<'w> {
    budget: &'w RetryBudget,
    left: u8,
    /// Endpoints that are not asked again, by index.
    tried: Vec<usize>,
    /// Pooled connections are passed over: one was dead, others may be.
    fresh: bool,
    made: u8,
}

impl<'w> Attempts<'w> {
    /// Up to `limit` tries.
    pub(crate) fn new(budget: &'w RetryBudget, limit: u8) -> Self {
        budget.deposit();
        Self {
            budget,
            left: limit.max(1),
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

    /// Whether to try again after `error` at the endpoint `index`, over a pooled connection if
    /// `reused`. `idempotent` is the method; `replayable` says that no byte of the body is gone.
    ///
    /// Safe is what no endpoint has seen, and what may be done twice (RFC 9110 section 9.2.2). A
    /// pooled connection that dies tells nothing about its endpoint, which had closed it just then:
    /// that costs no try, and the same endpoint is asked once more over a new connection.
    pub(crate) fn again(
        &mut self,
        error: &ForwardError,
        index: usize,
        reused: bool,
        idempotent: bool,
        replayable: bool,
    ) -> bool {
        let is_safe = match error {
            ForwardError::Connect { .. } | ForwardError::ConnectTimeout { .. } => true,
            ForwardError::Unanswered { .. }
            | ForwardError::ReadTimeout { .. }
            | ForwardError::SendTimeout { .. }
            | ForwardError::Response { .. }
            | ForwardError::Truncated { .. } => idempotent,
            ForwardError::NoEndpoint
            | ForwardError::BodyTooLarge
            | ForwardError::Body(_)
            | ForwardError::BodyTimeout
            | ForwardError::ClientGone => false,
        };
        if !is_safe || !replayable {
            return false;
        }
        if reused && !self.fresh && matches!(error, ForwardError::Unanswered { .. }) {
            self.fresh = true;
            return true;
        }
        self.tried.push(index);
        self.left -= 1;
        self.left > 0 && self.budget.withdraw()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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

    #[test]
    fn only_what_is_safe_is_tried_again() {
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
            let budget = RetryBudget::default();
            let mut attempts = Attempts::new(&budget, 3);
            assert_eq!(
                attempts.again(&error, 0, reused, idempotent, replayable),
                again,
                "{error}, reused {reused}, idempotent {idempotent}, replayable {replayable}"
            );
        }
    }

    #[test]
    fn tries_end_and_exclude_what_was_tried() {
        let budget = RetryBudget::default();
        let mut attempts = Attempts::new(&budget, 3);
        assert!(attempts.again(&refused(), 4, false, true, true));
        assert!(attempts.again(&refused(), 2, false, true, true));
        assert_eq!(attempts.tried(), [4, 2]);
        assert!(!attempts.again(&refused(), 1, false, true, true));
    }

    #[test]
    fn a_dead_pooled_connection_costs_no_try_and_is_believed_once() {
        let budget = RetryBudget::default();
        let mut attempts = Attempts::new(&budget, 1);
        assert!(attempts.again(&unanswered(), 0, true, true, true));
        assert!(attempts.fresh() && attempts.tried().is_empty());
        assert!(!attempts.again(&unanswered(), 0, true, true, true));
    }

    #[test]
    fn retries_are_a_fraction_of_requests_when_everything_fails() {
        let budget = RetryBudget::default();
        let retries = (0..10_000)
            .filter(|_| Attempts::new(&budget, 3).again(&refused(), 0, false, true, true))
            .count();
        assert!((2_000..=2_200).contains(&retries), "{retries}");
    }
}
