//! The admin socket and the metrics port of a process.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use ingress_agent::Report;
use ingress_proxy::{metrics::Registry, table::RouteTable};
use tokio::{sync::watch, task::JoinSet};

use super::{
    UsageError,
    listener::{self, Role},
};
use crate::{
    admin::{self, Readiness, State, Status},
    config::AdminArgs,
    socket_file::{Purpose, SocketFile},
};

/// Between two tries to bind a metrics port that another user's process has.
const PAUSE: Duration = Duration::from_secs(1);

/// Both, bound before anything else: a second process on them is found out at once.
pub(super) struct Admin {
    socket: (SocketFile, UnixListener),
    metrics: Option<Metrics>,
    shares_metrics: bool,
}

/// Both, answering.
pub(super) struct Answering {
    _socket: SocketFile,
    state: State,
    metrics: Option<Metrics>,
    shares_metrics: bool,
}

/// The metrics port.
enum Metrics {
    Bound(TcpListener),
    /// The pod to be replaced has it, and runs as another user, with whom the kernel shares no port.
    /// That must not keep this one from serving.
    Busy(SocketAddr),
}

impl Admin {
    /// Binds them. In a cluster (`shares_metrics`) the pod that takes over stands beside the one it
    /// replaces, in the node's network: both need the metrics port. Elsewhere a second process on it is
    /// a mistake.
    ///
    /// # Errors
    /// One of them is in use, or may not be had.
    pub(super) fn bind(
        config: &AdminArgs,
        name: &str,
        metrics: Option<SocketAddr>,
        shares_metrics: bool,
    ) -> Result<Self, UsageError> {
        let socket = SocketFile::bind(&config.path(name), Purpose::Admin)?;
        let metrics = metrics.map(|address| {
            if !shares_metrics {
                return listener::bind(Role::Metrics, address).map(Metrics::Bound);
            }
            match listener::bind_joined(Role::Metrics, address) {
                Ok(listener) => Ok(Metrics::Bound(listener)),
                Err(UsageError::Listen { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse =>
                {
                    tracing::warn!(%address, "a process of another user has the metrics port: trying again until it ends");
                    Ok(Metrics::Busy(address))
                }
                Err(error) => Err(error),
            }
        });
        Ok(Self {
            socket,
            metrics: metrics.transpose()?,
            shares_metrics,
        })
    }

    /// Where Prometheus asks.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        match self.metrics.as_ref()? {
            Metrics::Bound(listener) => listener.local_addr().ok(),
            Metrics::Busy(address) => Some(*address),
        }
    }

    /// Answers on the socket from now on.
    ///
    /// # Errors
    /// The runtime takes no more descriptors.
    pub(super) fn serve(
        self,
        readiness: watch::Receiver<Readiness>,
        tables: Option<watch::Receiver<Arc<RouteTable>>>,
        status: watch::Receiver<Arc<Status>>,
        report: Option<Report>,
        metrics: &Arc<Registry>,
    ) -> anyhow::Result<Answering> {
        let (socket, listener) = self.socket;
        let state = State {
            readiness,
            tables,
            status,
            report: report.unwrap_or_default(),
            metrics: Arc::clone(metrics),
        };
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(admin::serve(listener, state.clone()));
        tracing::info!(listener = "admin", path = %socket.path().display(), "listening");
        Ok(Answering {
            _socket: socket,
            state,
            metrics: self.metrics,
            shares_metrics: self.shares_metrics,
        })
    }
}

impl Answering {
    /// Whether another process may have the metrics port, too.
    pub(super) fn shares_metrics(&self) -> bool {
        self.shares_metrics
    }

    /// Answers scrapes from now on, and not before: until then, the port may be a predecessor's, and
    /// half of its scrapes would come here. The second call answers none.
    ///
    /// # Errors
    /// The port was taken by a process that shares it with nobody.
    pub(super) fn serve_metrics(&mut self) -> anyhow::Result<JoinSet<()>> {
        let mut scrapes = JoinSet::new();
        match self.metrics.take() {
            Some(Metrics::Bound(listener)) => {
                let listener = listen(listener)?;
                scrapes.spawn(admin::serve_metrics(listener, self.state.clone()));
            }
            Some(Metrics::Busy(address)) => {
                scrapes.spawn(serve_later(address, self.state.clone()));
            }
            None => {}
        }
        Ok(scrapes)
    }
}

fn listen(listener: TcpListener) -> anyhow::Result<tokio::net::TcpListener> {
    listener::listen(&listener).context("cannot listen for scrapes of the metrics")?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

/// Answers scrapes as soon as the port is free.
async fn serve_later(address: SocketAddr, state: State) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let bound = listener::bind_joined(Role::Metrics, address).map_err(Into::into);
        if let Ok(listener) = bound.and_then(listen) {
            tracing::info!(%address, "the metrics port is free: answering");
            return admin::serve_metrics(listener, state).await;
        }
    }
}
