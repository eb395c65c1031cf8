//! One request, from its head to the head of its response.

use std::{convert::Infallible, fmt, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    connection::Client,
    forward::{self, Forwarded},
    respond::{self, Payload},
    routes::Target,
    sanitize::{Sanitized, sanitize},
};
use crate::table::Entry;

/// Where certificate authorities look for proofs of ownership: never redirected.
const ACME_CHALLENGES: &[u8] = b"/.well-known/acme-challenge";

/// Identifies a request in what we send upstream, in error pages and in logs.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// The client's own.
    Given(HeaderValue),
    /// 32 hexadecimal digits.
    Made([u8; 32]),
}

impl RequestId {
    fn of(sanitized: &Sanitized<'_>) -> Self {
        sanitized
            .request_id
            .map_or_else(Self::random, |given| Self::Given(given.clone()))
    }

    fn random() -> Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let random = fastrand::u128(..).to_le_bytes();
        let mut text = [0; 32];
        for (digits, byte) in text.chunks_exact_mut(2).zip(random) {
            digits.copy_from_slice(&[
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]);
        }
        Self::Made(text)
    }

    /// The text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(value) => value.as_bytes(),
            Self::Made(text) => text,
        }
    }
}

/// Answers one request. Never fails: what goes wrong becomes a status.
///
/// # Cancel safety
/// Dropping the future, as hyper does when the client goes away, stops the endpoint too.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let routes = client.worker.routes();
    let version = parts.version;

    let sanitized = match sanitize(&parts) {
        Ok(sanitized) => sanitized,
        Err(rejection) => {
            tracing::trace!(%rejection, "request rejected");
            let response = respond::status(rejection.status(), &RequestId::random(), version);
            return Ok(unrouted(&client, started, response));
        }
    };
    let id = RequestId::of(&sanitized);
    let Some((entry, target)) = routes.lookup(&sanitized.host, &sanitized.path) else {
        return Ok(unrouted(
            &client,
            started,
            respond::status(StatusCode::NOT_FOUND, &id, version),
        ));
    };
    let response = if entry.denied().is_some() {
        respond::status(StatusCode::SERVICE_UNAVAILABLE, &id, version)
    } else if let Some(location) = redirect(&client, entry, &sanitized) {
        respond::redirect(location, &id, version)
    } else if is_too_large(entry, &sanitized) {
        respond::status(StatusCode::PAYLOAD_TOO_LARGE, &id, version)
    } else {
        let plan = forward::plan(&client, entry, &sanitized, &id, &parts);
        let forwarded =
            forward::forward(&client, entry, target, plan, &mut parts, body, started).await;
        answer(&client, entry, forwarded, parts, &id)
    };
    record(target, started, &response);
    Ok(response)
}

fn answer(
    client: &Client,
    entry: &Entry,
    forwarded: Forwarded,
    parts: Parts,
    id: &RequestId,
) -> Response<Payload> {
    let mut response = match forwarded.outcome {
        Ok((status, payload)) => respond::forwarded(status, parts.headers, payload),
        Err(error) => {
            let side = error.side();
            let error_chain = &error as &dyn std::error::Error;
            tracing::debug!(backend = %entry.backend.key, ?side, error = error_chain, "request failed");
            respond::error(&error, id, parts.version)
        }
    };
    if let Some(node) = &client.worker.settings.trace_node {
        let trace = Trace {
            node,
            worker: client.worker.id,
            entry,
            endpoint: forwarded.endpoint,
        }
        .to_string();
        if let Ok(trace) = HeaderValue::from_maybe_shared(Bytes::from(trace)) {
            response.headers_mut().insert("x-forebay", trace);
        }
    }
    response
}

/// Where to send a plain request that belongs on https: host without port, raw target, less one
/// final slash, as ingress-nginx does.
fn redirect(client: &Client, entry: &Entry, sanitized: &Sanitized<'_>) -> Option<String> {
    if client.secure
        || !entry.redirect_to_https
        || sanitized.path.as_bytes().starts_with(ACME_CHALLENGES)
    {
        return None;
    }
    let mut location = format!("https://{}{}", sanitized.host.as_str(), sanitized.raw_path);
    if let Some(query) = sanitized.query {
        location.push('?');
        location.push_str(query);
    }
    if location.ends_with('/') {
        location.pop();
    }
    Some(location)
}

fn is_too_large(entry: &Entry, sanitized: &Sanitized<'_>) -> bool {
    match (entry.route.policy.body_limit, sanitized.content_length) {
        (Some(limit), Some(length)) => length > limit,
        _ => false,
    }
}

fn unrouted(client: &Client, started: Instant, response: Response<Payload>) -> Response<Payload> {
    client
        .worker
        .counters()
        .unrouted
        .record(response.status().as_u16(), started.elapsed());
    response
}

fn record(target: &Target, started: Instant, response: &Response<Payload>) {
    target
        .counters
        .record(response.status().as_u16(), started.elapsed());
}

/// The value of `x-forebay`: which way a request went.
struct Trace<'a> {
    node: &'a str,
    worker: usize,
    entry: &'a Entry,
    /// Position of the endpoint in the backend's list.
    endpoint: Option<usize>,
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            worker,
            entry,
            ..
        } = self;
        write!(
            f,
            "node={node} worker={worker} ingress={} backend={}",
            entry.route.ingress, entry.backend.key
        )?;
        let Some(endpoint) = self
            .endpoint
            .and_then(|index| entry.backend.endpoints.get(index))
        else {
            return Ok(());
        };
        write!(f, " endpoint={}", endpoint.address)?;
        endpoint
            .pod
            .as_ref()
            .map_or(Ok(()), |pod| write!(f, " pod={pod}"))
    }
}
