//! The body of a request, as whatever the client speaks gives it.

use std::{
    io,
    task::{Context, Poll},
};

use crate::{
    http1::{BodyError, Fields},
    net::Deadline,
};

/// A request body that is looked at in place: bytes stay with it until they are consumed, so that a
/// request of which nothing was sent can be sent again.
pub(crate) trait RequestBody {
    /// The next bytes, at least one; `None` at the end. Asks the client for more when there are none.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, RequestBodyError>>;

    /// Takes the first `count` of these bytes.
    fn consume(&mut self, count: usize);

    /// Appends the trailers that may go on, each line with its end; after the end.
    fn write_trailers(&self, out: &mut Vec<u8>);

    /// Ready once the client has gone away, where nothing else would tell. Polled while the request
    /// waits for its endpoint.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The timer of the task that forwards the request, where it has one that is free meanwhile.
    /// It knows whom to wake; a timer that stays with the endpoint's connection has to be told by
    /// each request anew.
    fn deadline(&mut self) -> Option<&mut Deadline> {
        None
    }

    /// Passes an interim response (1xx) on to the client, where it can take one.
    fn interim(&mut self, status: u16, reason: &[u8], fields: Fields<'_>);
}

/// A request body that does not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// Badly framed: 400.
    #[error(transparent)]
    Framing(BodyError),
    /// The client has gone away.
    #[error("client closed the connection")]
    Gone(#[source] Option<io::Error>),
    /// HTTP/2 says so: a stream reset, or a broken connection.
    #[error("stream ended")]
    Stream(#[source] hyper::Error),
}
