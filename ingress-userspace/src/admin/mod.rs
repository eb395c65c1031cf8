//! What an operator, a probe or Prometheus asks: health, readiness, metrics, routes, status.

mod routes;
mod status;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) use self::status::{DataPlaneStatus, ListenerStatus, SourceStatus, Status};
use ingress_proxy::{metrics::Registry, table::RouteTable};

/// A client of the admin port that sends its head slower than this is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Set by `run` once a table is in force and workers accept; cleared at shutdown.
    pub(crate) ready: Arc<AtomicBool>,
    /// The table in force; empty before the first.
    pub(crate) tables: watch::Receiver<Arc<RouteTable>>,
    /// Everything `/status` shows.
    pub(crate) status: watch::Receiver<Arc<Status>>,
    /// Everything `/metrics` shows.
    pub(crate) metrics: Arc<Registry>,
}

/// Serves the admin port until its runtime ends.
///
/// # Cancel safety
/// Dropping the future closes the listener; answers under way go on in tasks of their own.
pub(crate) async fn serve(listener: TcpListener, state: State) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, state.clone()))),
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "admin port cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: State) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request, &state);
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

fn answer<B>(request: &Request<B>, state: &State) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n",
        );
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if state.ready.load(Relaxed) => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no table in force, or shutting down: see /status\n",
        ),
        "/metrics" => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            state.metrics.expose(),
        ),
        "/routes" => json(&routes::list(&state.tables.borrow())),
        "/status" => json(&**state.status.borrow()),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /healthz, /readyz, /metrics, /routes or /status\n",
        ),
    }
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => typed(StatusCode::OK, "application/json", body + "\n"),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("cannot write JSON: {error}\n"),
        ),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            ready: Arc::default(),
            tables: watch::channel(Arc::default()).1,
            status: watch::channel(Arc::default()).1,
            metrics: Arc::new(Registry::new(1)),
        }
    }

    #[test]
    fn readiness_follows_the_flag_and_health_does_not() {
        let state = state();
        let status = |path: &str| answer(&Request::get(path).body(()).unwrap(), &state).status();
        assert_eq!(
            (status("/healthz"), status("/readyz")),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
        state.ready.store(true, Relaxed);
        assert_eq!(status("/readyz"), StatusCode::OK);
        assert_eq!(status("/metrics"), StatusCode::OK);
        assert_eq!(status("/elsewhere"), StatusCode::NOT_FOUND);
    }

    #[test]
    fn nothing_can_be_changed_through_the_admin_port() {
        let request = Request::post("/status").body(()).unwrap();
        assert_eq!(
            answer(&request, &state()).status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
