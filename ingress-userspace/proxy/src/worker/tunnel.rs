//! A connection that became a WebSocket: bytes both ways, until both sides have ended or nothing
//! moves.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use super::{state::Worker, stream::Stream};
use crate::net::{Deadline, Inbound, Socket};

/// Moves bytes between a client and its endpoint. `received` is what each side has sent already;
/// `idle` is how long nothing may move (`proxy-read-timeout`, as with ingress-nginx).
///
/// # Errors
/// A side is reset, or nothing has moved for too long.
pub(super) async fn run(
    worker: &Worker,
    (client, from_client): (&Stream, Inbound),
    (endpoint, from_endpoint): (Socket, Inbound),
    idle: Duration,
) -> io::Result<()> {
    let endpoint = Stream::Plain(endpoint);
    let mut up = Direction {
        received: from_client,
        ended: false,
        shut: false,
    };
    let mut down = Direction {
        received: from_endpoint,
        ended: false,
        shut: false,
    };
    let mut deadline = Deadline::default();
    deadline.set(worker.now() + idle);
    poll_fn(|cx| {
        let mut moved = false;
        let up = up.poll(client, &endpoint, &mut moved, cx)?;
        let down = down.poll(&endpoint, client, &mut moved, cx)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if moved {
            deadline.set(worker.now() + idle);
        }
        deadline
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

/// One way through the tunnel.
struct Direction {
    received: Inbound,
    /// The sender has ended.
    ended: bool,
    /// The receiver knows it.
    shut: bool,
}

impl Direction {
    /// Moves what there is; ready once the end has been passed on.
    fn poll(
        &mut self,
        from: &Stream,
        to: &Stream,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> io::Result<Poll<()>> {
        loop {
            if !self.received.is_empty() {
                match to.poll_send(cx, &[IoSlice::new(self.received.data())]) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(sent) => self.received.consume(sent?),
                }
                *moved = true;
                continue;
            }
            if to.poll_flush(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.ended {
                if !self.shut {
                    self.shut = to.poll_shut_down(cx)?.is_ready();
                }
                return Ok(if self.shut {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                });
            }
            match self
                .received
                .poll_fill(cx, |cx, space| from.poll_recv(cx, space))
            {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(received) => self.ended = received? == 0,
            }
        }
    }
}
