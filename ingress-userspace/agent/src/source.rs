//! Where the objects come from, and whether that source is in sync.

use std::{io, path::PathBuf};

use serde::Serialize;
use tokio::sync::watch;

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
    /// The last snapshot stays in force; changes may be missed.
    Degraded {
        /// One line: what failed.
        reason: String,
    },
}

impl SourceState {
    /// Tells whoever looks at `shown`; logs when the source is lost and when it is found again, but
    /// not each reason on the way.
    pub(super) fn show(self, shown: &watch::Sender<Self>, source: &'static str) {
        shown.send_if_modified(|before| {
            if *before == self {
                return false;
            }
            match (&*before, &self) {
                (Self::Degraded { .. }, Self::Degraded { .. }) | (_, Self::Starting) => {}
                (_, Self::Degraded { reason }) => {
                    tracing::warn!(source, reason, "cannot watch the source");
                }
                (_, Self::InSync) => tracing::info!(source, "source is in sync"),
            }
            *before = self;
            true
        });
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
