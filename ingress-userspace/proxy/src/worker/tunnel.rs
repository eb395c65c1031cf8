//! A connection that became a WebSocket: bytes both ways, until both sides have ended or nothing
//! moves.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    net::TcpStream,
    select,
    time::sleep,
};

/// Moves bytes between the client and its endpoint. `received` is what the endpoint sent along
/// with its 101; `idle` is how long nothing may move (`proxy-read-timeout`, as with ingress-nginx).
pub(super) async fn run(
    upgrade: OnUpgrade,
    endpoint: TcpStream,
    received: Bytes,
    idle: Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = TokioIo::new(upgrade.await?);
    client.write_all(&received).await?;
    let moved = Rc::new(Cell::new(false));
    let mut endpoint = Watched {
        stream: endpoint,
        moved: Rc::clone(&moved),
    };
    let mut copy = std::pin::pin!(copy_bidirectional(&mut client, &mut endpoint));
    loop {
        select! {
            done = &mut copy => return Ok(done.map(drop)?),
            () = sleep(idle) => if !moved.take() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            },
        }
    }
}

/// A stream that leaves a mark when a byte moves.
struct Watched {
    stream: TcpStream,
    moved: Rc<Cell<bool>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.moved.set(this.moved.get() || read.is_ready());
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.moved.set(this.moved.get() || written.is_ready());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.moved.set(this.moved.get() || written.is_ready());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
