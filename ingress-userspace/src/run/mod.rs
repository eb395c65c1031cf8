//! The composition root: the only module that sees every other.
//!
//! `run` puts everything into one process: flags → `data_plane` (sockets, XDP) → agent → `serve`
//! (`publish`, workers), until SIGTERM. `agent` and `proxy` are its two halves as processes, joined by
//! the link.

mod agent;
mod proxy;

mod serve;

mod admin;
mod data_plane;
mod handover;
mod listener;
mod nodes;
mod nodes_file;
mod operator;
mod publish;
mod signals;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::oneshot;

use self::{
    admin::Admin,
    data_plane::DataPlane,
    listener::Role,
    serve::{Feed, Setup},
    signals::Signals,
};
pub(crate) use self::{agent::agent, operator::operator, proxy::proxy};
use ingress_agent::AgentError;
use ingress_proxy::metrics::Registry;

use crate::{
    config::{ADMIN_SOCKET, ConfigError, METRICS_PORT, ProcessArgs, RunConfig},
    link::LastGoodError,
    log,
    socket_file::SocketError,
};

/// What the operator asked for cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// Another process has the port, or this one may not have it.
    #[error("cannot listen on {address}; choose another with {role}")]
    Listen {
        /// The flag to change.
        role: Role,
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The admin socket or that of the link cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No state can be kept in the folder that was given.
    #[error(transparent)]
    LastGood(#[from] LastGoodError),
    /// Flags that do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder or the kubeconfig cannot be used.
    #[error(transparent)]
    Source(#[from] AgentError),
}

/// Runs everything in one process until SIGTERM or SIGINT.
///
/// # Errors
/// A flag, an address or a source cannot be used ([`UsageError`]), or the process lacks something
/// without which nothing can be served.
pub(crate) fn run(config: &RunConfig) -> anyhow::Result<()> {
    control(&config.process, both(config))
}

/// Runs the control thread of a process: everything but the workers and the agent.
fn control(
    config: &ProcessArgs,
    process: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    log::start(config.log_format);
    listener::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(process)
}

/// Agent and proxy, joined by channels.
async fn both(config: &RunConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let workers = serve::workers(&config.serve);
    let metrics = Arc::new(Registry::new(workers));
    let is_folder = config.source.is_folder();
    let admin = Admin::bind(
        &config.admin,
        ADMIN_SOCKET,
        config.metrics.address(is_folder, METRICS_PORT),
        !is_folder,
    )?;
    let node_name = config.process.node_name.as_deref();
    let kubeconfig = config.source.kubeconfig.as_deref();
    let starting = DataPlane::start(&config.data_plane, node_name, kubeconfig, &metrics);
    let mut data_plane = tokio::select! {
        started = starting => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the nodes were known");
            return Ok(());
        }
    };
    data_plane.bind(&config.listen, workers, Vec::new()).await?;
    let (source, settings) = config
        .source
        .of_agent(config.listen.of_clients(&config.data_plane.vip));
    let feed = ingress_agent::start(source, settings)
        .await
        .map_err(UsageError::from)?;
    let (give, sockets) = oneshot::channel();
    // Its receiver is right here.
    let _ = give.send(data_plane.sockets()?);
    let feed = Feed {
        kind: config.source.kind(),
        updates: feed.updates,
        resync: feed.resync,
        adopted: None,
        state: feed.state,
        report: Some(feed.report),
        sockets,
        steering: Some(data_plane.steering_changes()),
    };
    let setup = Setup {
        config: &config.serve,
        process: &config.process,
        workers,
        confinement: None,
    };
    serve::serve(setup, signals, metrics, admin, feed, data_plane).await
}
