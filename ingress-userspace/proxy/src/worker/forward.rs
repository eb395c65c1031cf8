//! Sends a routed request to an endpoint of its backend, and to another one where the first is not
//! there.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode, header, request::Parts};
use http_body::Body;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::{task::spawn_local, time::Instant};

use super::{
    connection::Client, request::RequestId, respond::Payload, routes::Target, sanitize::Sanitized,
    tunnel,
};
use crate::{
    table::Entry,
    upstream::{
        Answer, Ask, Choice, ForwardError, Lease, ReplyBody, Timeouts, Upload, connect, exchange,
    },
};

/// What is sent, worked out before an endpoint is chosen.
pub(super) struct Plan {
    /// The head, but for the framing of the body and the last line end.
    head: Vec<u8>,
    upgrade: bool,
    content_length: Option<u64>,
}

/// What came of it.
pub(super) struct Forwarded {
    /// Status and body; the fields are in the request's map.
    pub(super) outcome: Result<(StatusCode, Payload), ForwardError>,
    /// The endpoint tried last, by its position in the backend's list.
    pub(super) endpoint: Option<usize>,
}

/// Writes the head that goes upstream.
pub(super) fn plan(
    client: &Client,
    entry: &Entry,
    sanitized: &Sanitized<'_>,
    id: &RequestId,
    parts: &Parts,
) -> Plan {
    let mut head = Vec::with_capacity(1024);
    let mut put = |pieces: &[&[u8]]| {
        pieces
            .iter()
            .for_each(|piece| head.extend_from_slice(piece))
    };
    let path = entry.upstream_path(sanitized.raw_path, &sanitized.path);
    put(&[parts.method.as_str().as_bytes(), b" ", path.as_bytes()]);
    if let Some(query) = sanitized.query {
        put(&[b"?", query.as_bytes()]);
    }
    let authority = sanitized.authority.as_bytes();
    put(&[
        b" HTTP/1.1\r\nhost: ",
        authority,
        b"\r\nx-forwarded-host: ",
        authority,
    ]);
    put(&[
        b"\r\nx-request-id: ",
        id.as_bytes(),
        b"\r\n",
        &client.forwarded,
    ]);
    for (name, value) in &parts.headers {
        if sanitized.passes(name) {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    // HTTP/2 clients may cut a cookie into crumbs (RFC 9113 section 8.2.3).
    for (field, name, between) in [
        (header::COOKIE, &b"cookie: "[..], &b"; "[..]),
        (
            super::sanitize::X_FORWARDED_FOR,
            b"x-original-forwarded-for: ",
            b", ",
        ),
    ] {
        for (position, value) in parts.headers.get_all(&field).iter().enumerate() {
            put(&[if position == 0 { name } else { between }, value.as_bytes()]);
        }
        if parts.headers.contains_key(&field) {
            put(&[b"\r\n"]);
        }
    }
    if sanitized.trailers {
        put(&[b"te: trailers\r\n"]);
    }
    if sanitized.upgrade {
        put(&[b"connection: upgrade\r\nupgrade: websocket\r\n"]);
    }
    Plan {
        head,
        upgrade: sanitized.upgrade,
        content_length: sanitized.content_length,
    }
}

/// Forwards the request; `parts.headers` holds the response's fields afterwards, if there is one.
///
/// # Cancel safety
/// Dropping the future closes the connection to the endpoint.
pub(super) async fn forward(
    client: &Client,
    entry: &Entry,
    target: &Target,
    mut plan: Plan,
    parts: &mut Parts,
    body: Incoming,
    started: Instant,
) -> Forwarded {
    let mut upload = frame_body(&mut plan, body, entry);
    let Some(mut choice) = target.balance.pick() else {
        return Forwarded {
            outcome: Err(ForwardError::NoEndpoint),
            endpoint: None,
        };
    };
    let policy = &entry.route.policy;
    let settings = &client.worker.settings;
    let ask = Ask {
        head: parts.method == Method::HEAD,
        upgrade: plan.upgrade,
        started,
        timeouts: Timeouts {
            read: policy.read_timeout,
            send: policy.send_timeout,
            body: settings.body_timeout,
        },
    };
    let mut attempt = Attempt::First;
    let outcome = loop {
        let fresh = attempt == Attempt::Fresh;
        let mut reused = false;
        let tried = async {
            let mut lease = lease(client, choice, policy.connect_timeout, fresh).await?;
            reused = lease.reused();
            lease.head().extend_from_slice(&plan.head);
            exchange(lease, &mut upload, &mut parts.headers, ask).await
        }
        .await;
        let touched = upload.as_ref().is_some_and(Upload::touched);
        match tried {
            Err(error) if attempt == Attempt::First && error.unsent() => {
                attempt = Attempt::Other;
                choice = target.balance.pick_other(choice.index).unwrap_or(choice);
            }
            // The endpoint closed an idle connection just as we used it.
            Err(ForwardError::Unanswered { .. })
                if reused
                    && attempt == Attempt::First
                    && !touched
                    && parts.method.is_idempotent() =>
            {
                attempt = Attempt::Fresh;
            }
            outcome => break outcome,
        }
        client.worker.counters().retries.increment();
    };
    let outcome = outcome.map(|answer| settle(client, parts, answer, policy.read_timeout));
    Forwarded {
        outcome,
        endpoint: Some(choice.index),
    }
}

/// Which try this is; there is one retry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    /// On another endpoint: no connection could be made.
    Other,
    /// On a new connection: the pooled one was dead.
    Fresh,
}

/// Ends the head with the framing of the body.
fn frame_body(plan: &mut Plan, body: Incoming, entry: &Entry) -> Option<Upload> {
    let limit = entry.route.policy.body_limit;
    let length = plan.content_length.or_else(|| body.size_hint().exact());
    // Writing to memory cannot fail.
    let upload = if body.is_end_stream() {
        if let Some(length) = plan.content_length {
            let _ = write!(plan.head, "content-length: {length}\r\n");
        }
        None
    } else if let Some(length) = length {
        let _ = write!(plan.head, "content-length: {length}\r\n");
        Some(Upload::new(body, false, limit))
    } else {
        plan.head
            .extend_from_slice(b"transfer-encoding: chunked\r\n");
        Some(Upload::new(body, true, limit))
    };
    plan.head.extend_from_slice(b"\r\n");
    upload
}

async fn lease(
    client: &Client,
    choice: Choice<'_>,
    limit: Duration,
    fresh: bool,
) -> Result<Lease, ForwardError> {
    let counters = client.worker.counters();
    if let Some(lease) = choice.endpoint.checkout().filter(|_| !fresh) {
        counters.upstream_reused.increment();
        return Ok(lease);
    }
    counters.upstream_connects.increment();
    match connect(choice.endpoint.address(), limit).await {
        Ok(stream) => Ok(choice.endpoint.adopt(stream)),
        Err(error) => {
            counters.upstream_connects_failed.increment();
            Err(error)
        }
    }
}

fn settle(
    client: &Client,
    parts: &mut Parts,
    answer: Answer,
    idle: Duration,
) -> (StatusCode, Payload) {
    let payload = match answer.body {
        ReplyBody::Whole(body) => Payload::whole(body),
        ReplyBody::Streamed(download) => Payload::Streamed(download),
        ReplyBody::Switched(stream, received) => {
            if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
                // The tunnel counts as a connection: a drain waits for it until the grace is over.
                let member = client.worker.drain.join();
                spawn_local(async move {
                    let _member = member;
                    if let Err(error) = tunnel::run(upgrade, stream, received.freeze(), idle).await
                    {
                        tracing::debug!(error = &*error, "tunnel ended");
                    }
                });
            }
            Payload::whole(Bytes::new())
        }
    };
    (answer.status, payload)
}
