//! An HTTP/2 client over hyper, for tests that need good behaviour; `rfc::http2` has the other kind.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::{
    body::Body,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::timeout,
};

/// Longest wait for what has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The task that ends with its connection.
pub(crate) type Connection = JoinHandle<hyper::Result<()>>;

/// An HTTP/2 connection over `io`.
pub(crate) async fn http2<B>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (SendRequest<B>, Connection)
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static,
{
    handshake(io, &Builder::new(TokioExecutor::new())).await
}

/// A connection that gives its streams no window: nothing of a body may be sent on them.
pub(crate) async fn without_window(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (SendRequest<Full<Bytes>>, Connection) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    handshake(io, &builder).await
}

async fn handshake<B>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    builder: &Builder<TokioExecutor>,
) -> (SendRequest<B>, Connection)
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static,
{
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Waits until the proxy has let a connection go, with GOAWAY or by closing it.
pub(crate) async fn let_go(connection: Connection) {
    timeout(LIMIT, connection)
        .await
        .expect("the connection was not let go")
        .unwrap()
        .unwrap();
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}
