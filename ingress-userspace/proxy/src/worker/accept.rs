//! A worker's life: its runtime, its accept loops, its end.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
    time::{interval, sleep, timeout},
};

use super::{Inputs, Listener, Settings, Transport, connection, drain::Drain, routes::Routes};
use crate::{
    metrics::{WorkerCounters, WorkerMetrics},
    table::RouteTable,
    tls::TlsAcceptor,
    upstream::Pool,
};

/// How long to wait before the next accept when the process is out of files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often idle upstream connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the tasks of one worker share. Never leaves its thread.
pub(super) struct Worker {
    pub(super) id: usize,
    /// Replaced whole by [`follow_tables`]; a request keeps the one that it began with.
    routes: RefCell<Rc<Routes>>,
    pub(super) pool: Pool,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) settings: Arc<Settings>,
    pub(super) tls: TlsAcceptor,
    pub(super) drain: Drain,
}

impl Worker {
    /// The routes in force.
    pub(super) fn routes(&self) -> Rc<Routes> {
        Rc::clone(&self.routes.borrow())
    }

    pub(super) fn counters(&self) -> &WorkerCounters {
        &self.metrics.counters
    }

    fn install(&self, table: Arc<RouteTable>) {
        let routes = Routes::build(
            table,
            self.id,
            &self.pool,
            &self.metrics,
            Some(&self.routes()),
        );
        *self.routes.borrow_mut() = Rc::new(routes);
    }
}

/// Runs a worker until it has drained.
pub(super) fn run(id: usize, listeners: Vec<Listener>, inputs: Inputs) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(work(id, listeners, inputs))
}

async fn work(id: usize, listeners: Vec<Listener>, inputs: Inputs) -> io::Result<()> {
    let Inputs {
        mut tables,
        tls,
        metrics,
        mut shutdown,
        settings,
    } = inputs;
    let table = Arc::clone(&tables.borrow_and_update());
    let pool = Pool::default();
    let routes = Routes::build(table, id, &pool, &metrics, None);
    let worker = Rc::new(Worker {
        id,
        routes: RefCell::new(Rc::new(routes)),
        pool,
        metrics,
        settings,
        tls: TlsAcceptor::from(tls),
        drain: Drain::default(),
    });
    let mut accepting = Vec::with_capacity(listeners.len());
    for Listener { socket, transport } in listeners {
        let listener = TcpListener::from_std(socket)?;
        accepting.push(spawn_local(accept(
            Rc::clone(&worker),
            listener,
            transport,
            shutdown.clone(),
        )));
    }
    spawn_local(follow_tables(Rc::clone(&worker), tables));
    spawn_local(sweep(Rc::clone(&worker)));

    // An error means that the sender is gone: then there is nobody left to serve for.
    let _ = shutdown.wait_for(|begun| *begun).await;
    worker.drain.begin();
    for accepting in accepting {
        // Fails where the task panicked: then its listener is closed.
        let _ = accepting.await;
    }
    if timeout(worker.settings.shutdown_grace, worker.drain.finished())
        .await
        .is_err()
    {
        tracing::warn!(
            worker = id,
            connections = worker.drain.open(),
            "connections cut at the end of the grace"
        );
    }
    Ok(())
}

/// Accepts until shutdown has begun, then what waits in the queue: closing the listener would reset
/// it.
async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    transport: Transport,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|begun| *begun) => break,
        };
        match accepted {
            Ok((stream, peer)) => welcome(&worker, stream, peer, transport),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(worker = worker.id, %error, "accept failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Asked directly: the runtime may not have heard of the last arrivals yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Ok(stream) = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream))
                {
                    welcome(&worker, stream, peer, transport);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

fn welcome(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, transport: Transport) {
    worker.counters().accepted.increment();
    spawn_local(connection::serve(
        Rc::clone(worker),
        stream,
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
        worker.install(table);
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        worker.pool.sweep();
    }
}
