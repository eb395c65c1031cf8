//! Runs the streams of a connection on its worker, and ends those whose client takes nothing.
//!
//! hyper asks for more of a response's body only when the client's window has room for what it has. A
//! client that opens no window would hold a stream, and the connection to its endpoint, for as long as
//! it keeps the connection. While the connection itself takes nothing, its streams wait for their turn:
//! that time does not count, up to a limit; whether the client stands still, `io` tells.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::spawn_local, time::Instant};

use super::patience::Patience;
use crate::{net::Deadline, worker::state::Worker};

/// How many times the limit a stream may wait besides, while its connection takes nothing. Without an
/// end, a client could hold endpoints with all streams by reading a little of one.
const TURN: u32 = 9;

/// Fewer bytes than this are what HTTP/2 says of itself: answers to PING and the like.
const DATA: usize = 4 * 1024;

/// The streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(Rc<State>);

struct State {
    worker: Rc<Worker>,
    open: Cell<usize>,
    /// Whether a stream has begun since the last look.
    begun: Cell<bool>,
    /// Bytes that have left since the last look.
    sent: Cell<usize>,
    congestion: Cell<Congestion>,
    patience: Patience,
    /// Of the stream that is about to be run.
    next: RefCell<Rc<Progress>>,
}

/// For how long the connection has taken nothing, all in all.
#[derive(Clone, Copy, Debug, Default)]
struct Congestion {
    before: Duration,
    /// Since when it takes nothing now.
    since: Option<Instant>,
}

impl Congestion {
    fn total(self, now: Instant) -> Duration {
        let current = self.since.map(|since| now.saturating_duration_since(since));
        self.before + current.unwrap_or_default()
    }
}

/// What a stream waits for, told by its response's body.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Since when a piece of the body waits for the client to take it.
    waiting: Cell<Option<Instant>>,
    /// All was done for the client that can be done.
    served: Cell<bool>,
}

impl Progress {
    /// Notes that the client is to take a piece.
    pub(super) fn handed_over(&self, now: Instant) {
        self.waiting.set(Some(now));
    }

    /// Notes that the client has taken everything so far.
    pub(super) fn taken(&self) {
        self.waiting.set(None);
    }

    /// Notes that the response is whole, or broke off on the endpoint's side.
    pub(super) fn served(&self) {
        self.served.set(true);
    }
}

impl Streams {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        Self(Rc::new(State {
            patience: Patience::new(worker.now()),
            worker,
            open: Cell::new(0),
            begun: Cell::new(false),
            sent: Cell::new(0),
            congestion: Cell::default(),
            next: RefCell::default(),
        }))
    }

    /// Whether no stream is open, none has begun since the last time this was asked, and the client
    /// takes nothing that earlier ones have left behind in the library.
    pub(super) fn are_idle(&self) -> bool {
        let (begun, sent) = (self.0.begun.take(), self.0.sent.take());
        let is_blocked = self.0.congestion.get().since.is_some();
        !begun && sent < DATA && !is_blocked && self.0.open.get() == 0
    }

    /// Notes that `count` bytes have left.
    pub(super) fn sent(&self, count: usize) {
        self.0.sent.set(self.0.sent.get().saturating_add(count));
    }

    /// Whether the client has left more streams than is fair.
    pub(super) fn are_abused(&self) -> bool {
        self.0.patience.is_over()
    }

    /// Notes that the connection takes no more.
    pub(super) fn blocked(&self) {
        let mut congestion = self.0.congestion.get();
        congestion.since.get_or_insert(self.0.worker.now());
        self.0.congestion.set(congestion);
    }

    /// Notes that the connection takes more.
    pub(super) fn unblocked(&self) {
        let congestion = self.0.congestion.get();
        if congestion.since.is_some() {
            self.0.congestion.set(Congestion {
                before: congestion.total(self.0.worker.now()),
                since: None,
            });
        }
    }

    /// What the request that hyper hands out now tells of itself. hyper calls the service for a
    /// request and then runs its stream, one after the other.
    pub(super) fn current(&self) -> Rc<Progress> {
        let progress = Rc::new(Progress::default());
        *self.0.next.borrow_mut() = Rc::clone(&progress);
        progress
    }
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.begun.set(true);
        self.0.open.set(self.0.open.get() + 1);
        let open = Open {
            streams: Rc::clone(&self.0),
            progress: self.0.next.take(),
            began: self.0.worker.now(),
        };
        spawn_local(Running {
            stream: Box::pin(stream),
            open,
            deadline: Deadline::default(),
            piece: None,
        });
    }
}

/// One stream.
struct Running<F> {
    stream: Pin<Box<F>>,
    open: Open,
    deadline: Deadline,
    /// Since when the piece that was handed over last waits, and how long the connection had taken
    /// nothing by then.
    piece: Option<(Instant, Duration)>,
}

impl<F: Future> Future for Running<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Open {
            streams, progress, ..
        } = &this.open;
        let worker = &streams.worker;
        worker.tick();
        if this.stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = progress.waiting.get() else {
            return Poll::Pending;
        };
        let total = streams.congestion.get().total(worker.now());
        if this.piece.is_none_or(|(piece, _)| piece != since) {
            this.piece = Some((since, total));
        }
        let before = this.piece.map_or(total, |(_, before)| before);
        let limit = worker.settings.write_timeout;
        let congested = total.saturating_sub(before).min(limit * TURN);
        this.deadline.set(since + limit + congested);
        // Dropping the stream resets it, and closes the connection to its endpoint.
        this.deadline.poll(cx)
    }
}

/// Counts a stream while it is open, how it ended, and a panic that ended it.
struct Open {
    streams: Rc<State>,
    progress: Rc<Progress>,
    began: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        let State {
            worker,
            open,
            patience,
            ..
        } = &*self.streams;
        open.set(open.get() - 1);
        if self.progress.served.get() {
            patience.served(worker.now());
        } else {
            patience.left(self.began, worker.now());
        }
        if std::thread::panicking() {
            worker.counters().panics.increment();
        }
    }
}
