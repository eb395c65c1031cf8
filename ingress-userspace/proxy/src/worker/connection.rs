//! A downstream connection's beginning: handshake, then the protocol that its client speaks.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use ingress_model::Transport;
use tokio::time::timeout;

use super::{
    client::{Client, Ended},
    drain::Member,
    http1, http2,
    state::Worker,
    stream::Stream,
};
use crate::{
    net::{Deadline, Inbound, Socket},
    tls::TlsStream,
};

/// The preface of a client that speaks HTTP/2 by prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    socket: Socket,
    peer: SocketAddr,
    transport: Transport,
) {
    let _open = Open::new(&worker);
    let member = worker.drain.join();
    let mut serving = pin!(begin(Rc::clone(&worker), socket, peer, transport, member));
    let ended = poll_fn(|cx| {
        // One reading of the clock each time the task runs.
        worker.tick();
        serving.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(client = %peer, error = &*error, "connection ended");
    }
}

/// Tells the protocol and hands the connection over; what that takes is freed before it is served.
async fn begin(
    worker: Rc<Worker>,
    socket: Socket,
    peer: SocketAddr,
    transport: Transport,
    mut member: Member,
) -> Ended {
    let port = match transport {
        Transport::Plain => socket.local_port()?,
        Transport::Tls => 443,
    };
    let secure = transport == Transport::Tls;
    let client = Rc::new(Client::new(Rc::clone(&worker), peer, port, secure));
    let mut deadline = Deadline::default();
    let (stream, is_http2) = match transport {
        Transport::Plain => (Stream::Plain(socket), None),
        Transport::Tls => {
            let stream = Box::pin(handshake(&worker, socket)).await?;
            let is_http2 = stream.is_http2();
            (Stream::Tls(Box::new(stream.into())), Some(is_http2))
        }
    };
    member.await_first_request(worker.now());
    let mut inbound = Inbound::default();
    let is_http2 = match is_http2 {
        Some(chosen) => chosen,
        None => match detect(&worker, &stream, &mut inbound, &mut deadline, &mut member).await? {
            Some(told) => told,
            None => return Ok(()),
        },
    };
    if is_http2 {
        return Box::pin(http2::serve(client, stream, inbound, member)).await;
    }
    Ok(http1::Connection {
        client,
        stream,
        inbound,
        deadline,
        member,
    }
    .serve()
    .await?)
}

async fn handshake(worker: &Worker, socket: Socket) -> io::Result<TlsStream> {
    let handshake = TlsStream::accept(&worker.tls, socket);
    let handshake = timeout(worker.settings.handshake_timeout, handshake).await;
    let stream = handshake.map_err(io::Error::from).flatten();
    if stream.is_err() {
        worker.counters().handshakes_failed.increment();
    }
    stream
}

/// Whether the client speaks HTTP/2, told by its first bytes, which stay in `inbound`; `None` where
/// it sends none and the connection is to end.
async fn detect(
    worker: &Worker,
    stream: &Stream,
    inbound: &mut Inbound,
    deadline: &mut Deadline,
    member: &mut Member,
) -> io::Result<Option<bool>> {
    deadline.set(worker.now() + worker.settings.idle_timeout);
    let mut begun = false;
    poll_fn(|cx| {
        loop {
            let data = inbound.data();
            if data.len() >= PREFACE.len() || !PREFACE.starts_with(data) {
                return Poll::Ready(Ok(Some(data.starts_with(PREFACE))));
            }
            if !begun && !data.is_empty() {
                begun = true;
                deadline.set(worker.now() + worker.settings.head_timeout);
            }
            match inbound.poll_fill(cx, |cx, space| stream.poll_recv(cx, space)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let ends = deadline.poll(cx).is_ready() || (!begun && member.poll_idle_end(cx));
                    return if ends {
                        Poll::Ready(Ok(None))
                    } else {
                        Poll::Pending
                    };
                }
            }
        }
    })
    .await
}

/// Counts a connection while it is open, tunnels included, and a panic that ends it: the runtime ends
/// that task alone.
struct Open {
    worker: Rc<Worker>,
}

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.counters().open.increment();
        Self {
            worker: Rc::clone(worker),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.counters().open.decrement();
        if std::thread::panicking() {
            self.worker.counters().panics.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the future of a function of four holds, in bytes.
    fn future_size<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        // With Rust 1.95, 1,008 by itself and 1,056 with the features that the workspace's other
        // packages ask of the runtime; 1.96 takes 48 more. The benchmark `idle` shows what that costs.
        let size = future_size(serve);
        assert!(
            size <= 1104,
            "{size} bytes: what only a request needs belongs into a box of its own"
        );
    }
}
