//! `forebay proxy`: the workers, without any right; rules and sockets come from the agent.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use ingress_model::wire::Place;
use ingress_proxy::metrics::Registry;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    UsageError,
    admin::Admin,
    control,
    listener::{self, Role},
    serve::{self, Feed, Front, Setup},
    signals::Signals,
};
use crate::{
    config::{ADMIN_SOCKET, METRICS_PORT, ProxyConfig},
    confine::{self, ConfineError, Confinement},
    link::{Command, LastGood, Link},
};

/// How long an agent may take to let connections come. The process is not ready meanwhile.
const OPENING: Duration = Duration::from_secs(10);
/// How long an agent may take to say whether this process is replaced.
const ANSWER: Duration = Duration::from_secs(1);

/// Runs a proxy until SIGTERM or SIGINT.
///
/// # Errors
/// A flag or an address cannot be used ([`UsageError`]), or the process lacks something without which
/// nothing can be served.
pub(crate) fn proxy(config: &ProxyConfig) -> anyhow::Result<()> {
    control(&config.process, serve(config))
}

async fn serve(config: &ProxyConfig) -> anyhow::Result<()> {
    let signals = Signals::new().context("cannot handle signals")?;
    let workers = serve::workers(&config.serve);
    let metrics = Arc::new(Registry::new(workers));
    let port = config.metrics.address(false, METRICS_PORT);
    let admin = Admin::bind(&config.admin, ADMIN_SOCKET, port, true)?;
    let last_good = config.state_dir.as_deref().map(LastGood::open);
    let last_good = last_good.transpose().map_err(UsageError::from)?;
    let confinement = confine(config, last_good.as_ref(), port)?;
    let link = Link::start(
        config.link.link.clone(),
        u16::try_from(workers).unwrap_or(u16::MAX),
        last_good,
        bind,
    );
    let feed = Feed {
        kind: "agent",
        updates: link.updates,
        resync: link.resync,
        adopted: Some(link.adopted),
        state: link.state,
        report: None,
        sockets: link.sockets,
        steering: Some(link.steering),
    };
    let setup = Setup {
        config: &config.serve,
        process: &config.process,
        workers,
        confinement: Some(confinement),
    };
    let front = Agent(link.commands);
    serve::serve(setup, signals, metrics, admin, feed, front).await
}

/// Gives up everything that the process needs no more. No other thread has begun, and nobody has sent
/// a byte.
fn confine(
    config: &ProxyConfig,
    last_good: Option<&LastGood>,
    metrics: Option<SocketAddr>,
) -> Result<Confinement, ConfineError> {
    let admin = config.admin.path(ADMIN_SOCKET);
    let folder = admin.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    // Without an agent, it binds what it served before.
    let places = last_good.map(LastGood::places).unwrap_or_default();
    let ports = places.iter().map(|place| place.address.port());
    // Another process may still have it.
    let ports: Vec<_> = ports.chain(metrics.map(|address| address.port())).collect();
    let confinement = confine::confine(config.state_dir.as_deref(), folder, &ports)?;
    tracing::info!(?confinement, "confined");
    Ok(confinement)
}

/// Binds what an agent would bind, as far as this process may.
fn bind(places: &[Place], workers: u16) -> anyhow::Result<Vec<(Place, TcpListener)>> {
    let mut bound = Vec::new();
    let mut places: Vec<_> = places.iter().filter(|place| !place.is_steered).collect();
    places.dedup();
    anyhow::ensure!(!places.is_empty(), "it is not known what to listen on");
    for place in places {
        let mut sockets = Vec::new();
        let role = Role::of(place.transport);
        listener::bind_shared(role, place.address, usize::from(workers), &mut sockets)?;
        bound.extend(sockets.into_iter().map(|socket| (*place, socket)));
    }
    Ok(bound)
}

/// The agent, as what stands before the workers.
struct Agent(mpsc::UnboundedSender<Command>);

impl Agent {
    /// Without the task of the link nobody needs to hear it.
    fn tell(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

impl Front for Agent {
    async fn serve(&mut self) -> anyhow::Result<()> {
        let (answer, opened) = oneshot::channel();
        self.tell(Command::Serving(answer));
        // Without an agent there is nothing to be done: the sockets are ordinary ones.
        let _ = timeout(OPENING, opened).await;
        Ok(())
    }

    fn refusal(&self) -> Option<&str> {
        None
    }

    async fn follow(&self) {
        std::future::pending().await
    }

    fn leaving(&mut self) {
        self.tell(Command::Leaving);
    }

    async fn is_replaced(&mut self) -> bool {
        let (answer, replaced) = oneshot::channel();
        self.tell(Command::Ending(answer));
        matches!(timeout(ANSWER, replaced).await, Ok(Ok(true)))
    }

    /// The agent holds the sockets: what comes waits there for the next proxy.
    fn stop_new(&mut self) -> bool {
        false
    }

    fn close_doors(&mut self) {
        self.tell(Command::Closed);
    }
}
