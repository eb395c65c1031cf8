//! What the client gets: a response of an endpoint, or the status for what went wrong.

use super::{Forwarded, Plan, Reply};
use crate::{
    http1::{Fields, Line, Name, Named, options},
    upstream::{ForwardError, Head, RequestBodyError},
    worker::{client::Client, record::Record},
};

/// Who answers: what endpoints call themselves is nobody's business.
const SERVER: &[u8] = b"forebay";

/// HSTS as ingress-nginx sends it by default, on every response over TLS.
const TRANSPORT_SECURITY: &[u8] = b"max-age=31536000; includeSubDomains";

/// Takes the head of a response, in whatever form the client's protocol wants.
pub(in crate::worker) trait HeadWriter {
    /// The first line. `reason` may be empty.
    fn start(&mut self, status: u16, reason: &[u8]);

    /// One field.
    fn field(&mut self, name: &[u8], value: &[u8]);

    /// One field that an endpoint sent.
    fn pass(&mut self, line: Line<'_>) {
        self.field(line.name(), line.value());
    }
}

/// Passes on the head of what an endpoint answered, but for the framing of its body.
pub(in crate::worker) fn response<B: crate::upstream::RequestBody>(
    client: &Client,
    plan: &Plan,
    forwarded: &Forwarded<B>,
    record: &mut Record,
    writer: &mut impl HeadWriter,
) {
    let Forwarded { exchange, head } = forwarded;
    let fields = exchange.fields(head);
    record.status(head.status);
    writer.start(head.status, head.reason.of_head(fields.head));
    let has_date = pass_fields(client, head, fields, writer);
    common(client, has_date, writer);
    // Neither may have one (RFC 9110 section 8.6).
    if let Some(length) = head.declared.filter(|_| !matches!(head.status, 101 | 204)) {
        writer.field(b"Content-Length", decimal(length, &mut [0; 20]));
    }
    if let Some(node) = &client.worker.settings.trace_node {
        writer.field(b"X-Forebay", trace(node, client, plan, record).as_bytes());
    }
}

/// Passes on the fields that go on; whether `Date` was among them.
fn pass_fields(
    client: &Client,
    head: &Head,
    fields: Fields<'_>,
    writer: &mut impl HeadWriter,
) -> bool {
    let mut named = if head.names_fields {
        named_fields(fields)
    } else {
        Named::default()
    };
    let mut has_date = false;
    for (kind, line) in fields.lines() {
        match kind {
            Name::ContentLength
            | Name::TransferEncoding
            | Name::Connection
            | Name::KeepAlive
            | Name::Te
            | Name::OneHop
            | Name::Server => continue,
            Name::TransportSecurity if has_hsts(client) => continue,
            // What a client needs to know in order to upgrade (RFC 9110 section 15.5.22).
            Name::Upgrade if head.status != 426 => continue,
            Name::Date => has_date = true,
            _ => {}
        }
        if named.is_empty() || !named.contains(line.name()) {
            writer.pass(line);
        }
    }
    has_date
}

/// The fields that `Connection` names, which go no further.
fn named_fields(fields: Fields<'_>) -> Named<'_> {
    let mut named = Named::default();
    for (_, _, value) in fields.iter().filter(|(kind, ..)| *kind == Name::Connection) {
        options(value).for_each(|name| named.add(name));
    }
    named
}

/// Passes an interim response on, as RFC 9110 section 15.2 asks of a proxy.
pub(in crate::worker) fn interim(
    status: u16,
    reason: &[u8],
    fields: Fields<'_>,
    writer: &mut impl HeadWriter,
) {
    writer.start(status, reason);
    let mut named = named_fields(fields);
    for (kind, line) in fields.lines() {
        if matches!(kind, Name::Other | Name::Date) && !named.contains(line.name()) {
            writer.pass(line);
        }
    }
}

/// Writes an answer of our own, page and all but the framing.
pub(in crate::worker) fn own(
    client: &Client,
    reply: &Reply,
    page: &str,
    record: &mut Record,
    writer: &mut impl HeadWriter,
) {
    record.status(reply.status);
    writer.start(reply.status, b"");
    common(client, false, writer);
    if !page.is_empty() {
        writer.field(b"Content-Type", b"text/plain; charset=utf-8");
    }
    writer.field(b"Content-Length", decimal(page.len() as u64, &mut [0; 20]));
    if let Some(location) = &reply.location {
        writer.field(b"Location", location.as_bytes());
    }
    if let Some(allow) = reply.allow() {
        writer.field(b"Allow", allow.as_bytes());
    }
}

/// The fields of every response.
fn common(client: &Client, has_date: bool, writer: &mut impl HeadWriter) {
    writer.field(b"Server", SERVER);
    if !has_date {
        writer.field(b"Date", &client.worker.date());
    }
    if has_hsts(client) {
        writer.field(b"Strict-Transport-Security", TRANSPORT_SECURITY);
    }
}

fn has_hsts(client: &Client) -> bool {
    client.secure && client.worker.settings.hsts
}

/// The answer for an endpoint that gave none; `None` where the client has left.
pub(in crate::worker) fn error(error: &ForwardError, plan: &Plan) -> Option<Reply> {
    let side = error.side();
    let chain = error as &dyn std::error::Error;
    tracing::debug!(upstream = %plan.upstream().backend(), ?side, error = chain, "request failed");
    let status = match error {
        ForwardError::NoEndpoint => 503,
        ForwardError::Connect { .. }
        | ForwardError::Unanswered { .. }
        | ForwardError::Response { .. }
        | ForwardError::Truncated { .. } => 502,
        ForwardError::ConnectTimeout { .. }
        | ForwardError::SendTimeout { .. }
        | ForwardError::ReadTimeout { .. } => 504,
        ForwardError::BodyTooLarge => 413,
        ForwardError::Body(RequestBodyError::Framing(_)) => 400,
        ForwardError::BodyTimeout => 408,
        ForwardError::Body(RequestBodyError::Gone(_) | RequestBodyError::Stream(_))
        | ForwardError::ClientGone => {
            return None;
        }
    };
    Some(Reply::status(status, plan.id.clone()))
}

/// The value of `X-Forebay`: which way a request went.
fn trace(node: &str, client: &Client, plan: &Plan, record: &Record) -> String {
    let Plan { entry, .. } = plan;
    let (worker, ingress, upstream) = (
        client.worker.id,
        &entry.rule.source.name,
        plan.upstream().backend(),
    );
    let mut text = format!("node={node} worker={worker} ingress={ingress} backend={upstream}");
    if let Some(address) = record.endpoint {
        text += &format!(" endpoint={address}");
        let endpoints = plan.upstream().endpoints();
        let endpoint = endpoints
            .iter()
            .find(|endpoint| endpoint.address == address);
        if let Some(pod) = endpoint.and_then(|endpoint| endpoint.pod.as_deref()) {
            text += &format!(" pod={pod}");
        }
    }
    text
}

/// The digits of `number`, without an allocation.
fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut start = space.len();
    for place in space.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    space.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 7, 10, 4711, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
