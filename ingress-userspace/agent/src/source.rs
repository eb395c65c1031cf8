//! Where the objects come from, and whether that source is in sync.

use std::{
    io,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

/// Where the objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Every `*.yaml`, `*.yml` and `*.json` below a folder.
    Folder(PathBuf),
    /// An API server.
    Cluster {
        /// A kubeconfig; without one, `KUBECONFIG`, `~/.kube/config`, or the pod's ServiceAccount.
        kubeconfig: Option<PathBuf>,
    },
}

/// Whether the source is in sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SourceState {
    /// The first lists are incomplete.
    Starting,
    /// Changes arrive.
    InSync,
    /// The last state stays in force; changes may be missed.
    Degraded {
        /// One line: what failed.
        reason: String,
    },
}

/// The state of the source, and how each kind's watch is doing.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// As good as the worst watch.
    #[serde(flatten)]
    pub state: SourceState,
    /// One per kind that is watched at an API server, and one for all Secrets that are followed by
    /// name while there are any; empty for a folder.
    pub kinds: Vec<WatchStatus>,
}

/// How the watch of one kind is doing.
#[derive(Clone, Debug, Serialize)]
pub struct WatchStatus {
    /// Such as `Ingress`.
    pub kind: String,
    /// What it does now.
    #[serde(flatten)]
    pub condition: Condition,
    /// Whether its list was complete once.
    pub listed: bool,
    /// When the server last said something about this kind. Always current in the value of the
    /// channel; receivers are woken when a list or a watch is answered, not for each change.
    #[serde(serialize_with = "unix_seconds")]
    pub last_heard: Option<SystemTime>,
    /// How often it had to be started again after a failure.
    pub restarts: u64,
    /// How often an object was left out that cannot be read, not even its name.
    pub unnamed: u64,
}

/// What the watch of one kind does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum Condition {
    /// The first list is not complete.
    Listing,
    /// Changes are seen.
    Fine,
    /// The last try failed; the next one follows by itself.
    Failing {
        /// One line: what failed and, where a person must act, what to do.
        reason: String,
    },
}

fn unix_seconds<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_secs())
        .serialize(serializer)
}

impl SourceStatus {
    /// Before anything is known.
    pub(super) fn starting() -> Self {
        Self {
            state: SourceState::Starting,
            kinds: Vec::new(),
        }
    }

    /// Takes `now` as the state and tells whether it differs; logs when the source is lost and
    /// when it is found again, but not each reason on the way.
    pub(super) fn turn(&mut self, now: SourceState, source: &'static str) -> bool {
        if self.state == now {
            return false;
        }
        match (&self.state, &now) {
            (SourceState::Degraded { .. }, SourceState::Degraded { .. })
            | (_, SourceState::Starting) => {}
            (_, SourceState::Degraded { reason }) => {
                tracing::warn!(source, reason, "cannot watch the source");
            }
            (_, SourceState::InSync) => tracing::info!(source, "source is in sync"),
        }
        self.state = now;
        true
    }
}

/// The source cannot be used at all; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent's thread or its runtime cannot be made.
    #[error("cannot start the agent's thread")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The folder of `--manifests` does not exist or may not be read.
    #[error("manifests folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kubeconfig cannot be read.
    #[error("kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a kubeconfig nor the pod's service account says how to reach the cluster.
    #[error(
        "no usable cluster configuration: {reason}; give --kubeconfig FILE, or --manifests DIR for a folder"
    )]
    Configuration {
        /// The client's message, which includes all causes.
        reason: String,
    },
    /// The credentials or certificates of the configuration are unusable.
    #[error("cannot create an API server client: {reason}")]
    Client {
        /// The client's message, which includes all causes.
        reason: String,
    },
}
