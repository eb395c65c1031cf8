//! Connections in memory: they take the place of sockets when the proxy is fuzzed, so that the fuzzer
//! decides what arrives when, and how much is taken.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::Room;

thread_local! {
    /// The far ends of what the proxy has connected to, oldest first.
    static CONNECTED: RefCell<Vec<Far>> = const { RefCell::new(Vec::new()) };
}

/// The proxy's end of a connection.
#[derive(Debug)]
pub(crate) struct Socket(Rc<State>);

/// The other end of a connection, which the fuzzer holds.
#[derive(Clone, Debug)]
pub struct Far(Rc<State>);

/// How the proxy left a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Not yet.
    #[default]
    Open,
    /// It sends no more.
    ShutDown,
    /// It is closed.
    Closed,
    /// It is closed by a reset.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    /// Sent by the far end and not received.
    arriving: RefCell<Vec<u8>>,
    /// The far end sends no more.
    ended: Cell<bool>,
    /// The far end takes no more.
    gone: Cell<bool>,
    /// Sent by the proxy.
    sent: RefCell<Vec<u8>>,
    /// How many bytes the far end takes before it is asked again.
    window: Cell<usize>,
    resets: Cell<bool>,
    end: Cell<End>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl State {
    fn wake_reader(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// Both ends of a new connection.
pub(crate) fn pair() -> (Socket, Far) {
    let state = Rc::new(State::default());
    (Socket(Rc::clone(&state)), Far(state))
}

/// Takes the far ends of the connections that the proxy of this thread has opened since the last call.
pub(crate) fn connected() -> Vec<Far> {
    CONNECTED.take()
}

impl Far {
    /// Sends `bytes`; they arrive as one piece unless others wait already.
    pub fn send(&self, bytes: &[u8]) {
        self.0.arriving.borrow_mut().extend_from_slice(bytes);
        self.0.wake_reader();
    }

    /// Sends no more.
    pub fn finish(&self) {
        self.0.ended.set(true);
        self.0.wake_reader();
    }

    /// Neither sends nor takes any more.
    pub fn close(&self) {
        self.0.gone.set(true);
        self.finish();
        self.0.wake_writer();
    }

    /// Takes up to `count` bytes more.
    pub fn grant(&self, count: usize) {
        let window = &self.0.window;
        window.set(window.get().saturating_add(count));
        self.0.wake_writer();
    }

    /// How many bytes the proxy has sent.
    pub fn received(&self) -> usize {
        self.0.sent.borrow().len()
    }

    /// Calls `read` with all that the proxy has sent.
    pub fn with_received<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        read(&self.0.sent.borrow())
    }

    /// What was sent to the proxy and is not received.
    pub fn unread(&self) -> usize {
        self.0.arriving.borrow().len()
    }

    /// How the proxy left the connection.
    pub fn end(&self) -> End {
        self.0.end.get()
    }
}

impl Socket {
    /// There are no descriptors here.
    pub(crate) fn adopt(_: OwnedFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Connects at once.
    pub(crate) async fn connect(_: SocketAddr) -> io::Result<Self> {
        let (socket, far) = pair();
        CONNECTED.with_borrow_mut(|connected| connected.push(far));
        Ok(socket)
    }

    pub(crate) fn poll_recv<'r>(
        &self,
        cx: &mut Context<'_>,
        room: impl Room<'r>,
    ) -> Poll<io::Result<usize>> {
        let buffer = room.take();
        let mut arriving = self.0.arriving.borrow_mut();
        if arriving.is_empty() && !self.0.ended.get() && !buffer.is_empty() {
            *self.0.reader.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = arriving.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(arriving.drain(..count)) {
            *to = from;
        }
        Poll::Ready(Ok(count))
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_pieces(cx, &[IoSlice::new(bytes)])
    }

    pub(crate) fn poll_send_pieces(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.gone.get() || self.0.end.get() != End::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let window = self.0.window.get();
        if window == 0 {
            *self.0.writer.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut sent = self.0.sent.borrow_mut();
        let before = sent.len();
        for piece in pieces {
            let room = window - (sent.len() - before);
            sent.extend(piece.iter().take(room));
        }
        let count = sent.len() - before;
        self.0.window.set(window - count);
        Poll::Ready(Ok(count))
    }

    pub(crate) fn shut_down(&self) {
        self.0.end.set(End::ShutDown);
    }

    pub(crate) fn reset(&self) {
        self.0.resets.set(true);
    }

    pub(crate) fn unacknowledged(&self) -> u32 {
        0
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.0.arriving.borrow().is_empty() && !self.0.ended.get()
    }

    pub(crate) fn local_port(&self) -> io::Result<u16> {
        Ok(80)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let resets = self.0.resets.get();
        self.0
            .end
            .set(if resets { End::Reset } else { End::Closed });
    }
}
