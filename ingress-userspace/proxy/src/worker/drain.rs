//! Tells a worker's connections that it shuts down, and tells the worker when they are gone.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use ahash::AHashMap;
use tokio::{sync::Notify, time::Instant};

use crate::net::Deadline;

/// For the first request of a connection to arrive, from the end of its handshake: a client that
/// has just connected is about to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has not begun.
    #[default]
    Serving,
    /// Responses say that the connection ends; idle connections may still ask.
    LameDuck,
    /// Idle connections are closed.
    Closing,
}

/// All connections of one worker.
#[derive(Clone, Default)]
pub(super) struct Drain(Rc<State>);

#[derive(Default)]
struct State {
    phase: Cell<Phase>,
    next: Cell<u64>,
    open: Cell<usize>,
    /// The tasks to wake when the phase changes.
    wakers: RefCell<AHashMap<u64, Waker>>,
    empty: Notify,
}

/// One connection; it counts as open for as long as this lives.
#[must_use = "the connection stops counting when this is dropped"]
pub(super) struct Member {
    drain: Drain,
    id: u64,
    registered: bool,
    /// Until when a first request may arrive; `None` once it has.
    first_request: Option<Deadline>,
}

impl Drain {
    /// Counts one connection.
    pub(super) fn join(&self) -> Member {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        self.0.open.set(self.0.open.get() + 1);
        Member {
            drain: self.clone(),
            id,
            registered: false,
            first_request: None,
        }
    }

    /// Starts the shutdown: connections end with the request that they serve, or serve next.
    pub(super) fn begin(&self) {
        self.enter(Phase::LameDuck);
    }

    /// Ends idle connections.
    pub(super) fn close_idle(&self) {
        self.enter(Phase::Closing);
    }

    fn enter(&self, phase: Phase) {
        self.0.phase.set(phase);
        self.0.wakers.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.0.open.get()
    }

    /// Waits until no connection is open.
    pub(super) async fn finished(&self) {
        while self.open() > 0 {
            self.0.empty.notified().await;
        }
    }
}

impl Member {
    /// Starts the time in which a first request may arrive.
    pub(super) fn await_first_request(&mut self, now: Instant) {
        let mut deadline = Deadline::default();
        deadline.set(now + FIRST_REQUEST);
        self.first_request = Some(deadline);
    }

    /// Notes that the first request has arrived: the connection is a new one no longer.
    pub(super) fn asked(&mut self) {
        self.first_request = None;
    }

    /// Whether the shutdown has begun, so that the response to be sent is the last one.
    pub(super) fn is_ending(&self) -> bool {
        self.drain.0.phase.get() >= Phase::LameDuck
    }

    /// Whether the shutdown has begun. If not, this task is woken when it does.
    pub(super) fn poll_ending(&mut self, cx: &mut Context<'_>) -> bool {
        self.register(cx);
        self.is_ending()
    }

    /// Whether the connection, which is idle, is to be closed. If not, this task is woken when it is.
    pub(super) fn poll_idle_end(&mut self, cx: &mut Context<'_>) -> bool {
        self.register(cx);
        self.drain.0.phase.get() == Phase::Closing
            && self
                .first_request
                .as_mut()
                .is_none_or(|until| until.poll(cx).is_ready())
    }

    /// A connection stays on one task, so the waker is kept once.
    fn register(&mut self, cx: &mut Context<'_>) {
        if !self.registered {
            self.registered = true;
            self.drain
                .0
                .wakers
                .borrow_mut()
                .insert(self.id, cx.waker().clone());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let state = &self.drain.0;
        if self.registered {
            state.wakers.borrow_mut().remove(&self.id);
        }
        state.open.set(state.open.get() - 1);
        if state.open.get() == 0 {
            state.empty.notify_one();
        }
    }
}
