//! One guard per request, alive until the last byte of its response: what came of it, counted once.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{route::Route, state::Worker};

/// The status of a request whose client left before its response began, as nginx has it.
const CLIENT_LEFT: u16 = 499;

/// What is known of a request. Dropped, it is counted, however the request ended.
pub(super) struct Record {
    worker: Rc<Worker>,
    started: Instant,
    route: Option<Route>,
    /// Of the response's head, once it was given to the client's side.
    status: Option<u16>,
    /// Of the response: over HTTP/1.1 with head and framing, over HTTP/2 of its body alone.
    bytes: u64,
    /// Tries at endpoints.
    pub(super) attempts: u8,
    /// The endpoint tried last.
    pub(super) endpoint: Option<SocketAddr>,
    /// The response was sent to its end.
    complete: bool,
}

impl Record {
    /// A request whose head has arrived.
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        Self {
            started: worker.now(),
            worker: Rc::clone(worker),
            route: None,
            status: None,
            bytes: 0,
            attempts: 0,
            endpoint: None,
            complete: false,
        }
    }

    /// When the running task was woken.
    pub(super) fn now(&self) -> Instant {
        self.worker.now()
    }

    /// Since the request's head has arrived, until the running task was woken.
    pub(super) fn elapsed(&self) -> Duration {
        self.worker.now().saturating_duration_since(self.started)
    }

    /// Notes the route.
    pub(super) fn route(&mut self, route: &Route) {
        self.route = Some(route.clone());
    }

    /// Notes that the response begins.
    pub(super) fn status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Notes that the response whose status was noted does not go out after all.
    pub(super) fn forget_status(&mut self) {
        self.status = None;
    }

    /// Notes bytes of the response.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Notes that the last byte of the response is sent.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let counters = self.worker.counters();
        let status = self.status.unwrap_or(CLIENT_LEFT);
        let duration = self.elapsed();
        let route = match &self.route {
            Some(entry) => entry.counters.of(self.worker.id),
            None => &counters.unrouted,
        };
        route.record(status, duration, self.bytes);
        if self.status.is_some() && !self.complete {
            counters.cut.increment();
        }
        counters
            .retries
            .add(u64::from(self.attempts.saturating_sub(1)));
        let Self {
            endpoint,
            attempts,
            bytes,
            complete,
            ..
        } = self;
        tracing::trace!(
            status,
            ?duration,
            bytes,
            attempts,
            ?endpoint,
            complete,
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::worker, *};
    use crate::metrics::RouteCounters;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_counted_once_however_it_ends() {
        for (status, complete, attempts, counted, cut, retries) in [
            (Some(200), true, 1, 200, 0, 0),
            (Some(200), false, 2, 200, 1, 1),
            (Some(404), true, 0, 404, 0, 0),
            // The client left before there was a response.
            (None, false, 3, 499, 0, 2),
        ] {
            let worker = Rc::new(worker());
            let mut record = Record::new(&worker);
            tokio::time::advance(Duration::from_millis(3)).await;
            worker.tick();
            assert_eq!(record.now(), worker.now());
            assert_eq!(record.elapsed(), Duration::from_millis(3));
            record.status(503);
            record.forget_status();
            if let Some(status) = status {
                record.status(status);
            }
            record.sent(4);
            record.sent(3);
            if complete {
                record.complete();
            }
            record.attempts = attempts;
            drop(record);
            let expected = RouteCounters::default();
            expected.record(counted, Duration::from_millis(3), 7);
            let counters = worker.counters();
            assert_eq!(
                format!("{:?}", counters.unrouted),
                format!("{expected:?}"),
                "{status:?}"
            );
            assert_eq!(counters.cut.value(), cut, "{status:?}");
            assert_eq!(counters.retries.value(), retries, "{status:?}");
            assert!(std::ptr::eq(counters, &raw const worker.metrics.counters));
        }
    }
}
