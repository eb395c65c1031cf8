//! The client's side of a connection: TCP or TLS, read and written through a shared reference.
//!
//! A request's body is read while its response is written, by the same task.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    task::{Context, Poll},
};

use crate::{
    net::{Room, Socket},
    tls::TlsStream,
};

/// A client's connection.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<RefCell<TlsStream>>),
}

impl Stream {
    /// Receives into `room`; 0 is the end of the stream.
    #[inline]
    pub(super) fn poll_recv<'r>(
        &self,
        cx: &mut Context<'_>,
        room: impl Room<'r>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_recv(cx, room),
            Self::Tls(stream) => stream.borrow_mut().poll_recv(cx, room),
        }
    }

    /// Sends the beginning of all `pieces` in a row; over TLS, into the session's buffer first.
    #[inline]
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, pieces) {
            (Self::Plain(socket), [piece]) => socket.poll_send(cx, piece),
            (Self::Plain(socket), pieces) => socket.poll_send_pieces(cx, pieces),
            (Self::Tls(stream), pieces) => stream.borrow_mut().poll_send(cx, pieces),
        }
    }

    /// Ready once all that was sent has left the session's buffer. TCP has none of its own.
    #[inline]
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.borrow_mut().poll_flush(cx),
        }
    }

    /// Bytes on their way that the client has not acknowledged.
    pub(super) fn unacknowledged(&self) -> u32 {
        match self {
            Self::Plain(socket) => socket.unacknowledged(),
            Self::Tls(stream) => stream.borrow().socket().unacknowledged(),
        }
    }

    /// Says that nothing more is sent.
    pub(super) fn poll_shut_down(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => {
                socket.shut_down();
                Poll::Ready(Ok(()))
            }
            Self::Tls(stream) => stream.borrow_mut().poll_shut_down(cx),
        }
    }

    /// Ends the connection with a reset, which no client takes for the end of a response.
    pub(super) fn reset(&self) {
        match self {
            Self::Plain(socket) => socket.reset(),
            // A TLS client knows by the missing close_notify.
            Self::Tls(_) => {}
        }
    }
}
