//! A worker whose connections are all in memory, for fuzzing: everything between two sockets is the
//! product's, and nothing happens that its user did not bring about.

use std::{
    cell::Cell,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use ingress_model::Transport;

use super::{
    WorkerSettings, connection, phases,
    state::{Freshness, Worker},
};
use crate::{
    metrics::WorkerMetrics,
    net::{self, Far},
    table::RouteTable,
    tls::ServerConfig,
};

thread_local! {
    /// For its timers, which never fire: nobody drives it.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O needs nothing of the kernel");
}

/// A worker.
pub struct Site(Rc<Worker>);

/// A client's connection to it.
pub struct Serving {
    task: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    ended: Cell<bool>,
}

/// Set when the task has something to do.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Site {
    /// A worker that serves `table`; its shutdown never comes.
    pub fn new(
        table: Arc<RouteTable>,
        metrics: Arc<WorkerMetrics>,
        tls: Arc<ServerConfig>,
    ) -> Self {
        // What is random is the same in every run.
        fastrand::seed(0);
        net::connected();
        Self(Rc::new(Worker::new(
            0,
            table,
            metrics,
            Arc::new(WorkerSettings::default()),
            tls,
            Freshness::default(),
        )))
    }

    /// A connection of the client at `peer`, in the clear, and its far end.
    pub fn accept(&self, peer: SocketAddr) -> (Serving, Far) {
        let (socket, far) = net::pair();
        let served = connection::serve(Rc::clone(&self.0), socket, peer, Transport::Plain);
        let serving = Serving {
            task: Box::pin(async move { LocalSet::new().run_until(served).await }),
            woken: Arc::new(Woken(AtomicBool::new(true))),
            ended: Cell::new(false),
        };
        (serving, far)
    }

    /// The connections to endpoints that were opened since the last call.
    pub fn connected(&self) -> Vec<Far> {
        net::connected()
    }
}

impl Serving {
    /// Runs the connection as long as something has woken it; `false` where nothing had.
    pub fn run(&mut self) -> bool {
        let mut ran = false;
        while !self.ended.get() && self.woken.0.swap(false, Ordering::Relaxed) {
            ran = true;
            let waker = Waker::from(Arc::clone(&self.woken));
            let polled = RUNTIME.with(|runtime| {
                let _guard = runtime.enter();
                self.task.as_mut().poll(&mut Context::from_waker(&waker))
            });
            self.ended.set(polled.is_ready());
        }
        ran
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }
}

/// The target of a request, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// Host and port, where it names them.
    pub authority: Option<&'t str>,
    /// As it was sent.
    pub path: &'t str,
    /// What follows the first question mark.
    pub query: Option<&'t str>,
}

/// Takes the target of an HTTP/1.1 request apart; `None` where it is refused.
pub fn target(text: &[u8]) -> Option<Target<'_>> {
    let target = phases::target(text).ok()?;
    Some(Target {
        authority: target.authority,
        path: target.path,
        query: target.query,
    })
}
