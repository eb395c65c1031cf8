//! What the operator has published, as an agent hears of it.

use std::pin::pin;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{
    WatchStreamExt as _,
    watcher::{Config, Event, watcher},
};
use tokio::sync::watch;

use super::{
    cluster::{Cluster, KEY, PUBLISHED, reason},
    nodes::Membership,
};

/// Seconds after which a watch begins anew.
const WATCH: u32 = 45;

/// What is published: nothing yet, a set of nodes, or what is wrong with it.
pub type Published = Option<Result<Membership, String>>;

/// Follows what is published, without end.
///
/// What was published last stays so while the API server is away, and where the object is deleted.
pub async fn follow(cluster: Cluster, published: watch::Sender<Published>) {
    let fields = format!("metadata.name={PUBLISHED}");
    // Shorter than a connection may be silent.
    let config = Config::default().fields(&fields).timeout(WATCH);
    let mut events = pin!(watcher(cluster.published(), config).default_backoff());
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => object,
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {
                is_failing = false;
                continue;
            }
            Err(error) => {
                // It is tried again and again.
                if !is_failing {
                    let error = reason_of(error);
                    tracing::warn!(error, "cannot follow the set of nodes: {PUBLISHED}");
                }
                is_failing = true;
                continue;
            }
        };
        is_failing = false;
        published.send_replace(Some(read(&object)));
    }
}

fn reason_of(error: kube::runtime::watcher::Error) -> String {
    use kube::runtime::watcher::Error;
    match error {
        Error::InitialListFailed(source)
        | Error::WatchStartFailed(source)
        | Error::WatchFailed(source) => reason(&source),
        other => other.to_string(),
    }
}

/// The set that an object says.
///
/// # Errors
/// A line for a person, which names object and field.
pub(super) fn read(object: &ConfigMap) -> Result<Membership, String> {
    let text = object.data.as_ref().and_then(|data| data.get(KEY));
    let text = text.ok_or_else(|| format!("ConfigMap {PUBLISHED}: it has no key {KEY}"))?;
    Membership::read(text).map_err(|error| format!("ConfigMap {PUBLISHED}: {KEY}: {error}"))
}
