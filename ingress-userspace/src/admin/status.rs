//! `/status`: what is in force, what is degraded, and which objects have problems.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use serde::{Serialize, Serializer};

use ingress_agent::{Report, kernel::Announced};
use ingress_model::{Problem, Transport};

use super::readiness::Readiness;
use crate::{confine::Confinement, sockets::Steering};

/// Everything `/status` shows. Written by `run` at each change.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// Version of the binary.
    pub(crate) version: &'static str,
    /// Name of this node, where one was given.
    pub(crate) node: Option<String>,
    /// Where the objects come from.
    pub(crate) source: SourceStatus,
    /// In an agent whose proxy is another process: how that one is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<&'static str>,
    /// In a proxy that is a process of its own: what it has given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confinement: Option<Confinement>,
    /// The bound listeners.
    pub(crate) listeners: Vec<ListenerStatus>,
    /// How connections reach the workers.
    pub(crate) data_plane: DataPlaneStatus,
    /// Number of routes in force.
    pub(crate) routes: usize,
    /// Those of them that answer 503, because they ask for protection that cannot be given.
    pub(crate) denied_routes: usize,
    /// When the certificate of each Secret expires, in seconds since the Unix epoch.
    pub(crate) certificates: BTreeMap<String, i64>,
    /// When the table last changed.
    #[serde(serialize_with = "unix_seconds")]
    pub(crate) changed: Option<SystemTime>,
}

/// The answer to `/status`.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    ready: bool,
    /// Why not.
    not_ready: Option<String>,
    #[serde(flatten)]
    status: &'a Status,
    /// What is wrong with which object.
    problems: Vec<Problem>,
    /// Objects of kinds that Forebay does not read, by `apiVersion/kind`.
    skipped: BTreeMap<String, u64>,
}

impl Status {
    pub(super) fn shown(&self, readiness: &Readiness, report: &Report) -> Shown<'_> {
        Shown {
            ready: readiness.is_ready(),
            not_ready: readiness.reason(),
            status: self,
            problems: report.problems(),
            skipped: report.skipped(),
        }
    }
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
pub(crate) struct SourceStatus {
    /// `folder`, `cluster` or, of a proxy, `agent`.
    pub(crate) kind: &'static str,
    /// As the agent says it.
    pub(crate) state: serde_json::Value,
}

/// One bound listener.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ListenerStatus {
    /// `http`, `https` or `metrics`.
    pub(crate) listener: &'static str,
    /// The address it is bound to; for a virtual IP, the address that clients use.
    pub(crate) address: SocketAddr,
}

impl ListenerStatus {
    /// A listener for clients.
    pub(crate) fn of((transport, address): (Transport, SocketAddr)) -> Self {
        let listener = match transport {
            Transport::Plain => "http",
            Transport::Tls => "https",
        };
        Self { listener, address }
    }
}

/// How connections reach the workers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct DataPlaneStatus {
    /// `xdp-native`, `xdp-generic` or `sockets`.
    pub(crate) mode: String,
    /// Why this is not the mode that was asked for.
    pub(crate) degraded: Option<String>,
    /// Who announces which virtual IP, where nodes do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) announced: Vec<AnnouncedStatus>,
}

/// Who announces a virtual IP.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AnnouncedStatus {
    /// The virtual IP.
    pub(crate) vip: IpAddr,
    /// Name of the node.
    pub(crate) node: String,
    /// Whether it is this node.
    pub(crate) here: bool,
}

impl DataPlaneStatus {
    /// As the data plane says it.
    pub(crate) fn of(steering: Steering) -> Self {
        let announced = steering.announced.into_iter();
        let announced = announced.map(|Announced { vip, node, is_here }| AnnouncedStatus {
            vip,
            node,
            here: is_here,
        });
        Self {
            mode: steering.mode,
            degraded: steering.degraded,
            announced: announced.collect(),
        }
    }
}
