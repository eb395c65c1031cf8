//! What the operator has published, as an agent hears of it.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{
    WatchStreamExt as _,
    utils::Backoff,
    watcher::{Config, Event, watcher},
};
use tokio::sync::watch;

use super::{
    cluster::{Cluster, KEY, PUBLISHED, reason},
    nodes::Membership,
};

/// Seconds after which a watch begins anew.
const WATCH: u32 = 45;

/// Longest pause between two tries: once the API server is back, this node is heard, and fenced where it does
/// not follow.
const PAUSE: Duration = Duration::from_secs(4);

/// What is published: nothing yet, a set of nodes, or what is wrong with it.
pub type Published = Option<Result<Membership, String>>;

/// Follows what is published, without end.
///
/// What was published last stays so while the API server is away, and where the object is deleted.
pub async fn follow(cluster: Cluster, published: watch::Sender<Published>) {
    let fields = format!("metadata.name={PUBLISHED}");
    // Shorter than a connection may be silent.
    let config = Config::default().fields(&fields).timeout(WATCH);
    let mut events = pin!(watcher(cluster.published(), config).backoff(Pauses::default()));
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => object,
            // It is about to ask: that comes before each failure, too.
            Ok(Event::Init) => continue,
            Ok(Event::InitDone | Event::Delete(_)) => {
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

/// The pauses after failures: each twice as long as the one before, without end.
#[derive(Default)]
struct Pauses {
    last: Duration,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.last = (self.last * 2).clamp(PAUSE / 2, PAUSE);
        // Not all nodes at once.
        Some(self.last.mul_f64(fastrand::f64().mul_add(0.5, 0.5)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.last = Duration::ZERO;
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

#[cfg(test)]
mod tests {
    use super::{super::plan::FENCE, *};

    #[test]
    fn a_node_tries_to_follow_without_end_and_long_before_it_is_fenced() {
        let pauses: Vec<_> = Pauses::default().take(10_000).collect();
        assert_eq!(pauses.len(), 10_000);
        assert!(pauses.iter().all(|pause| *pause < FENCE / 2));
    }
}
