//! The address of one pod behind a backend.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Address and port of one pod that accepts requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Name of the EndpointSlice's `targetRef`, usually the pod; informational.
    pub pod: Option<Box<str>>,
}
