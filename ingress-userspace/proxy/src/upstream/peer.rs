//! Whom connections are opened to.

use std::net::SocketAddr;

/// All that an idle connection must have in common with the next request. Those that differ in
/// anything never share one: a connection whose name was not checked must not carry requests that
/// rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
}

/// What is spoken on a connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1 in the clear. TLS, with the name it asks for, and HTTP/2 are further variants once
    /// they can be asked for.
    Http1,
}
