//! The L7 proxy through real sockets: one worker in this process, origins on loopback.
//!
//! `proxy` starts a worker on a table made by the test; `wire` speaks raw HTTP/1.1 to it, `http2`
//! HTTP/2.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what stands around a test fails by panicking too"
)]

mod http2;
mod proxy;
mod wire;

mod bodies;
mod h2spec;
mod headers;
mod lifecycle;
mod protocols;
mod refusals;
mod retries;
mod stalls;
mod workers;

mod rfc;
