//! Tells a worker's connections that it shuts down, and tells the worker when they are gone.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use ahash::AHashMap;
use tokio::{sync::Notify, time::Instant};

use crate::upstream::Deadline;

/// For the first request of a connection to arrive: without one it is idle, and shutdown closes it.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// All connections of one worker.
#[derive(Clone, Default)]
pub(super) struct Drain(Rc<State>);

#[derive(Default)]
struct State {
    begun: Cell<bool>,
    next: Cell<u64>,
    open: Cell<usize>,
    /// The tasks to wake when shutdown begins.
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
        let mut first_request = Deadline::default();
        first_request.set(Instant::now() + FIRST_REQUEST);
        Member {
            drain: self.clone(),
            id,
            registered: false,
            first_request: Some(first_request),
        }
    }

    /// Starts the shutdown.
    pub(super) fn begin(&self) {
        self.0.begun.set(true);
        let wakers = std::mem::take(&mut *self.0.wakers.borrow_mut());
        wakers.into_values().for_each(Waker::wake);
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
    /// Whether the connection is to end: shutdown has begun, and a new connection has had time for
    /// its first request. If not, this task is woken when it is. A connection stays on one task, so
    /// the waker is kept once.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            self.registered = true;
            self.drain
                .0
                .wakers
                .borrow_mut()
                .insert(self.id, cx.waker().clone());
        }
        self.drain.0.begun.get()
            && self
                .first_request
                .as_mut()
                .is_none_or(|until| until.poll(cx).is_ready())
    }

    /// Notes that the first request has arrived: the connection is a new one no longer.
    pub(super) fn asked(&mut self) {
        self.first_request = None;
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
