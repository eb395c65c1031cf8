//! An API server as a source: one watch per kind, restarted for ever.
//!
//! A list is passed on only when it is complete, so a restart takes nothing away that still exists.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    config::{Config, KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};
use tokio::{
    sync::{mpsc, watch as channel},
    time::{sleep, timeout},
};

use super::super::{
    index::Event,
    kept::Change,
    kind::{self, Kind, Visitor},
    source::{AgentError, SourceState},
};
use ingress_model::ObjectName;

/// An address that does not answer is given up after this long.
const CONNECT: Duration = Duration::from_secs(3);
/// After the first failed try. Doubled by each further one, and varied by half so that nodes do not
/// come back in step.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A pause grows no longer than this.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A watch that failed and then says nothing for this long works again: the next failure would have
/// come within `CONNECT` and one and a half times `LAST_PAUSE`.
const RECOVERED: Duration = Duration::from_secs(7);

/// Starts to follow the API server.
///
/// # Errors
/// There is no usable configuration. A server that cannot be reached is no error: it is waited for.
pub(crate) async fn start(
    kubeconfig: Option<PathBuf>,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceState>,
) -> Result<(), AgentError> {
    let mut config = configuration(kubeconfig).await?;
    config.connect_timeout = Some(CONNECT);
    let client = Client::try_from(config).map_err(|error| AgentError::Client {
        reason: error.to_string(),
    })?;
    let health = Arc::new(Health {
        kinds: Mutex::default(),
        state,
    });
    kind::visit_all(&mut Watch {
        client,
        events,
        health,
    });
    Ok(())
}

async fn configuration(kubeconfig: Option<PathBuf>) -> Result<Config, AgentError> {
    // The lines after the first quote the file, tokens and all.
    let refuse = |text: String| AgentError::Configuration {
        reason: text.lines().next().unwrap_or_default().to_owned(),
    };
    let Some(path) = kubeconfig else {
        return Config::infer()
            .await
            .map_err(|error| refuse(error.to_string()));
    };
    if let Err(source) = fs::File::open(&path) {
        return Err(AgentError::Kubeconfig { path, source });
    }
    let read = Kubeconfig::read_from(&path).map_err(|error| refuse(error.to_string()))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(read, &options)
        .await
        .map_err(|error| refuse(error.to_string()))
}

/// What the watches of all kinds share.
struct Watch {
    client: Client,
    events: mpsc::Sender<Event>,
    health: Arc<Health>,
}

impl Visitor for Watch {
    fn visit<K: Kind>(&mut self) {
        let kind = K::kind(&()).into_owned();
        self.health.set(&kind, Condition::Listing);
        let config = watcher::Config {
            field_selector: K::SELECTOR.map(str::to_owned),
            ..watcher::Config::default()
        };
        let stream = watcher::watcher(Api::<K>::all(self.client.clone()), config);
        let health = Arc::clone(&self.health);
        tokio::spawn(follow(kind, stream, self.events.clone(), health));
    }
}

async fn follow<K: Kind>(
    kind: String,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    events: mpsc::Sender<Event>,
    health: Arc<Health>,
) {
    let mut stream = pin!(stream);
    let mut list = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let next = tokio::select! {
            next = timeout(RECOVERED, stream.next()) => next,
            () = events.closed() => return,
        };
        let change = match next {
            Ok(Some(Ok(said))) => assemble(said, &mut list),
            Ok(Some(Err(error))) => {
                health.set(
                    &kind,
                    Condition::Failing(format!("watch {kind}: {}", causes(&error))),
                );
                sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                pause = (pause * 2).min(LAST_PAUSE);
                continue;
            }
            Ok(None) => return,
            // No news, which is good news, unless the list is not there yet.
            Err(_) => {
                health.recover(&kind);
                pause = FIRST_PAUSE;
                continue;
            }
        };
        let Some(change) = change else { continue };
        // In this order: whoever sees the state also sees what it is about.
        if events
            .send(Event::Changed(K::changed(change)))
            .await
            .is_err()
        {
            return;
        }
        health.set(&kind, Condition::Fine);
        pause = FIRST_PAUSE;
    }
}

/// Gathers a list until it is complete; passes single changes on.
fn assemble<K: Resource>(
    event: watcher::Event<K>,
    list: &mut Vec<(ObjectName, K)>,
) -> Option<Change<K>> {
    match event.modify(strip) {
        // Said before the server is asked; a list that broke off is forgotten here.
        watcher::Event::Init => {
            list.clear();
            None
        }
        watcher::Event::InitApply(object) => {
            list.push((name(&object), object));
            None
        }
        watcher::Event::InitDone => Some(Change::Listed(std::mem::take(list))),
        watcher::Event::Apply(object) => Some(Change::Applied(name(&object), Box::new(object))),
        watcher::Event::Delete(object) => Some(Change::Deleted(name(&object))),
    }
}

fn name<K: Resource>(object: &K) -> ObjectName {
    ObjectName::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// Frees what is never read; it can be most of an object.
fn strip<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// The error and its causes; kube's own errors print some of them themselves.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// How one kind's watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// The first list is not complete.
    Listing,
    /// Changes are seen.
    Fine,
    /// The last try failed; the reason.
    Failing(String),
}

/// The state of the source: as good as its worst watch.
struct Health {
    kinds: Mutex<BTreeMap<String, (Condition, bool)>>,
    state: channel::Sender<SourceState>,
}

impl Health {
    fn set(&self, kind: &str, condition: Condition) {
        // A panic elsewhere leaves the map whole: each entry is written in one step.
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let listed =
            condition == Condition::Fine || kinds.get(kind).is_some_and(|(_, listed)| *listed);
        kinds.insert(kind.to_owned(), (condition, listed));
        let failing = kinds.values().find_map(|(condition, _)| match condition {
            Condition::Failing(reason) => Some(reason.clone()),
            Condition::Listing | Condition::Fine => None,
        });
        let now = match failing {
            Some(reason) => SourceState::Degraded { reason },
            None if kinds.values().all(|(_, listed)| *listed) => SourceState::InSync,
            None => SourceState::Starting,
        };
        now.show(&self.state, "API server");
    }

    /// Notes that a watch which was failing has not failed for a while.
    fn recover(&self, kind: &str) {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let recovered = kinds
            .get(kind)
            .is_some_and(|(condition, listed)| *condition != Condition::Fine && *listed);
        drop(kinds);
        if recovered {
            self.set(kind, Condition::Fine);
        }
    }
}

#[cfg(test)]
mod tests;
