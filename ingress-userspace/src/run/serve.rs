//! The proxy's half of a process: first table, workers, readiness, end.
//!
//! The same for a process with an agent in it and for one without: what differs is where updates and
//! sockets come from, and who is told when the workers accept ([`Front`]).

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context as _, bail};
use ingress_agent::{Report, SourceStatus as Source};
use ingress_model::Update;
use ingress_proxy::{
    metrics::{Registry, WorkerMetrics},
    table::Site,
    tls,
    worker::{self, HANDSHAKE, Inputs, Listener, Shutdown},
};
use tokio::{
    sync::{Barrier, mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    admin::Admin,
    listener::{self, Role},
    publish::{self, Publisher},
    signals::Signals,
};
use crate::{
    admin::{DataPlaneStatus, ListenerStatus, Readiness, Status},
    config::{ProcessArgs, ServeArgs},
    confine::Confinement,
    sockets::{Sockets, Steering, by_worker},
};

/// What stands before the workers and brings them connections.
pub(super) trait Front {
    /// The workers accept from now on.
    ///
    /// # Errors
    /// They would get no connection.
    async fn serve(&mut self) -> anyhow::Result<()>;

    /// Why the virtual IPs that this node was asked for are not served here; `None` where all is as
    /// asked.
    fn refusal(&self) -> Option<&str>;

    /// Does what has to be done meanwhile; ends only if that cannot be done any more.
    async fn follow(&self);

    /// The process was told to end.
    fn leaving(&mut self);

    /// Whether a successor serves all that this process serves, by the same sockets.
    async fn is_replaced(&mut self) -> bool;

    /// The workers are about to accept nothing more: new connections are to try again elsewhere, or
    /// later. Whether any came here that could be led away.
    fn stop_new(&mut self) -> bool;

    /// The workers do not accept any more.
    fn close_doors(&mut self);
}

/// What the workers get to serve.
pub(super) struct Feed {
    /// `folder`, `cluster` or `agent`.
    pub(super) kind: &'static str,
    pub(super) updates: mpsc::Receiver<Arc<Update>>,
    pub(super) resync: mpsc::Sender<()>,
    /// Who wants to know of each update whether it is in force.
    pub(super) adopted: Option<mpsc::UnboundedSender<bool>>,
    pub(super) state: watch::Receiver<Source>,
    /// What is wrong with the objects, where the agent is in this process.
    pub(super) report: Option<Report>,
    /// Once.
    pub(super) sockets: oneshot::Receiver<Sockets>,
    /// How connections reach them, where that can change later on.
    pub(super) steering: Option<watch::Receiver<Steering>>,
}

/// How the workers are to be.
pub(super) struct Setup<'a> {
    pub(super) config: &'a ServeArgs,
    pub(super) process: &'a ProcessArgs,
    /// How many.
    pub(super) workers: usize,
    /// What the process has given up.
    pub(super) confinement: Option<Confinement>,
}

