//! EVENT: turns what a cluster, or a folder of manifests, says into snapshots.
//!
//! `watch` → `index` (`kind`, `kept`) → `annotation`, `translate` → `publish`; [`kernel`] loads the BPF programs and
//! keeps their maps. This package never reads a client's byte.

pub mod kernel;

mod watch;

mod index;
mod kept;
mod kind;

mod annotation;
mod translate;

mod publish;

use std::{io, path::PathBuf, sync::Arc};

use serde::Serialize;
use tokio::sync::{mpsc, watch as channel};

use ingress_model::Snapshot;

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

/// Which Ingresses are served and what their endpoints may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names of `--ingress-class`: of an IngressClass, or in `kubernetes.io/ingress.class`.
    pub classes: Vec<String>,
    /// Serve an Ingress that names no class at all.
    pub watch_without_class: bool,
    /// Accept loopback and link-local endpoints; meant for a folder, never for a shared cluster.
    pub allow_loopback_endpoints: bool,
}

/// How well the source is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SourceState {
    /// The first lists are not complete.
    Starting,
    /// Every change is seen.
    InSync,
    /// The last snapshot stays in force, changes may be missed for now.
    Degraded {
        /// One line: what failed.
        reason: String,
    },
}

/// What the controller gives to the rest of the process; dropping it ends the controller.
#[derive(Clone, Debug)]
pub struct Feed {
    /// `None` until the first lists are complete; afterwards always a whole state.
    pub snapshots: channel::Receiver<Option<Arc<Snapshot>>>,
    /// How well the source is followed.
    pub state: channel::Receiver<SourceState>,
}

/// The source cannot be used at all; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
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
    /// The kubeconfig, or what stands in its place in a pod, does not say how to reach the cluster.
    #[error(
        "no usable configuration of a cluster: {reason}; give --kubeconfig FILE, or --manifests DIR for a folder"
    )]
    Configuration {
        /// The client's own words; they name all causes.
        reason: String,
    },
    /// The credentials or certificates of the configuration are unusable.
    #[error("no client for the API server: {reason}")]
    Client {
        /// The client's own words; they name all causes.
        reason: String,
    },
}

/// Starts to follow `source`; its tasks run in the caller's tokio runtime until the feed is
/// dropped.
///
/// # Errors
/// The source cannot be used at all. A source that fails later is a state of the feed.
pub async fn start(source: Source, settings: Settings) -> Result<Feed, AgentError> {
    let (events, inbox) = mpsc::channel(256);
    let (state, state_feed) = channel::channel(SourceState::Starting);
    match source {
        Source::Folder(path) => watch::folder::start(path, events, state)?,
        Source::Cluster { kubeconfig } => watch::cluster::start(kubeconfig, events, state).await?,
    }
    let (snapshots, snapshot_feed) = channel::channel(None);
    tokio::spawn(publish::run(inbox, settings, snapshots));
    Ok(Feed {
        snapshots: snapshot_feed,
        state: state_feed,
    })
}

/// What a folder with one file of that text comes to: the way of a fuzz target to the parsers of
/// manifests.
#[cfg(fuzzing)]
pub fn snapshot_of(text: &str) -> Snapshot {
    let settings = Settings {
        classes: Vec::new(),
        watch_without_class: true,
        allow_loopback_endpoints: true,
    };
    translate::snapshot(&watch::index_of(text), &settings)
}

#[cfg(test)]
mod tests;
