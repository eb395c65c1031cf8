//! A worker's life: its runtime, its accept loops, its end.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{Barrier, watch},
    task::{JoinError, JoinSet, spawn_local},
    time::{Instant, interval, sleep, sleep_until, timeout_at},
};

use ingress_model::Transport;

use super::{
    Inputs, Listener, Shutdown, connection,
    state::{Freshness, Worker},
};
use crate::{
    net::{self, Socket},
    table::RouteTable,
};

/// How long to wait before the next accept when the process is out of files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long a worker accepts at the least once its end has begun: longer than a handshake takes that
/// the kernel has begun, and closing the socket would reset.
pub const HANDSHAKE: Duration = Duration::from_secs(1);
/// How often idle upstream connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Runs a worker until it has drained.
pub(super) fn run(id: usize, listeners: Vec<Listener>, inputs: Inputs) -> io::Result<()> {
    let freshness = Freshness::default();
    let runtime = freshness.runtime()?;
    runtime.block_on(work(id, listeners, inputs, freshness))
}

async fn work(
    id: usize,
    listeners: Vec<Listener>,
    inputs: Inputs,
    freshness: Freshness,
) -> io::Result<()> {
    let Inputs {
        mut tables,
        tls,
        metrics,
        mut shutdown,
        idle,
        settings,
    } = inputs;
    let table = Arc::clone(&tables.borrow_and_update());
    let worker = Rc::new(Worker::new(id, table, metrics, settings, tls, freshness));
    let (close, closing) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for Listener { socket, transport } in listeners {
        let listener = net::Listener::adopt(socket)?;
        accepting.spawn_local(accept(
            Rc::clone(&worker),
            listener,
            transport,
            closing.clone(),
        ));
    }
    let mut upkeep = JoinSet::new();
    upkeep.spawn_local(follow_tables(Rc::clone(&worker), tables));
    upkeep.spawn_local(sweep(Rc::clone(&worker)));

    // A task that ends before the shutdown has panicked: without it, clients would wait for ever, or
    // get what an old table says. The process has to end, and be started again.
    let phase = tokio::select! {
        // An error means that the sender is gone: then there is nobody left to serve for.
        begun = shutdown.wait_for(|phase| *phase != Shutdown::NotYet) => {
            begun.map_or(Shutdown::Alone, |phase| *phase)
        }
        Some(ended) = accepting.join_next() => return Err(died(ended)),
        Some(ended) = upkeep.join_next() => return Err(died(ended)),
    };
    drain(&worker, phase, shutdown, &idle, close, accepting).await;
    Ok(())
}

fn died(ended: Result<(), JoinError>) -> io::Error {
    ended.map_or_else(io::Error::other, |()| {
        io::Error::other("a task of the worker ended")
    })
}

/// Ends the worker so that no client notices: first every response says that its connection ends,
/// while connections are accepted and idle ones may still ask; then idle ones are closed; at the end
/// of the grace, whatever is left.
async fn drain(
    worker: &Worker,
    phase: Shutdown,
    mut shutdown: watch::Receiver<Shutdown>,
    idle: &Barrier,
    close: watch::Sender<bool>,
    mut accepting: JoinSet<()>,
) {
    let settings = &worker.settings;
    let begun = Instant::now();
    let grace = begun + settings.shutdown_grace;
    let lame_duck = begun + settings.lame_duck.min(settings.shutdown_grace);
    worker.drain.begin();
    if phase == Shutdown::Replaced {
        // Whoever comes finds the other process, and is not asked to come again.
        close.send_replace(true);
        let _ = timeout_at(lame_duck, worker.drain.finished()).await;
    } else {
        // Ends early when nothing is open, on other workers either: the kernel goes on to hand this one
        // its share of the connections, since the control thread keeps the sockets for a successor.
        // That thread closes, since it can lead new connections away before.
        let tell = async {
            sleep_until(lame_duck.min(begun + HANDSHAKE)).await;
            worker.drain.finished().await;
            idle.wait().await;
            std::future::pending().await
        };
        let closing = shutdown.wait_for(|phase| *phase == Shutdown::Closing);
        tokio::select! {
            // Or nobody is there to say it.
            _ = timeout_at(lame_duck + HANDSHAKE, closing) => {}
            () = tell => {}
        }
    }
    close.send_replace(true);
    while accepting.join_next().await.is_some() {}
    worker.drain.close_idle();
    if timeout_at(grace, worker.drain.finished()).await.is_err() {
        let connections = worker.drain.open();
        tracing::warn!(
            worker = worker.id,
            connections,
            "closed connections at the end of the shutdown grace"
        );
    }
}

/// Accepts until `closing`, then what waits in the queue: closing the listener would reset it.
async fn accept(
    worker: Rc<Worker>,
    listener: net::Listener,
    transport: Transport,
    mut closing: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok(accepted) => welcome(&worker, accepted, transport),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(worker = worker.id, %error, "accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    loop {
        match listener.accept_now() {
            Ok(accepted) => welcome(&worker, accepted, transport),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

fn welcome(worker: &Rc<Worker>, (socket, peer): (Socket, SocketAddr), transport: Transport) {
    worker.counters().accepted.increment();
    spawn_local(connection::serve(
        Rc::clone(worker),
        socket,
        peer,
        transport,
    ));
}

/// Whether the connection died before it was accepted, so that the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn follow_tables(worker: Rc<Worker>, mut tables: watch::Receiver<Arc<RouteTable>>) {
    while tables.changed().await.is_ok() {
        let table = Arc::clone(&tables.borrow_and_update());
        worker.adopt(table);
    }
    // The sender is gone: the last table stays in force until the shutdown.
    std::future::pending().await
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        worker.sweep();
    }
}
