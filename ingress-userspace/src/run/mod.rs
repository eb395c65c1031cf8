//! The composition root: the only module that sees every other.
//!
//! flags → `data_plane` (listeners, XDP) → controller → `publish` (first table) → workers → ready →
//! changes, until SIGTERM.

mod data_plane;
mod handover;
mod listener;
mod publish;
mod signals;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    sync::{Barrier, mpsc, oneshot, watch},
    task::JoinSet,
};

use self::{
    data_plane::DataPlane,
    listener::{Address, Role},
    publish::Publisher,
    signals::Signals,
};
use ingress_agent::{self as agent, AgentError, Feed, Source};
use ingress_proxy::{
    metrics::Registry,
    table::Site,
    tls,
    worker::{self, Inputs, Listener, Shutdown},
};

use crate::{
    admin::{self, AdminSocket, ListenerStatus, Readiness, SocketError, Status},
    config::{ConfigError, RunConfig},
    log,
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
    /// The admin socket cannot be had.
    #[error(transparent)]
    AdminSocket(#[from] SocketError),
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
    log::start(config.log_format);
    listener::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(control(config))
}

/// The control thread: everything but the workers.
async fn control(config: &RunConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let workers = config.workers.map_or_else(cores, usize::from);
    let metrics = Arc::new(Registry::new(workers));

    let (admin_socket, admin_listener) =
        AdminSocket::bind(&config.admin.path()).map_err(UsageError::from)?;
    let metrics_listener = bind_metrics(config)?;
    let mut data_plane = DataPlane::start(config, workers, &metrics).await?;
    let mut listeners = data_plane.addresses();
    if let Some(listener) = &metrics_listener {
        listeners.push(Address {
            role: Role::Metrics,
            address: listener.local_addr()?,
        });
    }

    let feed = follow_source(config).await.map_err(UsageError::from)?;
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        node: config.node_name.clone(),
        listeners: listeners
            .iter()
            .map(|l| ListenerStatus {
                listener: l.role.name(),
                address: l.address,
            })
            .collect(),
        data_plane: data_plane.status(),
        ..Status::default()
    };
    let resolver = tls::Resolver::new()?;
    let site = Site::new(Arc::clone(&resolver), Arc::clone(&metrics));
    let tables = site.tables();
    let (status, shown_status) = watch::channel(Arc::new(status));
    let kind = if config.manifests.is_some() {
        "folder"
    } else {
        "cluster"
    };
    tokio::spawn(publish::follow_state(
        feed.state.clone(),
        kind,
        status.clone(),
    ));
    let publisher = Publisher::new(site, feed.updates, feed.resync, status);
    let (readiness, is_ready) = watch::channel(Readiness::Starting);
    publish::expose(
        &metrics,
        shown_status.clone(),
        is_ready.clone(),
        feed.report.clone(),
        publisher.counts(),
        feed.state,
    );
    let state = admin::State {
        readiness: is_ready,
        tables: tables.clone(),
        status: shown_status,
        report: feed.report,
        metrics: Arc::clone(&metrics),
    };
    tokio::spawn(admin::serve(
        tokio::net::UnixListener::from_std(admin_listener)?,
        state.clone(),
    ));
    for listener in &listeners {
        tracing::info!(listener = listener.role.name(), address = %listener.address, "listening");
    }
    tracing::info!(listener = "admin", path = %admin_socket.path().display(), "listening");

    let tls = tls::server_config(resolver)?;
    let (first_table, is_first) = oneshot::channel();
    let (alive, agent) = oneshot::channel();
    publisher
        .start(first_table, alive)
        .context("cannot start the thread of the table")?;
    tokio::select! {
        first = is_first => first.context("the agent stopped before the first table")?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the first table");
            return Ok(());
        }
    }

    let (shutdown, shutting_down) = watch::channel(Shutdown::NotYet);
    let settings = Arc::new(worker::Settings {
        shutdown_grace: config.shutdown_grace,
        lame_duck: config.lame_duck,
        hsts: config.hsts,
        trace_node: config
            .trace_responses
            .then(|| config.node_name.as_deref().unwrap_or("-").into()),
        ..worker::Settings::default()
    });
    let idle = Arc::new(Barrier::new(workers));
    let (end, ended) = mpsc::unbounded_channel();
    let mut essential = Essential {
        workers: ended,
        agent,
    };
    let threads = spawn_workers(
        data_plane.take_listeners().context("cannot listen")?,
        |metrics| Inputs {
            tables: tables.clone(),
            tls: Arc::clone(&tls),
            metrics,
            shutdown: shutting_down.clone(),
            idle: Arc::clone(&idle),
            settings: Arc::clone(&settings),
        },
        &metrics,
        &end,
    )?;
    data_plane.serve()?;
    let mut scrapes = serve_metrics(metrics_listener, state)?;
    let routes = tables.borrow().rules();
    match data_plane.refusal() {
        None => {
            readiness.send_replace(Readiness::Ready);
            tracing::info!(workers, routes, "ready");
        }
        Some(reason) => {
            readiness.send_replace(Readiness::Refused(reason.to_owned()));
            tracing::error!(
                workers,
                routes,
                "not ready: serving without the virtual IPs"
            );
        }
    }

    let served = serve_until(signals.next(), &data_plane, &mut essential).await;
    let signal = served?.unwrap_or("none: the neighbour watcher stopped");
    readiness.send_replace(Readiness::ShuttingDown);
    if !config.shutdown_delay.is_zero() {
        tracing::info!(signal, delay = ?config.shutdown_delay, "not ready; serving until the delay ends");
        let end = async {
            tokio::select! {
                () = tokio::time::sleep(config.shutdown_delay) => {}
                signal = signals.next() => tracing::warn!(signal, "second signal: ending the delay"),
            }
        };
        serve_until(end, &data_plane, &mut essential).await?;
    }
    if shares_metrics(config) {
        // Whoever takes over answers now; this one's counters would look like a reset.
        scrapes.abort_all();
    }
    let replaced = data_plane.is_replaced();
    tracing::info!(signal, grace = ?config.shutdown_grace, replaced, "shutting down: finishing requests in flight");
    shutdown.send_replace(if replaced {
        Shutdown::Replaced
    } else {
        Shutdown::Alone
    });
    let close_doors = async {
        tokio::time::sleep(config.lame_duck).await;
        data_plane.close_doors();
        std::future::pending().await
    };
    tokio::select! {
        () = join(threads, config.shutdown_grace, &mut signals) => {}
        () = close_doors => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// In a cluster the pod that takes over stands beside the one it replaces, in the node's network:
/// both need the port. Elsewhere a second process on it is a mistake.
fn shares_metrics(config: &RunConfig) -> bool {
    config.manifests.is_none()
}

fn bind_metrics(config: &RunConfig) -> Result<Option<std::net::TcpListener>, UsageError> {
    let Some(address) = config.metrics_address() else {
        return Ok(None);
    };
    let listener = if shares_metrics(config) {
        listener::bind_joined(Role::Metrics, address)
    } else {
        listener::bind(Role::Metrics, address)
    };
    listener.map(Some)
}

/// Answers scrapes from now on, and not before: until then, the port may be a predecessor's, and
/// half of its scrapes would come here.
fn serve_metrics(
    listener: Option<std::net::TcpListener>,
    state: admin::State,
) -> anyhow::Result<JoinSet<()>> {
    let mut scrapes = JoinSet::new();
    if let Some(listener) = listener {
        listener::listen(&listener).context("cannot listen for scrapes of the metrics")?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        scrapes.spawn(admin::serve_metrics(listener, state));
    }
    Ok(scrapes)
}

/// What must not end before the process does.
struct Essential {
    /// Says which worker has ended.
    workers: mpsc::UnboundedReceiver<usize>,
    /// Closed when the agent has ended, or the thread that follows it.
    agent: oneshot::Receiver<()>,
}

/// Lets the workers serve until `end`, whose result it gives; `None` where nothing keeps the
/// kernel's maps in step any more.
///
/// # Errors
/// A worker stopped: fewer would serve their connections late or never. Or the agent did: the table
/// would grow stale, ready as ever. Start again instead.
async fn serve_until<T>(
    end: impl Future<Output = T>,
    data_plane: &DataPlane,
    essential: &mut Essential,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        () = data_plane.follow() => Ok(None),
        end = end => Ok(Some(end)),
        Some(worker) = essential.workers.recv() => bail!("worker {worker} stopped; see the log"),
        _ = &mut essential.agent => bail!("the agent stopped; see the log"),
    }
}

