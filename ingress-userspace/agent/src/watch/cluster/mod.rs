//! An API server as a source: one watch per kind, restarted for ever; and one for each Secret that is
//! wanted by name.
//!
//! `pace`, `failure`, `server` (`lean`), `health` → `follow` → `secrets`.

mod failure;
mod lean;
mod pace;
mod server;

mod health;

mod follow;
mod secrets;

use std::{fs, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Client, Resource as _,
    config::{Config, KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use tokio::sync::{mpsc, watch as channel};

use super::super::{
    index::{Event, Wish},
    kept::Change,
    kind::{self, Kind, Visitor},
    source::{AgentError, SourceStatus},
};
use follow::follow;
use health::Health;
use ingress_model::ObjectName;
use server::Scope;

/// An address that does not answer is given up after this long.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that brings nothing for this long is closed; longer than any watch lasts.
const SILENT: Duration = Duration::from_secs(60);

/// Starts to follow the API server; of Secrets of other types than the table of kinds selects, those that
/// are `wanted`.
///
/// # Errors
/// There is no usable configuration. A server that cannot be reached is no error: it is waited for.
pub(crate) async fn start(
    kubeconfig: Option<PathBuf>,
    configmap: Option<ObjectName>,
    wanted: channel::Receiver<Wish>,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
) -> Result<(), AgentError> {
    let mut watch = Watch {
        client: client(kubeconfig).await?,
        events,
        state,
    };
    kind::visit_all(&mut watch);
    watch.configmap(configmap).await;
    let Watch {
        client,
        events,
        state,
    } = watch;
    let serve = move |name: &ObjectName| named::<Secret>(&client, name);
    tokio::spawn(secrets::follow_named(serve, wanted, events, state));
    Ok(())
}

/// A client of the API server of a kubeconfig, or without one of that of the pod's ServiceAccount.
///
/// # Errors
/// As for [`start`].
pub(crate) async fn client(kubeconfig: Option<PathBuf>) -> Result<Client, AgentError> {
    let mut config = configuration(kubeconfig).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENT);
    config.write_timeout = Some(pace::ANSWER);
    // It would try for minutes and say nothing; whoever asks tries again itself.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| AgentError::Client {
        reason: error.to_string(),
    })
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

/// Starts the watch of each kind.
struct Watch {
    client: Client,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
}

impl Watch {
    /// Follows one ConfigMap; without one, there is none to wait for.
    async fn configmap(&self, name: Option<ObjectName>) {
        let Some(name) = name else {
            let none = ConfigMap::changed(Change::Listed(Vec::new()));
            // The agent is about to stop.
            let _ = self.events.send(Event::Changed(none)).await;
            return;
        };
        self.start(named::<ConfigMap>(&self.client, &name));
    }

    fn start<K: Kind>(&self, scope: Scope<K>) {
        let health = Health::new(K::kind(&()).into_owned(), self.state.clone());
        tokio::spawn(follow(scope, self.events.clone(), health));
    }
}

/// One object.
fn named<K: Kind + kube::Resource<Scope = NamespaceResourceScope>>(
    client: &Client,
    name: &ObjectName,
) -> Scope<K> {
    let selector = format!("metadata.name={}", name.name);
    Scope::new(client.clone(), Some(&name.namespace), Some(selector))
}

impl Visitor for Watch {
    fn visit<K: Kind>(&mut self) {
        if K::kind(&()) == ConfigMap::kind(&()) {
            // Never all of them.
            return;
        }
        let selector = K::SELECTOR.map(str::to_owned);
        self.start(Scope::<K>::new(self.client.clone(), None, selector));
    }
}

#[cfg(test)]
mod tests;
