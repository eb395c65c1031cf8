//! EVENT: turns the objects of a cluster, or of a folder of manifests, into updates.
//!
//! `watch` → `index` (`kind`, `slice`, `kept`, `outline`, `shelf`) → `annotation` (`globals`), `translate` → `publish`.
//! [`membership`] says which nodes share the virtual IPs; [`kernel`] loads the BPF programs and updates their
//! maps. This package never reads bytes from clients.

pub mod kernel;

pub mod membership;

mod watch;

mod index;
mod kept;
mod kind;
mod outline;
mod shelf;
mod slice;

mod annotation;
mod globals;
mod translate;

mod publish;

mod settings;
mod source;

mod report;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch as channel};

pub use annotation::reference as annotations_page;
use ingress_model::Update;
pub use report::Report;
pub use settings::Settings;
pub use source::{AgentError, Condition, Source, SourceState, SourceStatus, WatchStatus};

/// The agent's output; dropping it stops the agent.
#[derive(Debug)]
pub struct Feed {
    /// What changed, in the order of its epochs; the first is a whole state, and none comes before
    /// the first lists are complete. Closed when the agent has ended, which it never should.
    pub updates: mpsc::Receiver<Arc<Update>>,
    /// Asks for a whole state as the next update.
    pub resync: mpsc::Sender<()>,
    /// Whether the source is in sync, and how each watch is doing.
    pub state: channel::Receiver<SourceStatus>,
    /// What is wrong with the objects.
    pub report: Report,
}

/// Starts watching `source`, on a thread of its own that ends when the feed is dropped.
///
/// # Errors
/// The source is unusable. Later failures appear in the feed's state.
pub async fn start(source: Source, settings: Settings) -> Result<Feed, AgentError> {
    let (started, result) = oneshot::channel();
    let agent = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(source) => return drop(started.send(Err(AgentError::Thread { source }))),
        };
        runtime.block_on(async {
            match begin(source, settings).await {
                // Nobody waits any more when the process is about to stop.
                Err(error) => drop(started.send(Err(error))),
                Ok((feed, publish)) => {
                    if started.send(Ok(feed)).is_ok() {
                        publish.run().await;
                    }
                }
            }
        });
        runtime.shutdown_background();
    };
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(agent)
        .map_err(|source| AgentError::Thread { source })?;
    result.await.unwrap_or_else(|_| {
        Err(AgentError::Thread {
            source: std::io::Error::other("it ended at once"),
        })
    })
}

async fn begin(
    source: Source,
    settings: Settings,
) -> Result<(Feed, publish::Publisher), AgentError> {
    let (events, inbox) = mpsc::channel(256);
    let (names, wanted) = channel::channel(watch::names::Names::new());
    tokio::spawn(watch::names::follow(wanted, events.downgrade()));
    let (state, state_feed) = channel::channel(SourceStatus::starting());
    let secrets = match source {
        Source::Folder(path) => {
            watch::folder::start(path, events, state)?;
            None
        }
        Source::Cluster { kubeconfig } => {
            let configmap = settings.configmap.clone();
            let (secrets, wanted) = channel::channel(index::Wish::new());
            watch::cluster::start(kubeconfig, configmap, wanted, events, state).await?;
            Some(secrets)
        }
    };
    let (publisher, updates, resync, report) =
        publish::Publisher::new(inbox, names, secrets, settings);
    let feed = Feed {
        updates,
        resync,
        state: state_feed,
        report,
    };
    Ok((feed, publisher))
}

/// What a folder with one file of that text comes to: the way of a fuzz target to the parsers of
/// manifests.
#[cfg(fuzzing)]
pub fn update_of(text: &str) -> Update {
    let settings = Settings {
        classes: Vec::new(),
        controllers: Vec::new(),
        annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
        configmap: None,
        default_certificate: None,
        watch_without_class: true,
        allow_loopback_endpoints: true,
        listeners: Vec::new(),
    };
    let mut index = index::Index::default();
    let keys = index.apply(index::Event::Whole(Box::new(watch::index_of(text))));
    translate::State::new(settings).apply(&index, keys)
}

#[cfg(test)]
mod tests;
