//! A pod: a small HTTP/1.1 and h2c server that says what reached it.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | `N` bytes, streamed |
//! | `/status/N` | status `N` and the echo |
//! | `/slow?ms=N` | the echo, after `N` milliseconds |
//! | `/hold` | the echo, once [`Origin::release`] was called |
//! | `/echo` | the request's body, streamed back |
//! | with `Upgrade` | 101, then every byte comes back |
//! | all else | an [`Echo`] as JSON |

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, sync::watch};

/// Size of one frame of `/bytes/N`.
const CHUNK: Bytes = Bytes::from_static(&[b'x'; 16 * 1024]);

type Body = BoxBody<Bytes, hyper::Error>;

/// What an origin received, as it answers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Echo {
    /// Name given to [`Origin::start`].
    pub pod: String,
    /// Request method.
    pub method: String,
    /// Path and query, as received.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Address of the connection's other end: the proxy.
    pub peer: SocketAddr,
    /// Headers by lower-case name; several of one name are joined by `, `. `host` holds the
    /// authority of an HTTP/2 request.
    pub headers: BTreeMap<String, String>,
}

/// A running origin; stops when dropped.
#[derive(Debug)]
pub struct Origin {
    pod: String,
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    pod: String,
    requests: AtomicU64,
    held: AtomicU64,
    released: watch::Sender<bool>,
}

impl Origin {
    /// Serves on `address` (port 0 picks one) in the caller's network namespace.
    ///
    /// # Errors
    /// The address cannot be bound or the thread cannot be started.
    pub fn start(pod: &str, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            pod: pod.to_owned(),
            requests: AtomicU64::new(0),
            held: AtomicU64::new(0),
            released: watch::Sender::new(false),
        });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name(format!("origin {pod}"))
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)))?;
        Ok(Self {
            pod: pod.to_owned(),
            address,
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// Name it answers with.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Requests for `/hold` received so far.
    pub fn held(&self) -> u64 {
        self.state.held.load(Ordering::SeqCst)
    }

    /// Lets requests for `/hold` be answered, those that wait and those to come.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in the origin shows as failed requests in the test that uses it.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                tokio::spawn(connection(stream, peer, Arc::clone(&state)));
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, state: Arc<State>) {
    // Nagle would hold back the second write of a streamed answer.
    let _ = stream.set_nodelay(true);
    let http2 = starts_http2(&stream).await;
    let service = service_fn(move |request| answer(request, peer, Arc::clone(&state)));
    // A connection's end, clean or not, is the client's business.
    if http2 {
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    }
}

/// Tells whether the client opens with the HTTP/2 preface (RFC 9113 section 3.4).
async fn starts_http2(stream: &TcpStream) -> bool {
    let mut start = [0; 4];
    loop {
        match stream.peek(&mut start).await {
            Ok(4) => return start == *b"PRI ",
            Ok(n) if n > 0 && start.starts_with(b"P") => {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
            _ => return false,
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    if request.headers().contains_key(header::UPGRADE) {
        return Ok(upgrade(request));
    }
    let uri = request.uri().clone();
    let mut response = match uri.path().trim_start_matches('/').split_once('/') {
        Some(("bytes", count)) => bytes_of(count.parse().unwrap_or(0)),
        Some(("status", code)) => {
            let mut response = echo(&request, peer, &state);
            *response.status_mut() = code.parse().unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        _ => match uri.path() {
            "/echo" => Response::new(request.into_body().boxed()),
            path => {
                wait(path, uri.query(), &state).await;
                echo(&request, peer, &state)
            }
        },
    };
    if let Ok(pod) = HeaderValue::from_str(&state.pod) {
        response.headers_mut().insert("x-pod", pod);
    }
    Ok(response)
}

async fn wait(path: &str, query: Option<&str>, state: &State) {
    match path {
        "/slow" => {
            let ms = query
                .and_then(|query| query.strip_prefix("ms="))
                .and_then(|ms| ms.parse().ok());
            tokio::time::sleep(Duration::from_millis(ms.unwrap_or(100))).await;
        }
        "/hold" => {
            let mut released = state.released.subscribe();
            state.held.fetch_add(1, Ordering::SeqCst);
            // The sender lives in `state`, so this ends only by a release.
            let _ = released.wait_for(|released| *released).await;
        }
        _ => {}
    }
}

fn echo(request: &Request<Incoming>, peer: SocketAddr, state: &State) -> Response<Body> {
    let mut headers = BTreeMap::<String, String>::new();
    if let Some(authority) = request.uri().authority() {
        headers.insert("host".to_owned(), authority.to_string());
    }
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    let echo = Echo {
        pod: state.pod.clone(),
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        version: format!("{:?}", request.version()),
        peer,
        headers,
    };
    let json = serde_json::to_vec(&echo).unwrap_or_default();
    let mut response = Response::new(full(json.into()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn bytes_of(count: u64) -> Response<Body> {
    let chunks = stream::unfold(count, |left| async move {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        (size > 0).then(|| (Ok(Frame::data(CHUNK.slice(..size))), left - size as u64))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(chunks)));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    response
}

fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let protocol = request.headers().get(header::UPGRADE).cloned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    response
}
