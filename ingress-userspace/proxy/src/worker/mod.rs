//! PACKET: what happens to a connection that the kernel handed to this core.
//!
//! `accept` → `connection` (over `stream`) → `sanitize` → `request` → `forward` → `respond`,
//! and `tunnel` for WebSockets.
//! `routes` is a worker's view of the table in force; `drain` ends connections at shutdown,
//! `idle` those that do nothing.
//!
//! One thread a worker, with a runtime, listeners and upstream connections of its own: on the way
//! of a request nothing is shared between cores but the immutable route table.

mod accept;
mod connection;
mod stream;

mod forward;
mod request;
mod respond;
mod sanitize;
mod tunnel;

mod drain;
mod idle;
mod routes;

use std::{io, net::TcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::watch;

use crate::{metrics::WorkerMetrics, table::RouteTable, tls::ServerConfig};

/// Limits and times of a worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long connections may take to finish once shutdown has begun.
    pub shutdown_grace: Duration,
    /// With a node's name, each routed response carries `x-forebay`, which says where it came from.
    pub trace_node: Option<Arc<str>>,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For the head of a request, from the end of the last one: the idle time of a connection too.
    pub head_timeout: Duration,
    /// Between two parts of a request's body.
    pub body_timeout: Duration,
    /// For a client to take a part of what is sent to it.
    pub write_timeout: Duration,
}

impl Default for Settings {
    /// The defaults of ingress-nginx, and 10 s for a handshake.
    fn default() -> Self {
        Self {
            shutdown_grace: Duration::from_secs(30),
            trace_node: None,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// What a listener's connections carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP.
    Plain,
    /// HTTPS.
    Tls,
}

/// A bound socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// The socket; the worker makes it non-blocking.
    pub socket: TcpListener,
    /// What to speak on it.
    pub transport: Transport,
}

/// What a worker is given.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The table in force; each value is whole.
    pub tables: watch::Receiver<Arc<RouteTable>>,
    /// The TLS policy, with its certificates.
    pub tls: Arc<ServerConfig>,
    /// Counters of this worker alone.
    pub metrics: Arc<WorkerMetrics>,
    /// Turns true once; then the worker drains and ends.
    pub shutdown: watch::Receiver<bool>,
    /// Limits and times.
    pub settings: Arc<Settings>,
}

/// Starts worker `id` on a thread of its own, which ends after shutdown.
///
/// # Errors
/// The thread or its runtime could not be made, or a socket could not be registered.
pub fn spawn(id: usize, listeners: Vec<Listener>, inputs: Inputs) -> io::Result<JoinHandle<()>> {
    for listener in &listeners {
        listener.socket.set_nonblocking(true)?;
    }
    std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || {
            if let Err(error) = accept::run(id, listeners, inputs) {
                tracing::error!(worker = id, %error, "worker ended");
            }
        })
}
