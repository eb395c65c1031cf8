//! A request on its way to an endpoint, with the body that its client still sends.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
};

use super::{ForwardError, RequestBody};
use crate::{
    http1::{Announced, SendError, Sender, Source, Step},
    net::{Deadline, Outbound, Socket},
};

/// A request that is ready to be sent, and again until a byte of its body has left for good.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    sender: Sender,
    body: Limited<B>,
}

/// A body of which a route takes only so much.
#[derive(Debug)]
struct Limited<B> {
    body: B,
    /// How many more bytes the route allows; `None` is without a limit.
    left: Option<u64>,
}

/// Whom a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The client, for more of the body.
    Client,
    /// The endpoint's socket, to take what there is.
    Socket,
    /// The endpoint, for its response.
    Response,
}

impl<B: RequestBody> Outgoing<B> {
    /// A request with a whole `head`, empty line included, whose `body` may have `limit` bytes.
    pub(crate) fn new(head: Outbound, body: B, framing: Announced, limit: Option<u64>) -> Self {
        Self {
            sender: Sender::request(head, framing),
            body: Limited { body, left: limit },
        }
    }

    /// Whether it can be sent again from the start.
    pub(crate) fn is_replayable(&self) -> bool {
        self.sender.is_replayable()
    }

    /// Makes it ready to be sent again. Only where [`Self::is_replayable`] says so.
    pub(crate) fn rewind(&mut self) {
        self.sender.rewind();
    }

    /// The client's side.
    pub(super) fn client(&mut self) -> &mut B {
        &mut self.body.body
    }

    /// The timer of the client's side, where it has one.
    pub(super) fn deadline(&mut self) -> Option<&mut Deadline> {
        self.body.body.deadline()
    }

    /// Ready once the client is gone, while the request waits for its endpoint.
    pub(super) fn poll_gone(&mut self, waiting: Waiting, cx: &mut Context<'_>) -> Poll<()> {
        match waiting {
            // A read of the body tells.
            Waiting::Client => Poll::Pending,
            Waiting::Socket | Waiting::Response => self.body.body.poll_gone(cx),
        }
    }

    /// Sends what there is; ready once all of it is sent.
    ///
    /// While pending, `waiting` says for whom, and `progress` whether anything moved.
    pub(super) fn poll_send(
        &mut self,
        socket: &Socket,
        endpoint: SocketAddr,
        waiting: &mut Waiting,
        progress: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ForwardError>> {
        let mut moved = 0;
        let step = self
            .sender
            .poll(&mut self.body, &mut moved, cx, |cx, pieces| match pieces {
                [piece] => socket.poll_send(cx, piece),
                pieces => socket.poll_send_pieces(cx, pieces),
            });
        *progress |= moved > 0;
        match step {
            Ok(Step::Done) => return Poll::Ready(Ok(())),
            Ok(Step::Starved) => *waiting = Waiting::Client,
            Ok(Step::Blocked) => *waiting = Waiting::Socket,
            Err(SendError::Source(error)) => return Poll::Ready(Err(error)),
            Err(SendError::Socket(source)) => {
                return Poll::Ready(Err(ForwardError::Unanswered {
                    endpoint,
                    source: Some(source),
                }));
            }
        }
        Poll::Pending
    }
}

impl<B: RequestBody> Source for Limited<B> {
    type Error = ForwardError;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, ForwardError>> {
        let left = self.left;
        self.body.poll_data(cx).map(|data| match data? {
            Some(data) if left.is_some_and(|left| data.len() as u64 > left) => {
                Err(ForwardError::BodyTooLarge)
            }
            data => Ok(data),
        })
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        self.body.consume(count);
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        self.body.write_trailers(out);
    }
}