/// How many workers are asked for.
pub(super) fn workers(config: &ServeArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(cores, usize::from)
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The process lacks something without which nothing can be served.
pub(super) async fn serve(
    Setup {
        config,
        process,
        workers,
        confinement,
    }: Setup<'_>,
    mut signals: Signals,
    metrics: Arc<Registry>,
    admin: Admin,
    feed: Feed,
    mut front: impl Front,
) -> anyhow::Result<()> {
    let resolver = tls::Resolver::new()?;
    let site = Site::new(Arc::clone(&resolver), Arc::clone(&metrics));
    let tables = site.tables();
    let (status, shown_status) = watch::channel(Arc::new(Status {
        version: env!("CARGO_PKG_VERSION"),
        node: process.node_name.clone(),
        confinement,
        ..Status::default()
    }));
    tokio::spawn(publish::follow_state(
        feed.state.clone(),
        feed.kind,
        status.clone(),
    ));
    let publisher = Publisher::new(
        site,
        feed.updates,
        feed.resync,
        feed.adopted,
        status.clone(),
    );
    let (readiness, is_ready) = watch::channel(Readiness::Starting);
    publish::expose_process(&metrics, shown_status.clone(), is_ready.clone());
    publish::expose_table(&metrics, shown_status.clone(), publisher.counts());
    publish::expose_source(&metrics, feed.report.clone(), feed.state);
    let metrics_address = admin.metrics_address();
    let mut admin = admin.serve(
        is_ready,
        Some(tables.clone()),
        shown_status,
        feed.report,
        &metrics,
    )?;

    let tls = tls::server_config(resolver)?;
    let (first_table, is_first) = oneshot::channel();
    let (alive, agent) = oneshot::channel();
    publisher
        .start(first_table, alive)
        .context("cannot start the thread of the table")?;
    let begin = async {
        let sockets = feed.sockets.await.context("nothing to listen on")?;
        show(&sockets, metrics_address, &status);
        if let Some(steering) = feed.steering {
            tokio::spawn(publish::follow_steering(steering, status.clone()));
        }
        is_first
            .await
            .context("the agent stopped before the first table")?;
        Ok::<_, anyhow::Error>(sockets)
    };
    let sockets = tokio::select! {
        sockets = begin => sockets?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the first table");
            return Ok(());
        }
    };

    let (shutdown, shutting_down) = watch::channel(Shutdown::NotYet);
    let settings = Arc::new(worker::WorkerSettings {
        shutdown_grace: config.shutdown_grace,
        lame_duck: config.lame_duck,
        hsts: config.hsts,
        trace_node: config
            .trace_responses
            .then(|| process.node_name.as_deref().unwrap_or("-").into()),
        ..worker::WorkerSettings::default()
    });
    // The workers, and whoever lets them close.
    let idle = Arc::new(Barrier::new(workers + 1));
    let (end, ended) = mpsc::unbounded_channel();
    let mut essential = Essential {
        workers: ended,
        agent,
    };
    for (_, socket) in &sockets.sockets {
        listener::listen(socket).context("cannot listen")?;
    }
    let threads = spawn_workers(
        by_worker(sockets.sockets, workers),
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
    front.serve().await?;
    let mut scrapes = admin.serve_metrics()?;
    let routes = tables.borrow().rules();
    match front.refusal() {
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

    let served = serve_until(signals.next(), &front, &mut essential).await;
    let signal = served?.unwrap_or("none: the neighbour watcher stopped");
    readiness.send_replace(Readiness::ShuttingDown);
    front.leaving();
    if !config.shutdown_delay.is_zero() {
        tracing::info!(signal, delay = ?config.shutdown_delay, "not ready; serving until the delay ends");
        let end = async {
            tokio::select! {
                () = tokio::time::sleep(config.shutdown_delay) => {}
                signal = signals.next() => tracing::warn!(signal, "second signal: ending the delay"),
            }
        };
        serve_until(end, &front, &mut essential).await?;
    }
    if admin.shares_metrics() {
        // Whoever takes over answers now; this one's counters would look like a reset.
        scrapes.abort_all();
    }
    let replaced = front.is_replaced().await;
    tracing::info!(signal, grace = ?config.shutdown_grace, replaced, "shutting down: finishing requests in flight");
    shutdown.send_replace(if replaced {
        Shutdown::Replaced
    } else {
        Shutdown::Alone
    });
    let close = async {
        if !replaced {
            // A handshake that begins now must find somebody who accepts when it is over.
            let lame_duck = config.lame_duck.min(config.shutdown_grace);
            let last = HANDSHAKE.min(lame_duck);
            let is_idle = timeout(lame_duck - last, idle.wait()).await.is_ok();
            if front.stop_new() || !is_idle {
                tokio::time::sleep(last).await;
            }
            shutdown.send_replace(Shutdown::Closing);
        } else {
            tokio::time::sleep(config.lame_duck).await;
        }
        front.close_doors();
        std::future::pending().await
    };
    tokio::select! {
        () = join(threads, config.shutdown_grace, &mut signals) => {}
        () = close => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Shows what is listened on in the status and the log.
fn show(sockets: &Sockets, metrics: Option<SocketAddr>, status: &watch::Sender<Arc<Status>>) {
    let clients = sockets.listeners.iter().copied().map(ListenerStatus::of);
    let metrics = metrics.map(|address| ListenerStatus {
        listener: Role::Metrics.name(),
        address,
    });
    let listeners: Vec<_> = clients.chain(metrics).collect();
    for ListenerStatus { listener, address } in &listeners {
        tracing::info!(listener, %address, "listening");
    }
    status.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.listeners = listeners;
        status.data_plane = DataPlaneStatus::of(sockets.steering.clone());
    });
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
    front: &impl Front,
    essential: &mut Essential,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        () = front.follow() => Ok(None),
        end = end => Ok(Some(end)),
        Some(worker) = essential.workers.recv() => bail!("worker {worker} stopped; see the log"),
        _ = &mut essential.agent => bail!("the agent stopped; see the log"),
    }
}

/// One thread for each set of listeners.
fn spawn_workers(
    listeners: Vec<Vec<Listener>>,
    inputs: impl Fn(Arc<WorkerMetrics>) -> Inputs,
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
