//! A point in time that moves often and is rarely reached.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep},
};

/// A timer whose deadline may be put off for the price of a store.
///
/// The runtime's timer is touched only when it fires or when the deadline moves closer: a connection
/// that is busy all the time costs one timer operation per timeout, not one per request. Polled by
/// one task, until it is cleared.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The timer knows whom to wake.
    registered: bool,
}

impl Deadline {
    /// Moves the deadline.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = Some(at);
        if let Some(sleep) = &mut self.sleep
            && sleep.deadline() > at
        {
            sleep.as_mut().reset(at);
        }
    }

    /// Takes the deadline away; another task may poll the next one.
    pub(crate) fn clear(&mut self) {
        self.at = None;
        self.registered = false;
    }

    /// Whether a deadline is in force.
    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the deadline has passed; never without one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if self.registered && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            self.registered = true;
            // A task that has used up its turn would be asked to poll the timer later, and the timer
            // would know of nobody.
            ready!(Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use tokio::task::coop::consume_budget;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_put_off_fires_at_the_later_time() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(1));
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(start + Duration::from_secs(5));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_closer_fires_at_the_earlier_time() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(9));
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
        deadline.set(start + Duration::from_secs(2));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_first_polled_by_a_task_that_has_used_up_its_turn_fires() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(1));
        let mut turns = 0;
        let fired = poll_fn(|cx| {
            turns += 1;
            // As many reads and writes as the runtime grants in one turn.
            while turns == 1 && pin!(consume_budget()).poll(cx).is_ready() {}
            deadline.poll(cx)
        });
        let fired = tokio::time::timeout(Duration::from_secs(60), fired).await;
        assert!(fired.is_ok(), "it never fires");
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_taken_away_never_comes() {
        let mut deadline = Deadline::default();
        assert!(!deadline.is_set());
        deadline.set(Instant::now() + Duration::from_secs(1));
        assert!(deadline.is_set());
        deadline.clear();
        assert!(!deadline.is_set());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(
            poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                .await
                .is_pending()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_after_one_that_was_taken_away_wakes_whoever_polls_it() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(1));
        let mut another = Context::from_waker(std::task::Waker::noop());
        assert!(deadline.poll(&mut another).is_pending());
        deadline.clear();
        deadline.set(start + Duration::from_secs(2));
        let fired = poll_fn(|cx| deadline.poll(cx));
        let fired = tokio::time::timeout(Duration::from_secs(60), fired).await;
        assert!(fired.is_ok(), "it never fires");
        assert_eq!(start.elapsed().as_secs(), 2, "the other task was woken");
    }
}
