//! HTTP/1.1 with a client: one request after the other, until one side has had enough.
//!
//! `head` waits for a request (no memory is held meanwhile) → `request` decides and answers, or →
//! `forward` sends it to an endpoint and `relay`s what has `begun`; a `detour` takes the place of a
//! response that is not whole → `linger` ends the connection. `connection`, `terms`, `body`, `source`
//! and `writer` are what these work on. Everything of a
//! request runs in the task of its connection.

mod detour;
mod forward;
mod head;
mod linger;
mod relay;
mod request;

mod begun;
mod body;
mod connection;
mod source;
mod terms;
mod writer;

use std::{future::poll_fn, io, task::Poll};

pub(super) use self::{connection::Connection, head::HEAD_LIMIT};
use self::{head::Awaited, terms::After};

impl Connection {
    /// Serves the connection until it ends.
    ///
    /// # Errors
    /// The connection broke, or the client took nothing for too long.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        loop {
            let after = match self.head().await? {
                // Apart, since it is large: the task of an idle client would hold the space for it.
                Awaited::Head(head) => Box::pin(self.request(head)).await?,
                Awaited::Bad(status) => Box::pin(self.refuse(status)).await?,
                Awaited::End => After::Done,
            };
            match after {
                After::Next => {}
                After::Close => return Box::pin(self.linger()).await,
                After::Done => {
                    // TLS says goodbye, as far as the client takes it.
                    poll_fn(|cx| {
                        let _ = self.stream.poll_shut_down(cx);
                        Poll::Ready(())
                    })
                    .await;
                    return Ok(());
                }
                After::Abort => return Ok(()),
            }
        }
    }
}
