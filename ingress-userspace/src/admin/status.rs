//! `/status`: what is in force, what is degraded, and which objects have problems.

use std::{collections::BTreeMap, net::SocketAddr, time::SystemTime};

use serde::{Serialize, Serializer};

use crate::model::Problem;

/// Everything `/status` shows. Written by `run` at each change.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Version of the binary.
    pub version: &'static str,
    /// Name of this node, where one was given.
    pub node: Option<String>,
    /// Where the objects come from.
    pub source: SourceStatus,
    /// The bound listeners.
    pub listeners: Vec<ListenerStatus>,
    /// How connections reach the workers.
    pub data_plane: DataPlaneStatus,
    /// What is wrong with which object.
    pub problems: Vec<Problem>,
    /// Objects of no use here, by `apiVersion/kind`.
    pub skipped: BTreeMap<String, u64>,
    /// Number of routes in force.
    pub routes: usize,
    /// When the table last changed.
    #[serde(serialize_with = "unix_seconds")]
    pub changed: Option<SystemTime>,
}

fn unix_seconds<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map(|since| since.as_secs()).serialize(serializer)
}

/// Where the objects come from and whether that source answers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceStatus {
    /// `folder` or `cluster`.
    pub kind: &'static str,
    /// As the controller says it.
    pub state: serde_json::Value,
}

/// One bound listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// `http`, `https` or `admin`.
    pub listener: &'static str,
    /// The address it is bound to; for a virtual IP, the address that clients use.
    pub address: SocketAddr,
}

/// How connections reach the workers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DataPlaneStatus {
    /// `xdp-native`, `xdp-generic` or `sockets`.
    pub mode: &'static str,
    /// Why this is not the mode that was asked for.
    pub degraded: Option<String>,
}
