//! An API server as a source: one watch per kind, restarted for ever.
//!
//! `pace`, `failure`, `server`, `health` → `follow`.

mod failure;
mod pace;
mod server;

mod health;

mod follow;

use std::{fs, path::PathBuf, time::Duration};

use kube::{
    Api, Client,
    config::{Config, KubeConfigOptions, Kubeconfig},
};
use tokio::sync::{mpsc, watch as channel};

use super::super::{
    index::Event,
    kind::{self, Kind, Visitor},
    source::{AgentError, SourceStatus},
};
use follow::follow;
use health::Health;

/// An address that does not answer is given up after this long.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that brings nothing for this long is closed; longer than any watch lasts.
const SILENT: Duration = Duration::from_secs(60);

/// Starts to follow the API server.
///
/// # Errors
/// There is no usable configuration. A server that cannot be reached is no error: it is waited for.
pub(crate) async fn start(
    kubeconfig: Option<PathBuf>,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
) -> Result<(), AgentError> {
    let mut config = configuration(kubeconfig).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENT);
    config.write_timeout = Some(pace::ANSWER);
    // It would try for minutes and say nothing; `follow` tries again itself.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| AgentError::Client {
        reason: error.to_string(),
    })?;
    kind::visit_all(&mut Watch {
        client,
        events,
        state,
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

/// Starts the watch of each kind.
struct Watch {
    client: Client,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
}

impl Visitor for Watch {
    fn visit<K: Kind>(&mut self) {
        let health = Health::new(K::kind(&()).into_owned(), self.state.clone());
        let api = Api::<K>::all(self.client.clone());
        tokio::spawn(follow(api, self.events.clone(), health));
    }
}

#[cfg(test)]
mod tests;
