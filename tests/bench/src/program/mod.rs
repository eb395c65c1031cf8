//! Small programs of our own beside the proxies, each started as a child process so that it has a
//! core, and a bill, of its own as nginx and wrk have.
//!
//! `copy_loop` is the floor among the proxies, `echo` a second origin; `handshakes`, `websocket`
//! and `idle` are loads, clients over `message` and `tls`, that print an [`Outcome`].

mod copy_loop;
mod echo;
mod handshakes;
mod idle;
mod message;
mod outcome;
mod tls;
mod websocket;

use std::{future::Future, net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::Subcommand;
use tokio::time::Instant;

pub(crate) use self::outcome::Outcome;

/// How long one connection may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the programs.
#[derive(Subcommand)]
pub(crate) enum Program {
    /// Copies bytes between each client's connection and one of its own to an origin
    CopyLoop {
        /// Where it listens and what it connects to, `LISTEN=ORIGIN`; one or more
        #[arg(required = true)]
        pairs: Vec<copy_loop::Pair>,
    },
    /// Answers WebSocket messages with themselves
    Echo {
        /// Where it listens
        listen: SocketAddr,
    },
    /// Makes TLS connections with one request each
    Handshakes(handshakes::Options),
    /// Sends a WebSocket message on each connection and waits for its echo, over and over
    Websocket(websocket::Options),
    /// Makes connections with one request each and holds them until its input ends
    Idle(idle::Options),
}

/// Runs `bench program`.
///
/// # Errors
/// An address cannot be bound, or nothing can be connected to.
pub(crate) fn run(program: &Program) -> Result<()> {
    match program {
        Program::CopyLoop { pairs } => copy_loop::run(pairs),
        Program::Echo { listen } => on_this_thread(echo::run(*listen)),
        Program::Handshakes(options) => on_this_thread(handshakes::run(options)),
        Program::Websocket(options) => on_this_thread(websocket::run(options)),
        Program::Idle(options) => on_this_thread(idle::run(options)),
    }
}

fn on_this_thread(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// When a load that begins now ends.
fn deadline(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}
