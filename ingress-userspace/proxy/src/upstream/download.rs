//! The body of a response on its way to the client, read as the client takes it.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    ForwardError, Lease, Outgoing, RequestBody, Timeouts, exchange::timeout, request::Waiting,
};
use crate::http1::{Body, Next};

/// A response body that is read from its connection when it is polled.
///
/// The connection goes back to its pool at the body's end; dropped earlier, it is closed.
#[derive(Debug)]
pub(crate) struct Download<B> {
    /// `None` once the body has ended.
    lease: Option<Lease>,
    body: Body,
    /// How long the connection may be kept afterwards; zero: not at all.
    idle_time: Duration,
    /// The request, a part of which may come after the response began.
    request: Outgoing<B>,
    /// Nothing more of it is to be sent.
    sent: bool,
    timeouts: Timeouts,
    waiting: Waiting,
    /// The endpoint is waited for. It is not while the client takes what there is.
    starved: bool,
}

impl<B: RequestBody> Download<B> {
    pub(super) fn new(
        lease: Lease,
        body: Body,
        idle_time: Duration,
        (request, sent): (Outgoing<B>, bool),
        timeouts: Timeouts,
        waiting: Waiting,
    ) -> Self {
        Self {
            lease: Some(lease),
            body,
            idle_time,
            request,
            sent,
            timeouts,
            waiting,
            starved: false,
        }
    }

    /// Ends a body of which nothing is to come, so that its connection is free at once.
    pub(super) fn finish_if_empty(&mut self, now: Instant) {
        if matches!(self.body, Body::Length(0)) {
            self.finish(now);
        }
    }

    /// The next bytes, at least one; `None` at the end. They stay until they are consumed.
    ///
    /// # Errors
    /// The body breaks off or breaks its framing, or nothing moves for too long.
    pub(crate) fn poll_data(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<&[u8]>, ForwardError>> {
        let count = loop {
            self.drive_upload(now, cx)?;
            let Some(lease) = &mut self.lease else {
                return Poll::Ready(Ok(None));
            };
            let endpoint = lease.address();
            let next = self.body.next(&mut lease.connection.inbound);
            match next.map_err(|source| ForwardError::Response {
                endpoint,
                source: source.into(),
            })? {
                Next::Data(count) => {
                    self.starved = false;
                    break count;
                }
                Next::End => {
                    self.finish(now);
                    return Poll::Ready(Ok(None));
                }
                Next::Starved => ready!(self.poll_more(now, cx))?,
            }
        };
        let inbound = self
            .lease
            .as_ref()
            .map(|lease| lease.connection.inbound.data());
        Poll::Ready(Ok(inbound.and_then(|data| data.get(..count))))
    }

    /// Takes the first `count` of these bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(lease) = &mut self.lease {
            self.body.take(&mut lease.connection.inbound, count);
        }
    }

    /// How many bytes are to come, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match (&self.lease, &self.body) {
            (None, _) => Some(0),
            (Some(_), Body::Length(left)) => Some(*left),
            (Some(_), _) => None,
        }
    }

    /// The trailer section, once the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        self.body.trailers()
    }

    /// Gives the connection back, unless a part of the request was not sent on it: then the endpoint
    /// would read the next request as that part.
    fn finish(&mut self, now: Instant) {
        if let Some(lease) = self.lease.take().filter(|_| self.sent) {
            lease.give_back(now, self.idle_time);
        }
    }

    /// Sends on what is left of the request. A failure is the endpoint's way to say that it wants
    /// no more: the response goes on.
    fn drive_upload(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        let Some(lease) = self.lease.as_mut().filter(|_| !self.sent) else {
            return Ok(());
        };
        let mut progress = false;
        let endpoint = lease.address();
        match self.request.poll_send(
            &lease.connection.socket,
            endpoint,
            &mut self.waiting,
            &mut progress,
            cx,
        ) {
            // Its end may come without a byte, and is the endpoint's turn all the same.
            Poll::Ready(Ok(())) => {
                (self.sent, self.waiting, progress) = (true, Waiting::Response, true);
            }
            Poll::Ready(Err(ForwardError::Unanswered { .. })) => {
                (self.sent, self.waiting, progress) = (true, Waiting::Response, true);
                self.idle_time = Duration::ZERO;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        if progress {
            let limit = self.timeouts.of(self.waiting);
            let own = self.request.deadline();
            lease.connection.wait(own, now, limit);
        }
        Ok(())
    }

    fn poll_more(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(Ok(()));
        };
        let endpoint = lease.address();
        let connection = &mut *lease.connection;
        let socket = &connection.socket;
        match connection
            .inbound
            .poll_fill(cx, |cx, space| socket.poll_recv(cx, space))
        {
            Poll::Ready(Ok(0)) => Poll::Ready(match self.body.close() {
                Ok(()) => Ok(()),
                Err(_) => Err(ForwardError::Truncated {
                    endpoint,
                    source: None,
                }),
            }),
            Poll::Ready(Ok(_)) => {
                connection.wait(self.request.deadline(), now, self.timeouts.read);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(ForwardError::Truncated {
                endpoint,
                source: Some(error),
            })),
            Poll::Pending => {
                let limit = self.timeouts.of(self.waiting);
                if !self.starved {
                    self.starved = true;
                    connection.wait(self.request.deadline(), now, limit);
                }
                if connection
                    .poll_over(self.request.deadline(), self.waiting, now, limit, cx)
                    .is_ready()
                {
                    return Poll::Ready(Err(timeout(endpoint, self.waiting)));
                }
                self.request
                    .poll_gone(self.waiting, cx)
                    .map(|()| Err(ForwardError::ClientGone))
            }
        }
    }
}
