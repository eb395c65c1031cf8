//! Ends a connection whose next request does not come in time, without a timer for each request.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::upstream::Deadline;

/// The timer that hyper is given for one connection.
///
/// hyper makes a sleep for each head that it awaits and drops it when the head is there. A sleep of
/// this timer only leaves its deadline here; the task of the connection has one real timer, which
/// [`HeadTimer::poll`] compares with it.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer(Arc<State>);

#[derive(Debug)]
struct State {
    epoch: Instant,
    /// In milliseconds after the epoch; 0 while no head is awaited. Relaxed throughout: one thread
    /// writes and reads, the atomics are there because hyper wants `Sync`.
    deadline: AtomicU64,
    expired: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            epoch: Instant::now(),
            deadline: AtomicU64::new(0),
            expired: AtomicBool::new(false),
        }))
    }

    /// Ready once when the head that is awaited is overdue: then the connection has to be polled
    /// again, so that hyper sees it.
    pub(super) fn poll(&self, deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.0.deadline.load(Relaxed);
        if at == 0 || self.0.expired.load(Relaxed) {
            return Poll::Pending;
        }
        deadline.set((self.0.epoch + Duration::from_millis(at)).into());
        deadline
            .poll(cx)
            .map(|()| self.0.expired.store(true, Relaxed))
    }
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let after = deadline.saturating_duration_since(self.0.epoch).as_millis();
        self.0
            .deadline
            .store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Relaxed);
        Box::pin(HeadSleep(Arc::clone(&self.0)))
    }
}

struct HeadSleep(Arc<State>);

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        if self.0.expired.load(Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl hyper::rt::Sleep for HeadSleep {}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.0.deadline.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::Timer;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_an_overdue_head_ends_the_wait() {
        let timer = HeadTimer::new();
        let mut deadline = Deadline::default();
        let answered = timer.sleep(Duration::from_secs(5));
        assert!(
            poll_fn(|cx| Poll::Ready(timer.poll(&mut deadline, cx)))
                .await
                .is_pending()
        );
        drop(answered);
        let overdue = timer.sleep(Duration::from_secs(9));
        poll_fn(|cx| timer.poll(&mut deadline, cx)).await;
        overdue.await;
    }
}
