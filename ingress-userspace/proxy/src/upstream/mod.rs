//! The pod side of a request: pick an endpoint, reuse or open a connection, exchange one request
//! for one response.
//!
//! `balance` → `pool` (or `connect`) → `exchange`: `upload` sends, `response` reads the head,
//! `download` the body.
//!
//! HTTP/1.1 is spoken here by a client of our own: it is polled by the task of the downstream
//! connection, so a request costs no task, no channel and no wake-up of its own. A bare trial with
//! hyper's client used 1.04 times nginx's CPU a request; this, with routing, headers, timeouts and
//! metrics, uses 0.75 to 0.9 times (`cargo xtask bench http`).

mod balance;
mod connect;
mod pool;

mod chunked;
mod download;
mod exchange;
mod response;
mod upload;

mod deadline;
mod error;

pub use balance::{Choice, RoundRobin};
pub use connect::connect;
pub use deadline::Deadline;
pub use download::Download;
pub use error::{ForwardError, ResponseError, Side};
pub use exchange::{Answer, Ask, ReplyBody, Timeouts, exchange};
pub use pool::{EndpointPool, Lease, Pool};
pub use upload::Upload;

/// Reads a whole response from `bytes`: the way of a fuzz target to the parsers of heads and
/// chunks.
///
/// # Errors
/// The bytes break the framing.
#[cfg(fuzzing)]
pub fn read_response(bytes: &[u8]) -> Result<(), ResponseError> {
    let (mut inbound, mut headers) = (bytes::BytesMut::from(bytes), http::HeaderMap::new());
    let context = response::Context {
        head: false,
        upgrade: true,
    };
    let head = response::take_head(&mut inbound, &mut Vec::new(), &mut headers, context)?;
    if let Some(response::Head {
        framing: response::Framing::Chunked(mut chunked),
        ..
    }) = head
    {
        while let chunked::Decoded::Data(_) = chunked.decode(&mut inbound)? {}
    }
    Ok(())
}
