//! What an operator, a probe or Prometheus asks: health, readiness, metrics, routes, status.
//!
//! A Unix socket of the process's own answers everything; a TCP port, where one is wanted, answers
//! what Prometheus asks and nothing that names objects.

mod page;
mod readiness;
mod routes;
mod status;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::watch,
};

use self::page::Page;
pub(crate) use self::{
    readiness::Readiness,
    status::{DataPlaneStatus, ListenerStatus, SourceStatus, Status},
};
use ingress_agent::Report;
use ingress_proxy::{metrics::Registry, table::RouteTable};

/// A client that sends its head slower than this is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// So is a scraper that takes nothing of its answer for so long.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Whether this process wants connections.
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// The table in force, empty before the first; none in an agent whose proxy is another process.
    pub(crate) tables: Option<watch::Receiver<Arc<RouteTable>>>,
    /// Everything `/status` shows.
    pub(crate) status: watch::Receiver<Arc<Status>>,
    /// What is wrong with which object.
    pub(crate) report: Report,
    /// Everything `/metrics` shows.
    pub(crate) metrics: Arc<Registry>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// This user or root, through the Unix socket.
    Operator,
    /// Anybody who reaches the metrics port.
    Scraper,
}

/// Answers everything on the Unix socket until its runtime ends.
///
/// # Cancel safety
/// Dropping the future closes the listener; answers under way go on in tasks of their own.
pub(crate) async fn serve(listener: UnixListener, state: State) {
    loop {
        let accepted = listener.accept().await;
        answer_to(Asker::Operator, accepted.map(|(stream, _)| stream), &state).await;
    }
}

/// Answers `/metrics` and `/healthz` on a port until its runtime ends.
///
/// # Cancel safety
/// As [`serve`].
pub(crate) async fn serve_metrics(listener: TcpListener, state: State) {
    loop {
        let accepted = listener.accept().await;
        let accepted = accepted.map(|(stream, _)| {
            limit(&stream, TAKE_TIMEOUT);
            stream
        });
        answer_to(Asker::Scraper, accepted, &state).await;
    }
}

/// Has the kernel end a connection whose other side takes nothing for `time`: a scrape is larger than
/// what it buffers, and anybody may ask.
fn limit(stream: &TcpStream, time: Duration) {
    // Fails only for what is no TCP socket.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(time));
}

async fn answer_to<S>(asker: Asker, accepted: io::Result<S>, state: &State)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match accepted {
        Ok(stream) => drop(tokio::spawn(connection(stream, asker, state.clone()))),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to come back instead of spinning.
            tracing::warn!(%error, ?asker, "admin listener cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn connection<S>(stream: S, asker: Asker, state: State)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request, asker, &state);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer<B>(request: &Request<B>, asker: Asker, state: &State) -> Response<Page> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n",
        );
    }
    match (request.uri().path(), asker) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n"),
        ("/metrics", _) => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            Page::Pieces(Box::new(state.metrics.expose())),
        ),
        ("/readyz", Asker::Operator) => match state.readiness.borrow().reason() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("not ready: {reason}\n"),
            ),
        },
        ("/routes", Asker::Operator) => match &state.tables {
            Some(tables) => json(&routes::list(&tables.borrow())),
            None => text(
                StatusCode::NOT_FOUND,
                "this is the agent; the proxy has the routes: ask its --admin-socket\n",
            ),
        },
        ("/status", Asker::Operator) => {
            let readiness = state.readiness.borrow();
            json(&state.status.borrow().shown(&readiness, &state.report))
        }
        (_, Asker::Operator) => text(
            StatusCode::NOT_FOUND,
            "try /healthz, /readyz, /metrics, /routes or /status\n",
        ),
        (_, Asker::Scraper) => text(
            StatusCode::NOT_FOUND,
            "this port has /metrics and /healthz; ask the admin socket for the rest\n",
        ),
    }
}

fn json(value: &impl serde::Serialize) -> Response<Page> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", Page::from(body + "\n")),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("cannot write JSON: {error}\n"),
        ),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Page> {
    typed(
        status,
        "text/plain; charset=utf-8",
        Page::from(body.to_owned()),
    )
}

