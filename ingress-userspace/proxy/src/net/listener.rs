//! A listening socket whose connections are registered with the runtime only once, as [`Socket`]s.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Socket, sys::register};

/// A listener of one worker.
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Takes a listener over. It must not block.
    pub(crate) fn adopt(listener: TcpListener) -> io::Result<Self> {
        Ok(Self(register(listener.into(), Interest::READABLE)?))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The process is out of descriptors, or the connection died before it was accepted.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        self.0.async_io(Interest::READABLE, accept).await
    }

    /// The next connection that waits in the queue. Asks the kernel, since the runtime may not have
    /// heard of the last arrivals yet.
    ///
    /// # Errors
    /// As [`Self::accept`]; `WouldBlock` where none waits.
    pub(crate) fn accept_now(&self) -> io::Result<(Socket, SocketAddr)> {
        accept(self.0.get_ref())
    }
}

fn accept(listener: &OwnedFd) -> io::Result<(Socket, SocketAddr)> {
    let (fd, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((
        Socket::adopt(fd)?,
        peer.ok_or(io::ErrorKind::ConnectionAborted)?,
    ))
}
