//! One downstream connection: handshake, protocol, then requests until one side has had enough.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    Transport,
    accept::Worker,
    drain::Member,
    idle::HeadTimer,
    request,
    stream::{Socket, Stream},
};
use crate::{metrics::WorkerMetrics, tls::TlsStream, upstream::Deadline};

/// What an HTTP/2 client that was told nothing sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest head of a request, over HTTP/1.1 and HTTP/2; larger ones get 431.
const HEAD_LIMIT: usize = 32 * 1024;
/// Streams one HTTP/2 connection may have open.
const STREAM_LIMIT: u32 = 100;

/// What requests of one connection have in common.
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    /// Whether the connection is TLS.
    pub(super) secure: bool,
    /// The lines of the forwarded head that are the same for every request of the connection.
    pub(super) forwarded: Box<[u8]>,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    transport: Transport,
) {
    let _open = Open::new(&worker);
    let member = worker.drain.join();
    if let Err(error) = serve_transport(&worker, stream, peer, transport, member).await {
        tracing::debug!(client = %peer, error = &*error, "connection ended");
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve_transport(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    peer: SocketAddr,
    transport: Transport,
    mut member: Member,
) -> Ended {
    stream.set_nodelay(true)?;
    let port = match transport {
        Transport::Plain => stream.local_addr()?.port(),
        Transport::Tls => 443,
    };
    let secure = transport == Transport::Tls;
    let client = Rc::new(Client {
        worker: Rc::clone(worker),
        secure,
        forwarded: forwarded(peer.ip(), port, secure),
    });
    let head_timeout = worker.settings.head_timeout;
    let (socket, ahead, is_http2) = match transport {
        Transport::Plain => {
            let ahead = timeout(head_timeout, read_ahead(&mut stream, &mut member)).await??;
            let is_http2 = ahead.starts_with(PREFACE);
            (Socket::Plain(stream), ahead, is_http2)
        }
        Transport::Tls => {
            let mut stream = handshake(worker, stream).await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let ahead = timeout(head_timeout, read_ahead(&mut stream, &mut member)).await??;
            (Socket::Tls(Box::new(stream)), ahead, is_http2)
        }
    };
    let stream = Stream::new(socket, ahead, worker.settings.write_timeout);
    if is_http2 {
        serve_http2(client, stream, member).await
    } else {
        serve_http1(client, stream, member).await
    }
}

async fn handshake(worker: &Worker, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let handshake = timeout(worker.settings.handshake_timeout, worker.tls.accept(stream)).await;
    let stream = handshake.map_err(io::Error::from).flatten();
    if stream.is_err() {
        worker.counters().handshakes_failed.increment();
    }
    stream
}

/// Reads until the first bytes tell HTTP/2 from HTTP/1.1, or shutdown begins.
async fn read_ahead(
    stream: &mut (impl AsyncRead + Unpin),
    member: &mut Member,
) -> io::Result<Bytes> {
    let mut ahead = BytesMut::with_capacity(2048);
    loop {
        let read = {
            let mut read = pin!(stream.read_buf(&mut ahead));
            poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Pending if member.poll_begun(cx) => Poll::Ready(Ok(0)),
                read => read,
            })
            .await?
        };
        let told = ahead.len() >= PREFACE.len() || !PREFACE.starts_with(&ahead);
        if read > 0 {
            member.asked();
        }
        if read == 0 || told {
            return Ok(ahead.freeze());
        }
    }
}

async fn serve_http1(client: Rc<Client>, stream: Stream, mut member: Member) -> Ended {
    let timer = HeadTimer::new();
    let mut deadline = Deadline::default();
    let head_timeout = client.worker.settings.head_timeout;
    let service = service_fn(move |incoming| request::handle(Rc::clone(&client), incoming));
    let connection = http1::Builder::new()
        .timer(timer.clone())
        .header_read_timeout(head_timeout)
        .max_header_size(HEAD_LIMIT)
        .max_buf_size(2 * HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if member.poll_begun(cx) && !draining {
                draining = true;
                connection.as_mut().graceful_shutdown();
            } else if timer.poll(&mut deadline, cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await?;
    Ok(())
}

async fn serve_http2(client: Rc<Client>, stream: Stream, mut member: Member) -> Ended {
    let streams = Streams::new(Arc::clone(&client.worker.metrics));
    let idle = client.worker.settings.head_timeout;
    let mut deadline = Deadline::default();
    deadline.set(Instant::now() + idle);
    let service = service_fn(move |incoming| request::handle(Rc::clone(&client), incoming));
    // What one connection can make us hold is its window, and for each stream a head and a send
    // buffer.
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAM_LIMIT)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_header_list_size(HEAD_LIMIT as u32)
        .max_send_buf_size(64 * 1024)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if deadline.poll(cx).is_ready() {
                deadline.set(Instant::now() + idle);
                if !streams.are_idle() {
                    continue;
                }
            } else if !member.poll_begun(cx) || draining {
                return Poll::Pending;
            }
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await?;
    Ok(())
}

/// The forwarding fields that depend only on the connection, as ingress-nginx sends them: what the
/// client says of its own address is replaced.
fn forwarded(peer: IpAddr, port: u16, secure: bool) -> Box<[u8]> {
    let (peer, scheme) = (peer.to_canonical(), if secure { "https" } else { "http" });
    let mut lines = Vec::with_capacity(192);
    // Writing to memory cannot fail.
    let _ = write!(
        lines,
        "x-real-ip: {peer}\r\nx-forwarded-for: {peer}\r\nx-forwarded-port: {port}\r\n\
         x-forwarded-proto: {scheme}\r\nx-forwarded-scheme: {scheme}\r\nx-scheme: {scheme}\r\n"
    );
    lines.into_boxed_slice()
}

/// Runs the streams of an HTTP/2 connection on this worker, and knows whether there are any.
#[derive(Clone)]
struct Streams {
    metrics: Arc<WorkerMetrics>,
    open: Rc<Cell<usize>>,
    /// Whether a stream has begun since the last look.
    begun: Rc<Cell<bool>>,
}

impl Streams {
    fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            metrics,
            open: Rc::default(),
            begun: Rc::default(),
        }
    }

    /// Whether no stream is open and none has begun since the last time this was asked.
    fn are_idle(&self) -> bool {
        !self.begun.take() && self.open.get() == 0
    }
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.begun.set(true);
        self.open.set(self.open.get() + 1);
        let open = OpenStream {
            open: Rc::clone(&self.open),
            _count: PanicCount(Arc::clone(&self.metrics)),
        };
        spawn_local(async move {
            let _open = open;
            stream.await;
        });
    }
}

/// Counts a stream while it is open.
struct OpenStream {
    open: Rc<Cell<usize>>,
    _count: PanicCount,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// Counts a connection while it is open.
struct Open {
    worker: Rc<Worker>,
    _count: PanicCount,
}

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.counters().open.increment();
        Self {
            worker: Rc::clone(worker),
            _count: PanicCount(Arc::clone(&worker.metrics)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.counters().open.decrement();
    }
}

/// Counts a panic of the task that it lives in; the runtime ends that task alone.
struct PanicCount(Arc<WorkerMetrics>);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.counters.panics.increment();
        }
    }
}
