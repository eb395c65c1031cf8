//! HTTP/1.1 by the text of RFC 9110 and RFC 9112, case by case.
//!
//! The topics are tables of `case`s. `check` runs each: it sends bytes through `client`, lets
//! `recorder` stand for the endpoint, and compares what both of them saw, as `message` reads it.
//! `http2` does the same over frames.

mod case;
mod check;
mod client;
mod message;
mod recorder;

mod chunked;
mod connection;
mod early;
mod expect;
mod fields;
mod forwarding;
mod framing;
mod hints;
mod host;
mod limits;
mod old_clients;
mod path;
mod pipelining;
mod request_line;
mod response_bodies;
mod response_fields;
mod response_heads;
mod target;
mod trailers;
mod upgrade;

mod http2;
