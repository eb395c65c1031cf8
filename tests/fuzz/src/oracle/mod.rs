//! A second reader of HTTP/1.1, written from RFC 9112 alone: no line of the product, nor of the
//! library under it, decides what is right here.
//!
//! `head` splits into lines and fields, `body` takes the framing off, `request` and `response` put
//! both together.

mod body;
mod head;
mod request;
mod response;

pub use body::{Body, End, Framing, Numbers, chunked, number};
pub use head::{Field, Head, is_token};
pub use request::{Request, request, requests};
pub use response::{Response, final_response, response};

use head::head;

/// How much a reader overlooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All that RFC 9112 lets a recipient overlook: a bare LF as the end of a line (section 2.2),
    /// empty lines before a request, extensions of chunks, HTTP/1.0.
    Forgiving,
    /// Nothing: for what we write.
    Strict,
}

/// What came of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// This.
    Done(T),
    /// More would have to come.
    Open,
    /// It is none, for this reason.
    Bad(&'static str),
}

impl<T> Read<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Done(value) => Read::Done(f(value)),
            Self::Open => Read::Open,
            Self::Bad(reason) => Read::Bad(reason),
        }
    }

    /// What was read, if it is whole.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Open | Self::Bad(_) => None,
        }
    }
}
