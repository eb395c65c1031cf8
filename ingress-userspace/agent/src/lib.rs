//! EVENT: turns the objects of a cluster, or of a folder of manifests, into snapshots.
//!
//! `watch` → `index` (`kind`, `kept`) → `annotation`, `translate` → `publish`; [`kernel`] loads the
//! BPF programs and updates their maps. This package never reads bytes from clients.

pub mod kernel;

mod watch;

mod index;
mod kept;
mod kind;

mod annotation;
mod translate;

mod publish;

mod settings;
mod source;

use std::sync::Arc;

use tokio::sync::{mpsc, watch as channel};

use ingress_model::Snapshot;
pub use settings::Settings;
pub use source::{AgentError, Condition, Source, SourceState, SourceStatus, WatchStatus};

/// The agent's output; dropping it stops the agent.
#[derive(Clone, Debug)]
pub struct Feed {
    /// `None` until the first lists are complete; then always a complete state.
    pub snapshots: channel::Receiver<Option<Arc<Snapshot>>>,
    /// Whether the source is in sync, and how each watch is doing.
    pub state: channel::Receiver<SourceStatus>,
}

/// Starts watching `source`; its tasks run in the caller's tokio runtime until the feed is dropped.
///
/// # Errors
/// The source is unusable. Later failures appear in the feed's state.
pub async fn start(source: Source, settings: Settings) -> Result<Feed, AgentError> {
    let (events, inbox) = mpsc::channel(256);
    let (state, state_feed) = channel::channel(SourceStatus::starting());
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
