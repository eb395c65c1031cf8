//! The body of a response on its way to the client, read as the client takes it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    ForwardError, Lease, Timeouts, Upload,
    chunked::Decoded,
    exchange::{poll_receive, timeout},
    response::{Framing, Head},
    upload::{Waiting, poll_send},
};

/// How much of a body is read at once: what one frame holds in memory.
const BODY_READ: usize = 32 * 1024;

/// A response body that is read from its connection when it is polled.
///
/// The connection goes back to its pool at the body's end; dropped earlier, it is closed.
#[derive(Debug)]
pub struct Download {
    /// `None` once the body has ended.
    lease: Option<Lease>,
    framing: Framing,
    keep_alive: bool,
    /// The rest of the request, where the response came first.
    upload: Option<Upload>,
    timeouts: Timeouts,
    waiting: Waiting,
}

impl Download {
    pub(super) fn new(
        mut lease: Lease,
        head: Head,
        upload: Option<Upload>,
        timeouts: Timeouts,
    ) -> Self {
        lease
            .connection
            .deadline
            .set(Instant::now() + timeouts.read);
        let Head {
            framing,
            keep_alive,
            ..
        } = head;
        Self {
            lease: Some(lease),
            framing,
            keep_alive,
            upload,
            timeouts,
            waiting: Waiting::Response,
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.keep_alive
            && self.upload.is_none()
        {
            lease.give_back(Instant::now());
        }
    }

    /// Sends on what is left of the request. A failure is the endpoint's way to say that it wants
    /// no more: the response goes on.
    fn drive_upload(&mut self, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        let Some(lease) = self.lease.as_mut().filter(|_| self.upload.is_some()) else {
            return Ok(());
        };
        let mut progress = false;
        match poll_send(
            lease,
            &mut self.upload,
            &mut self.waiting,
            &mut progress,
            cx,
        ) {
            Poll::Ready(Ok(())) => self.waiting = Waiting::Response,
            Poll::Ready(Err(ForwardError::Unanswered { .. })) => {
                self.upload = None;
                self.keep_alive = false;
                self.waiting = Waiting::Response;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending if progress => lease
                .connection
                .deadline
                .set(Instant::now() + self.timeouts.of(self.waiting)),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Takes a frame from what has arrived; `None` where more has to arrive first.
    fn take(&mut self) -> Result<Option<Option<Frame<Bytes>>>, ForwardError> {
        let Some(lease) = &mut self.lease else {
            return Ok(Some(None));
        };
        let endpoint = lease.address();
        let inbound = &mut lease.connection.inbound;
        let (data, last) = match &mut self.framing {
            Framing::Length(0) => (Bytes::new(), true),
            Framing::Length(left) => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(inbound.len());
                *left -= take as u64;
                (inbound.split_to(take).freeze(), *left == 0)
            }
            Framing::Chunked(chunked) => {
                match chunked
                    .decode(inbound)
                    .map_err(|source| ForwardError::Response { endpoint, source })?
                {
                    Decoded::Data(data) => (data, false),
                    Decoded::Starved => (Bytes::new(), false),
                    Decoded::Last(trailers) => {
                        self.finish();
                        return Ok(Some(
                            (!trailers.is_empty()).then(|| Frame::trailers(trailers)),
                        ));
                    }
                }
            }
            Framing::Close => (inbound.split().freeze(), false),
        };
        if last {
            self.finish();
        }
        if data.is_empty() {
            Ok(last.then_some(None))
        } else {
            Ok(Some(Some(Frame::data(data))))
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(Ok(()));
        };
        let endpoint = lease.address();
        match poll_receive(lease, BODY_READ, cx) {
            Poll::Ready(Ok(0)) if matches!(self.framing, Framing::Close) => {
                self.lease = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ForwardError::Truncated {
                endpoint,
                source: None,
            })),
            Poll::Ready(Ok(_)) => {
                lease
                    .connection
                    .deadline
                    .set(Instant::now() + self.timeouts.read);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(ForwardError::Truncated {
                endpoint,
                source: Some(error),
            })),
            Poll::Pending => lease
                .connection
                .deadline
                .poll(cx)
                .map(|()| Err(timeout(lease, self.waiting))),
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        let this = self.get_mut();
        let outcome = loop {
            if let Err(error) = this.drive_upload(cx) {
                break Err(error);
            }
            match this.take() {
                Ok(Some(frame)) => break Ok(frame),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            match std::task::ready!(this.poll_more(cx)) {
                Ok(()) => {}
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &outcome {
            tracing::debug!(
                error = error as &dyn std::error::Error,
                "response broke off"
            );
            this.lease = None;
        }
        Poll::Ready(outcome.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.lease, &self.framing) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Framing::Length(left)) => SizeHint::with_exact(*left),
            (Some(_), _) => SizeHint::default(),
        }
    }
}
