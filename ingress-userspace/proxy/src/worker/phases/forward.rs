//! Sends a routed request to an endpoint of its upstream, and retries on another if that is safe.

use std::{
    future::{Future, poll_fn},
    io::Write,
    rc::Rc,
    sync::Arc,
};

use super::{
    request_id::RequestId,
    sanitize::{RequestHead, Sanitized},
};
use crate::{
    http1::{Announced, Framing, Name},
    net::Outbound,
    upstream::{
        Ask, Attempts, Choice, Exchange, Failure, ForwardError, Head, Lease, Outgoing, Repeatable,
        RequestBody, Timeouts, Upstream,
    },
    worker::{client::Client, record::Record, route::Route},
};

/// A request that is to be forwarded, and what has to be known of it until it is answered.
pub(in crate::worker) struct Plan {
    pub(in crate::worker) entry: Route,
    /// A place in the entry's upstreams.
    target: usize,
    pub(super) id: RequestId,
    /// The whole head that goes upstream; taken when it is sent.
    head: Option<Outbound>,
    pub(in crate::worker) framing: Framing,
    pub(in crate::worker) upgrade: bool,
    /// The client takes trailers.
    pub(in crate::worker) trailers: bool,
    pub(in crate::worker) is_head: bool,
    is_idempotent: bool,
}

/// A response whose head has arrived.
pub(in crate::worker) struct Forwarded<B> {
    pub(in crate::worker) exchange: Box<Exchange<B>>,
    pub(in crate::worker) head: Head,
}

