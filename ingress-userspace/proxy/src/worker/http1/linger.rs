//! Ends a connection whose client may still be sending.

use std::{future::poll_fn, io, task::Poll, time::Duration};

use super::connection::Connection;

/// How long a client may take to notice that its connection has ended.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of what it still sends is read meanwhile.
const LINGER_BYTES: usize = 1 << 20;

impl Connection {
    /// Ends the connection so that the client gets all that was sent to it: what it still sends would
    /// otherwise be answered with a reset, which may overtake the response.
    pub(super) async fn linger(mut self) -> io::Result<()> {
        let mut left = LINGER_BYTES;
        self.deadline.set(self.worker().now() + LINGER_TIME);
        let Self {
            stream,
            inbound,
            deadline,
            ..
        } = &mut self;
        let mut shut = false;
        poll_fn(|cx| {
            if !shut {
                shut = stream.poll_shut_down(cx)?.is_ready();
            }
            loop {
                let unread = inbound.data().len();
                inbound.consume(unread);
                match inbound.poll_fill(cx, |cx, space| stream.poll_recv(cx, space)) {
                    Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => return deadline.poll(cx).map(Ok),
                }
            }
        })
        .await
    }
}
