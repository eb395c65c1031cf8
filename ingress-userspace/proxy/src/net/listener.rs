//! A listening socket whose connections are registered with the runtime only once, as [`Socket`]s.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{SocketFlags, acceptfrom_with, sockopt};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Socket, sys::register};

/// A peer that is silent for so long is asked whether it is still there, up to three times at this
/// distance. One that has vanished would hold its endpoint for as long as a response may take.
const PROBE: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;

/// A listener of one worker.
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Takes a listener over. It must not block.
    pub(crate) fn adopt(listener: TcpListener) -> io::Result<Self> {
        // Its connections inherit these (`tcp(7)`).
        sockopt::set_socket_keepalive(&listener, true)?;
        sockopt::set_tcp_keepidle(&listener, PROBE)?;
        sockopt::set_tcp_keepintvl(&listener, PROBE)?;
        sockopt::set_tcp_keepcnt(&listener, PROBES)?;
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

#[cfg(all(test, not(fuzzing)))]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_that_vanishes_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::adopt(listener).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (fd, _) = acceptfrom_with(listener.0.get_ref(), SocketFlags::CLOEXEC).unwrap();
        assert!(sockopt::socket_keepalive(&fd).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&fd).unwrap(), PROBE);
        assert_eq!(sockopt::tcp_keepintvl(&fd).unwrap(), PROBE);
        assert_eq!(sockopt::tcp_keepcnt(&fd).unwrap(), PROBES);
    }
}