/// Writes the head that goes upstream.
pub(super) fn plan(
    client: &Client,
    entry: Route,
    head: &RequestHead<'_>,
    mut request: Sanitized<'_>,
    id: RequestId,
) -> Plan {
    let mut out = Outbound::new();
    let path = entry.upstream_path(request.raw_path, &request.path);
    let path: &[u8] = if request.is_for_endpoint {
        b"*"
    } else {
        path.as_bytes()
    };
    out.put(&[head.method, b" ", path]);
    if let Some(query) = request.query {
        out.put(&[b"?", query.as_bytes()]);
    }
    let authority = request.authority.as_bytes();
    out.put(&[
        b" HTTP/1.1\r\nHost: ",
        authority,
        b"\r\nX-Forwarded-Host: ",
        authority,
    ]);
    let hops: &[u8] = match request.hops {
        // Written by a look-up: nearly every request comes from a client itself.
        0 | 1 => b"\r\nX-Forebay-Hops: 1\r\n",
        hops => &format!("\r\nX-Forebay-Hops: {hops}\r\n").into_bytes(),
    };
    out.put(&[
        b"\r\nX-Request-ID: ",
        id.as_bytes(),
        hops,
        &client.forwarded,
    ]);
    let (mut cookies, mut forwarded_for, mut forwarded_host) = (0, 0, 0);
    for (kind, line) in head.fields.lines() {
        match kind {
            Name::Other
            | Name::Date
            | Name::Server
            | Name::TransportSecurity
            | Name::WebSocketVersion => {
                if request.named.is_empty() || !request.named.contains(line.name()) {
                    line.write(&mut out);
                }
            }
            Name::Cookie => cookies += 1,
            Name::ForwardedFor => forwarded_for += 1,
            Name::ForwardedHost => forwarded_host += 1,
            // Written by us, of one hop, or of a kind that endpoints read in different ways.
            Name::Host
            | Name::ContentLength
            | Name::TransferEncoding
            | Name::Connection
            | Name::KeepAlive
            | Name::Te
            | Name::Trailer
            | Name::Upgrade
            | Name::Expect
            | Name::RequestId
            | Name::Hops
            | Name::Ours
            | Name::OneHop
            | Name::Underscore => {}
        }
    }
    if cookies + forwarded_for + forwarded_host > 0 {
        // HTTP/2 clients may cut a cookie into crumbs (RFC 9113 section 8.2.3).
        join(&mut out, head, Name::Cookie, cookies, b"Cookie: ", b"; ");
        join(
            &mut out,
            head,
            Name::ForwardedFor,
            forwarded_for,
            b"X-Original-Forwarded-For: ",
            b", ",
        );
        join(
            &mut out,
            head,
            Name::ForwardedHost,
            forwarded_host,
            b"X-Original-Forwarded-Host: ",
            b", ",
        );
    }
    if request.trailers {
        out.put(&[b"TE: trailers\r\n"]);
    }
    if request.upgrade {
        out.put(&[b"Connection: upgrade\r\nUpgrade: websocket\r\n"]);
    }
    match request.framing {
        Framing::Length(0) if !declares_length(head) => {}
        Framing::Length(length) => {
            // Writing to memory cannot fail.
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        Framing::Chunked | Framing::Close => out.put(&[b"Transfer-Encoding: chunked\r\n"]),
    }
    out.put(&[b"\r\n"]);
    Plan {
        target: entry.choose(),
        entry,
        id,
        head: Some(out),
        framing: request.framing,
        upgrade: request.upgrade,
        trailers: request.trailers,
        is_head: head.method == b"HEAD",
        is_idempotent: matches!(
            head.method,
            b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS"
        ),
    }
}

impl Plan {
    /// Where it goes.
    pub(in crate::worker) fn upstream(&self) -> &Arc<Upstream> {
        // The entry forwards, or there would be no plan, and so has an upstream for each target.
        &self.entry.upstreams()[self.target]
    }

    fn repeatable(&self, replayable: bool) -> Repeatable {
        Repeatable {
            idempotent: self.is_idempotent,
            replayable,
        }
    }
}

/// Whether the client said the length of an empty body, as for a POST (RFC 9110 section 8.6).
fn declares_length(head: &RequestHead<'_>) -> bool {
    head.fields
        .iter()
        .any(|(kind, ..)| kind == Name::ContentLength)
}

/// Writes the values of all `count` fields of a kind as one field.
fn join(
    out: &mut Outbound,
    head: &RequestHead<'_>,
    kind: Name,
    count: usize,
    name: &[u8],
    between: &[u8],
) {
    if count == 0 {
        return;
    }
    let values = head.fields.iter().filter(|(own, ..)| *own == kind);
    for (place, (_, _, value)) in values.enumerate() {
        out.put(&[if place == 0 { name } else { between }, value]);
    }
    out.put(&[b"\r\n"]);
}

/// Forwards the request and awaits the head of its response.
///
/// # Errors
/// No endpoint has answered, or the client failed.
///
/// # Cancel safety
/// Dropping the future closes the connection to the endpoint, which tells it to stop.
pub(in crate::worker) fn forward<B: RequestBody>(
    client: &Rc<Client>,
    plan: &mut Plan,
    body: B,
    record: &mut Record,
) -> impl Future<Output = Result<Forwarded<B>, ForwardError>> {
    let announced = match plan.framing {
        Framing::Length(0) => Announced::Nothing,
        Framing::Length(_) => Announced::Length,
        Framing::Chunked | Framing::Close => Announced::Chunks,
    };
    let head = plan.head.take().unwrap_or_else(Outbound::new);
    let limit = plan.entry.rule.policy.body_limit;
    // Made outside, for an `async fn` has space for its arguments besides that for what it makes of
    // them.
    let mut request = Outgoing::new(head, body, announced, limit);
    async move {
        let worker = &client.worker;
        let balancer = worker.balancer(plan.upstream());
        let retry = &plan.upstream().policy().retry;
        let mut attempts = Attempts::new(&worker.retry_budget, retry);
        let mut failed = None;
        loop {
            let Some(choice) = balancer.pick(None, attempts.tried(), worker.now()) else {
                return Err(failed.unwrap_or(ForwardError::NoEndpoint));
            };
            attempts.begin();
            record.attempts = attempts.made();
            record.endpoint = choice.endpoint().map(|endpoint| endpoint.address);
            let (error, reused) = match lease(client, choice, plan.upstream(), attempts.fresh())
                .await
            {
                Err(error) => (error, false),
                Ok(lease) => {
                    let mut exchange = Box::new(Exchange::new(lease, request, ask(client, plan)));
                    match poll_fn(|cx| exchange.poll_head(worker.now(), cx)).await {
                        Ok(head) => {
                            let others = balancer.endpoints() > attempts.tried().len() + 1;
                            let again = others
                                && attempts.again_after(
                                    head.status,
                                    choice.index(),
                                    plan.repeatable(exchange.is_replayable()),
                                    record.elapsed(),
                                );
                            if !again {
                                return Ok(Forwarded { exchange, head });
                            }
                            request = exchange.into_request();
                            request.rewind();
                            continue;
                        }
                        Err(error) => {
                            let reused = exchange.reused();
                            request = exchange.into_request();
                            (error, reused)
                        }
                    }
                }
            };
            let failure = Failure {
                error: &error,
                index: choice.index(),
                reused,
            };
            let repeatable = plan.repeatable(request.is_replayable());
            if !attempts.again(&failure, repeatable, record.elapsed()) {
                return Err(error);
            }
            tracing::debug!(error = &error as &dyn std::error::Error, "retrying");
            request.rewind();
            failed = Some(error);
        }
    }
}

/// What the exchange has to know.
fn ask(client: &Client, plan: &Plan) -> Ask {
    let policy = plan.upstream().policy();
    Ask {
        head: plan.is_head,
        upgrade: plan.upgrade,
        timeouts: Timeouts {
            read: policy.read_timeout,
            send: policy.send_timeout,
            body: client.worker.settings.body_timeout,
        },
    }
}

/// A connection to the endpoint: one that is idle, or a new one.
async fn lease(
    client: &Client,
    choice: Choice<'_>,
    upstream: &Upstream,
    fresh: bool,
) -> Result<Lease, ForwardError> {
    let worker = &client.worker;
    let counters = worker.counters();
    let pool = choice.pool().ok_or(ForwardError::NoEndpoint)?;
    if !fresh && let Some(lease) = pool.checkout(worker.now()) {
        counters.upstream_reused.increment();
        return Ok(lease);
    }
    counters.upstream_connects.increment();
    // Rare beside the requests over pooled connections, and large: apart, it does not count in what
    // an idle client's task holds.
    let connected = Box::pin(pool.connect(upstream.policy().connect_timeout)).await;
    choice.report(connected.is_ok(), worker.now());
    if connected.is_err() {
        counters.upstream_connects_failed.increment();
    }
    connected
}
