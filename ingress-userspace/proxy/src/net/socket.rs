//! A TCP connection that is read and written by system calls of our own.
//!
//! glibc's `recv` and `send` are points of cancellation, which cost a threaded process 1.6 % of a
//! request. These go to the kernel directly. As tokio does, a read that does not fill its buffer
//! counts as the last one: the next waits for the kernel's word instead of asking for `EAGAIN`.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use super::{
    Room,
    sys::{register, unacknowledged},
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect,
        connect_unspec, recv, send, shutdown, socket_with, sockopt,
    },
};
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// A connection, registered with the worker's runtime.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: AsyncFd<OwnedFd>,
}

impl Socket {
    /// Takes a connection over, with Nagle's algorithm off. `fd` must not block.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&fd, true)?;
        Ok(Self {
            fd: register(fd, Interest::READABLE | Interest::WRITABLE)?,
        })
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// What the kernel says: refused, unreachable, timed out.
    ///
    /// # Cancel safety
    /// Dropping the future closes the half-open connection.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = match address.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = Self::adopt(socket_with(family, SocketType::STREAM, flags, None)?)?;
        match connect(&socket.fd, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                // Writable means decided: connected, or the error is in SO_ERROR.
                socket.fd.writable().await?.retain_ready();
                sockopt::socket_error(&socket.fd)??;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(socket)
    }

    /// Receives into `room`; 0 is the end of the stream.
    #[inline]
    pub(crate) fn poll_recv<'r>(
        &self,
        cx: &mut Context<'_>,
        room: impl Room<'r>,
    ) -> Poll<io::Result<usize>> {
        // Most often there is nothing: this much is made a part of whoever asks.
        let ready = ready!(self.fd.poll_read_ready(cx))?;
        self.poll_recv_ready(cx, ready, room.take())
    }

    fn poll_recv_ready<'s>(
        &'s self,
        cx: &mut Context<'_>,
        mut ready: AsyncFdReadyGuard<'s, OwnedFd>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    if count > 0 && count < buffer.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    ready = ready!(self.fd.poll_read_ready(cx))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Sends the beginning of `bytes`.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, || send(&self.fd, bytes, SendFlags::NOSIGNAL))
    }

    /// Sends the beginning of all `pieces` in a row.
    pub(crate) fn poll_send_pieces(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A Rust process ignores SIGPIPE, so that `writev` needs no flag against it.
        self.poll_write_with(cx, || rustix::io::writev(&self.fd, pieces))
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        // Nearly always there is room. To ask the runtime first costs each write more than a needless
        // one costs where there is none.
        loop {
            match write() {
                Ok(count) => return Poll::Ready(Ok(count)),
                // What the runtime knows may be older than this answer or newer: it is forgotten, and
                // the kernel asked again.
                Err(Errno::AGAIN) => ready!(self.fd.poll_write_ready(cx))?.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn shut_down(&self) {
        // Fails where the other side is gone: then nobody listens anyway.
        let _ = shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&self) {
        // By SO_LINGER the close would do it, but a confined process may not set that. Fails where the
        // connection has ended.
        let _ = connect_unspec(&self.fd);
    }

    /// Bytes that were sent and that the other side has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u32 {
        // Fails only for what is no socket.
        unacknowledged(&self.fd).unwrap_or(0)
    }

    /// Whether the other side has neither closed the connection nor sent anything.
    ///
    /// Costs no system call while nothing has arrived: the runtime knows.
    pub(crate) fn is_quiet(&self) -> bool {
        let peeked = self.fd.try_io(Interest::READABLE, |fd| {
            Ok(recv(fd, &mut [0_u8][..], RecvFlags::PEEK)?)
        });
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The local port: where a client connected to.
    pub(crate) fn local_port(&self) -> io::Result<u16> {
        Ok(socket2::SockRef::from(&self.fd.get_ref().as_fd())
            .local_addr()?
            .as_socket()
            .map_or(0, |own| own.port()))
    }
}
