//! HTTP/1.1 messages as bytes, for clients and pods alike: one parser, one codec, one set of rules.
//!
//! `head` finds and parses heads over httparse, `name` classifies each field once, `framing` decides
//! where a body ends (RFC 9112 section 6), `body` and `chunked` take the framing off, `sender` puts it on.

mod body;
mod chunked;
mod framing;
mod head;
mod name;
mod sender;

pub(crate) use body::{Body, BodyError, Next};
pub(crate) use chunked::{ChunkError, chunk_line, each_trailer};
pub(crate) use framing::{Announced, Framing, FramingError, FramingFields};
pub(crate) use head::{
    Field, Fields, HeadError, HeadFinder, Line, RequestLine, Span, StatusLine, check_request_start,
    parse_request, parse_response,
};
pub(crate) use name::{Name, Named, is_barred_from_trailers, is_keep_alive, options};
pub(crate) use sender::{GATHER_LIMIT, SendError, Sender, Source, Step};
