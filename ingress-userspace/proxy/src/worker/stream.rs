//! The client's side of a connection: TCP or TLS, with what was read ahead, and a limit on standing
//! still.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::{tls::TlsStream, upstream::Deadline};

/// Up to this size, parts of a write are copied together: a copy costs less than `writev` does.
const GATHER_LIMIT: usize = 4 * 1024;

/// The transport under a [`Stream`].
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's connection as the HTTP codec sees it.
pub(super) struct Stream {
    socket: Socket,
    /// Read ahead to tell HTTP/2 from HTTP/1.1; given out first.
    ahead: Bytes,
    gathered: Vec<u8>,
    /// Set while the client takes nothing.
    stalled: Deadline,
    write_timeout: Duration,
}

impl Stream {
    pub(super) fn new(socket: Socket, ahead: Bytes, write_timeout: Duration) -> Self {
        Self {
            socket,
            ahead,
            gathered: Vec::new(),
            stalled: Deadline::default(),
            write_timeout,
        }
    }

    /// Turns a write that stands still for too long into an error.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled.clear();
            return written;
        }
        if !self.stalled.is_set() {
            self.stalled.set(Instant::now() + self.write_timeout);
        }
        self.stalled
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let take = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(take));
            return Poll::Ready(Ok(()));
        }
        match &mut this.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        this.watch(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.socket {
            Socket::Plain(stream) => {
                if bufs.iter().map(|buf| buf.len()).sum::<usize>() <= GATHER_LIMIT {
                    this.gathered.clear();
                    bufs.iter()
                        .for_each(|buf| this.gathered.extend_from_slice(buf));
                    Pin::new(stream).poll_write(cx, &this.gathered)
                } else {
                    Pin::new(stream).poll_write_vectored(cx, bufs)
                }
            }
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        this.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.socket {
            // TCP has nothing to flush.
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Tls(stream) => {
                let flushed = Pin::new(stream.as_mut()).poll_flush(cx);
                this.watch(flushed, cx)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