fn typed(status: StatusCode, content_type: &'static str, body: Page) -> Response<Page> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn state(readiness: Readiness) -> State {
        State {
            readiness: watch::channel(readiness).1,
            tables: Some(watch::channel(Arc::default()).1),
            status: watch::channel(Arc::default()).1,
            report: Report::default(),
            metrics: Arc::new(Registry::new(1)),
        }
    }

    fn status(path: &str, asker: Asker, state: &State) -> u16 {
        let request = Request::get(path).body(()).unwrap();
        answer(&request, asker, state).status().as_u16()
    }

    #[test]
    fn readiness_follows_what_run_says_and_health_does_not() {
        let refused = Readiness::Refused("no CAP_BPF".into());
        for (readiness, ready) in [
            (Readiness::Starting, 503),
            (Readiness::Ready, 200),
            (refused, 503),
            (Readiness::ShuttingDown, 503),
        ] {
            let state = state(readiness.clone());
            let status = |path| status(path, Asker::Operator, &state);
            assert_eq!(
                (status("/healthz"), status("/readyz")),
                (200, ready),
                "{readiness:?}"
            );
        }
    }

    #[test]
    fn the_metrics_port_answers_what_prometheus_asks_and_nothing_else() {
        let state = state(Readiness::Ready);
        for (path, operator, scraper) in [
            ("/metrics", 200, 200),
            ("/healthz", 200, 200),
            ("/readyz", 200, 404),
            ("/routes", 200, 404),
            ("/status", 200, 404),
            ("/elsewhere", 404, 404),
        ] {
            let status = |asker| status(path, asker, &state);
            assert_eq!(
                (status(Asker::Operator), status(Asker::Scraper)),
                (operator, scraper),
                "{path}"
            );
        }
    }

    #[test]
    fn nothing_can_be_changed_by_asking() {
        let request = Request::post("/status").body(()).unwrap();
        for asker in [Asker::Operator, Asker::Scraper] {
            assert_eq!(
                answer(&request, asker, &state(Readiness::Ready)).status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{asker:?}"
            );
        }
    }

    /// What comes back for `requests` on one connection, up to its end.
    async fn answers(requests: &'static str, state: State) -> String {
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = tokio::net::UnixStream::from_std(server).unwrap();
        let serving = tokio::spawn(connection(server, Asker::Operator, state));
        let asking = tokio::task::spawn_blocking(move || {
            client.write_all(requests.as_bytes()).unwrap();
            let mut answers = String::new();
            client.read_to_string(&mut answers).unwrap();
            answers
        });
        serving.await.unwrap();
        asking.await.unwrap()
    }

    #[tokio::test]
    async fn a_scrape_has_an_end_of_its_own_and_leaves_the_connection_to_others() {
        let state = state(Readiness::Ready);
        state.metrics.worker();
        let shown: String = state.metrics.expose().collect();
        let all = answers(
            "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n\
             HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            state,
        )
        .await;
        let mut parts = all.split("HTTP/1.1 200 OK\r\n").skip(1);
        let mut next = || parts.next().and_then(|part| part.split_once("\r\n\r\n"));
        let (_, body) = next().unwrap();
        assert_eq!(body, "", "HEAD of a scrape");
        let (head, mut chunks) = next().unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut scraped = String::new();
        loop {
            let (size, rest) = chunks.split_once("\r\n").unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            scraped.push_str(&rest[..size]);
            chunks = rest[size..].strip_prefix("\r\n").unwrap();
            if size == 0 {
                break;
            }
        }
        assert_eq!((scraped, chunks), (shown, ""));
        let (head, body) = next().unwrap();
        assert!(head.contains("content-length: 3"), "{head}");
        assert_eq!(body, "", "HEAD of a page");
        assert_eq!(next().unwrap().1, "ok\n");
    }

    #[tokio::test]
    async fn an_old_scraper_gets_no_chunks() {
        for kept in ["", "Connection: keep-alive\r\n"] {
            let state = state(Readiness::Ready);
            state.metrics.worker();
            let shown: String = state.metrics.expose().collect();
            let request = format!("GET /metrics HTTP/1.0\r\n{kept}\r\n");
            let answer = answers(request.leak(), state).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(!head.contains("chunked"), "{head}");
            assert_eq!(body, shown, "{kept:?}");
        }
    }

    #[tokio::test]
    async fn a_scraper_that_takes_nothing_is_let_go() {
        let state = state(Readiness::Ready);
        // More than the kernel buffers.
        state.metrics.collect_with(Box::new(|exposition| {
            for number in 0..400_000 {
                exposition.sample("a_name_that_is_somewhat_long", &[], number);
            }
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut scraper = std::net::TcpStream::connect(address).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        scraper.write_all(request).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        limit(&stream, Duration::from_millis(300));
        let serving = connection(stream, Asker::Scraper, state);
        let ended = tokio::time::timeout(Duration::from_secs(20), serving).await;
        assert!(ended.is_ok(), "it is still served");
    }
}