async fn follow_source(config: &RunConfig) -> Result<Feed, AgentError> {
    let folder = config.manifests.clone();
    let settings = agent::Settings {
        classes: config.ingress_class.clone(),
        controllers: config.controller_class.clone(),
        annotations_prefix: config.annotations_prefix.clone(),
        configmap: config.configmap.clone(),
        default_certificate: config.default_ssl_certificate.clone(),
        watch_without_class: config
            .watch_ingress_without_class
            .unwrap_or(folder.is_some()),
        allow_loopback_endpoints: folder.is_some(),
    };
    let source = folder.map_or_else(
        || Source::Cluster {
            kubeconfig: config.kubeconfig.clone(),
        },
        Source::Folder,
    );
    agent::start(source, settings).await
}

/// One thread for each set of listeners.
fn spawn_workers(
    listeners: Vec<Vec<Listener>>,
    inputs: impl Fn(Arc<ingress_proxy::metrics::WorkerMetrics>) -> Inputs,
    metrics: &Registry,
    end: &mpsc::UnboundedSender<usize>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let spawn =
        |(id, listeners)| worker::spawn(id, listeners, inputs(metrics.worker()), end.clone());
    listeners
        .into_iter()
        .enumerate()
        .map(spawn)
        .collect::<Result<_, _>>()
        .context("cannot start a worker thread")
}

/// Waits for the workers: they end when their last request does, or at the end of the grace.
///
/// A second signal ends the wait.
async fn join(threads: Vec<JoinHandle<()>>, grace: Duration, signals: &mut Signals) {
    let joined = tokio::task::spawn_blocking(move || {
        threads
            .into_iter()
            .map(JoinHandle::join)
            .filter(Result::is_err)
            .count()
    });
    tokio::select! {
        panicked = joined => {
            if let Ok(1..) = panicked {
                tracing::error!("a worker thread panicked");
            }
        }
        // The workers keep the time; this is for one that cannot.
        () = tokio::time::sleep(grace + Duration::from_secs(2)) => {
            tracing::error!("a worker did not stop within the shutdown grace");
            std::process::exit(1);
        }
        signal = signals.next() => {
            tracing::warn!(signal, "second signal: aborting requests in flight");
            std::process::exit(1);
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
