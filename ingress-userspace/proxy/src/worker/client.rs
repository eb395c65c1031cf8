//! What the requests of one connection have in common.

use std::{cell::RefCell, io::Write, net::SocketAddr, rc::Rc};

use super::state::Worker;

/// How a connection ended, where not as it should.
pub(super) type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// One client's connection, as far as its requests depend on it.
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    /// Whether the connection is TLS.
    pub(super) secure: bool,
    /// The lines of the forwarded head that are the same for every request of the connection.
    pub(super) forwarded: Box<[u8]>,
    /// Interim responses that are not sent yet; what is left of them goes before the final one. Here
    /// and not in the connection, whose task holds the space for its fields several times over.
    pub(super) notice: RefCell<Vec<u8>>,
}

impl Client {
    /// A client at `peer` that connected to `port`.
    ///
    /// The forwarding fields are those of ingress-nginx: what the client says of its own address is
    /// replaced.
    pub(super) fn new(worker: Rc<Worker>, peer: SocketAddr, port: u16, secure: bool) -> Self {
        let (peer, scheme) = (
            peer.ip().to_canonical(),
            if secure { "https" } else { "http" },
        );
        let mut lines = Vec::with_capacity(192);
        // Writing to memory cannot fail.
        let _ = write!(
            lines,
            "X-Real-IP: {peer}\r\nX-Forwarded-For: {peer}\r\nX-Forwarded-Port: {port}\r\n\
             X-Forwarded-Proto: {scheme}\r\nX-Forwarded-Scheme: {scheme}\r\nX-Scheme: {scheme}\r\n"
        );
        Self {
            worker,
            secure,
            forwarded: lines.into_boxed_slice(),
            notice: RefCell::default(),
        }
    }
}
