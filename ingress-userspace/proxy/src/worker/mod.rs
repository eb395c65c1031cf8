//! PACKET: what happens to a connection that the kernel handed to this core.
//!
//! `accept` → `connection` → `http1` or `http2` → `phases`, and `tunnel` for WebSockets; `record`
//! counts each request. `drain` ends connections at shutdown.
//!
//! One thread per worker, with a runtime, listeners and upstream connections of its own: on the way
//! of a request nothing is shared between cores but the immutable route table.

mod accept;
mod connection;
mod http1;
mod http2;
mod phases;
mod tunnel;

#[cfg(fuzzing)]
pub(crate) mod fuzz;

mod client;
mod drain;
mod record;
mod route;
mod state;
mod stream;

use std::{io, net::TcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{Barrier, mpsc, watch};

use ingress_model::Transport;

use crate::{metrics::WorkerMetrics, table::RouteTable, tls::ServerConfig};

pub use accept::HANDSHAKE;

/// Limits and times of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How long connections may take to finish once shutdown has begun.
    pub shutdown_grace: Duration,
    /// How long idle connections stay open once shutdown has begun.
    pub lame_duck: Duration,
    /// If set, each routed response carries `x-forebay` with this node's name and the route.
    pub trace_node: Option<Arc<str>>,
    /// Limit for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Limit for a request head, from its first byte.
    pub head_timeout: Duration,
    /// Limit for the first byte of the next request.
    pub idle_timeout: Duration,
    /// Limit between two reads of a request body.
    pub body_timeout: Duration,
    /// Limit between two writes to a client.
    pub write_timeout: Duration,
    /// Responses over TLS carry `Strict-Transport-Security`, as with ingress-nginx.
    pub hsts: bool,
}

impl Default for WorkerSettings {
    /// The defaults of ingress-nginx, and 10 s for a handshake and for a head.
    fn default() -> Self {
        Self {
            shutdown_grace: Duration::from_secs(30),
            lame_duck: Duration::from_secs(10),
            trace_node: None,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            hsts: true,
        }
    }
}

/// A bound socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// The socket; the worker makes it non-blocking.
    pub socket: TcpListener,
    /// Plain or TLS.
    pub transport: Transport,
}

/// Whether and how a worker shuts down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// It serves.
    #[default]
    NotYet,
    /// It shuts down, but still accepts during the lame-duck time: no other process would take the
    /// connections in its queue.
    Alone,
    /// It accepts no longer, after `Alone`: no new connections come, and handshakes that had begun are
    /// over.
    Closing,
    /// It shuts down; another process accepts from the same sockets.
    Replaced,
}

/// The inputs of a worker.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The current table; each value is complete.
    pub tables: watch::Receiver<Arc<RouteTable>>,
    /// The TLS policy, with its certificates.
    pub tls: Arc<ServerConfig>,
    /// This worker's counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Changes; then the worker drains, and stops once it is told to close.
    pub shutdown: watch::Receiver<Shutdown>,
    /// For all workers of the process, and whoever tells them to close: each comes here once it has no
    /// connection, and goes on to accept until it is told.
    pub idle: Arc<Barrier>,
    /// Limits and times.
    pub settings: Arc<WorkerSettings>,
}

/// Starts worker `id` on its own thread, which ends after shutdown.
///
/// `ended` receives `id` when the thread ends for any reason. Before shutdown that is a bug, and
/// the process must not continue with fewer workers.
///
/// # Errors
/// The thread or its runtime could not be made, or a socket could not be registered.
pub fn spawn(
    id: usize,
    listeners: Vec<Listener>,
    inputs: Inputs,
    ended: mpsc::UnboundedSender<usize>,
) -> io::Result<JoinHandle<()>> {
    for listener in &listeners {
        listener.socket.set_nonblocking(true)?;
    }
    std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || {
            let _ending = Ending { id, ended };
            if let Err(error) = accept::run(id, listeners, inputs) {
                tracing::error!(worker = id, %error, "worker stopped");
            }
        })
}

/// Tells that a worker has ended, even by a panic.
struct Ending {
    id: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends anyway.
        let _ = self.ended.send(self.id);
    }
}
