//! One pod address that answers for a backend.

use std::net::SocketAddr;

/// Address and port of one pod, ready to be sent requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// `targetRef` of the EndpointSlice, usually the pod's name; for `explain` and the demo.
    pub pod: Option<Box<str>>,
}
