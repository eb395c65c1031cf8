//! HTTP/2 with a client: hyper keeps the frames and streams, each request goes through the phases.
//!
//! `io` is what hyper reads and writes, `crossing` what it hears late; `streams` runs the streams and
//! ends those that stand still; `patience` counts those that the client leaves; `body` is both bodies
//! in hyper's form.

mod body;
mod crossing;
mod io;
mod patience;
mod streams;

use std::{cell::Cell, convert::Infallible, future::poll_fn, pin::pin, rc::Rc, task::Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;

use self::{
    body::{Download, Payload, RequestStream},
    crossing::Crossing,
    io::Io,
    streams::{Progress, Streams},
};
use super::{
    client::{Client, Ended},
    drain::Member,
    http1::HEAD_LIMIT,
    phases::{self, Decision, Forwarded, HeadWriter, Rejection, Reply, RequestHead, Target},
    record::Record,
    stream::Stream,
};
use crate::{
    http1::{Field, Fields},
    net::{Deadline, Inbound},
};

/// Streams that one connection may have open.
const STREAM_LIMIT: u32 = 100;

/// Serves a connection until it ends.
///
/// # Errors
/// The connection broke, or the client broke the protocol.
pub(super) async fn serve(
    client: Rc<Client>,
    stream: Stream,
    inbound: Inbound,
    mut member: Member,
) -> Ended {
    let worker = Rc::clone(&client.worker);
    let settings = &worker.settings;
    let streams = Streams::new(Rc::clone(&worker));
    let mut deadline = Deadline::default();
    deadline.set(worker.now() + settings.idle_timeout);
    let says_goaway = Rc::new(Cell::new(false));
    let service = {
        let streams = streams.clone();
        service_fn(move |request| handle(Rc::clone(&client), streams.current(), request))
    };
    // No PINGs: the answer of a client that reads slowly waits behind megabytes of data, and it would be
    // taken for a dead one. The kernel finds those.
    // What one connection can make us hold is its window, and for each stream a head and a send
    // buffer.
    let connection = http2::Builder::new(streams.clone())
        .max_concurrent_streams(STREAM_LIMIT)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_header_list_size(HEAD_LIMIT as u32)
        .max_send_buf_size(64 * 1024)
        .max_local_error_reset_streams(100)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(Io::new(
                stream,
                inbound,
                Crossing::new(Rc::clone(&says_goaway)),
                streams.clone(),
                settings.write_timeout,
            )),
            service,
        );
    let mut connection = pin!(connection);
    let mut ending = false;
    poll_fn(|cx| {
        loop {
            if streams.are_abused() {
                return Poll::Ready(Err("the client leaves stream after stream".into()));
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            if deadline.poll(cx).is_ready() {
                deadline.set(worker.now() + settings.idle_timeout);
                // A request may have crossed the first GOAWAY: it is served to its end.
                if !streams.are_idle() {
                    continue;
                }
                if ending {
                    // Nothing is served any more, and what was sent is not taken.
                    return Poll::Ready(Ok(()));
                }
            } else if ending || !member.poll_ending(cx) {
                return Poll::Pending;
            }
            // GOAWAY twice: first with the highest id, so that no request on its way is lost, then,
            // after a round trip and a moment, with the last one that was seen.
            ending = true;
            deadline.set(worker.now() + settings.idle_timeout.max(settings.shutdown_grace));
            says_goaway.set(true);
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

/// Answers one request. Never fails: what goes wrong becomes a status.
///
/// # Cancel safety
/// Dropping the future, as hyper does when the client resets the stream, stops the endpoint too.
async fn handle(
    client: Rc<Client>,
    progress: Rc<Progress>,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let mut record = Record::new(&client.worker);
    let (parts, incoming) = request.into_parts();
    let mut body = RequestStream::new(incoming);
    let (mut plan, is_head) = match decide(&client, &parts, body.has_data(), &mut record) {
        (Decision::Answer(reply, _), is_head) => {
            return Ok(own(&client, &reply, is_head, record, progress));
        }
        (Decision::Forward(plan), is_head) => (plan, is_head),
    };
    body.takes_trailers = plan.trailers;
    let forwarded = match phases::forward(&client, &mut plan, body, &mut record).await {
        Ok(forwarded) => forwarded,
        Err(error) => {
            return Ok(match phases::error(&error, &plan) {
                Some(reply) => own(&client, &reply, is_head, record, progress),
                // The client has left: it counts as such, and hyper drops what is answered here.
                None => Response::new(Payload::whole(Bytes::new(), record, Rc::default())),
            });
        }
    };
    let Forwarded { exchange, head } = &forwarded;
    let bytes = exchange.fields(head).head;
    let mut writer = Http2Head {
        response: Response::new(()),
        start: bytes.as_ptr() as usize,
        head: Bytes::copy_from_slice(bytes),
    };
    phases::response(&client, &plan, &forwarded, &mut record, &mut writer);
    let Forwarded { exchange, head } = forwarded;
    let download = exchange.into_download(&head, client.worker.now());
    let payload = Payload::streamed(
        Download::new(Rc::clone(&client.worker), download),
        record,
        progress,
    );
    Ok(writer.response.map(|()| payload))
}

/// Takes the request through the phases that do not wait; whether its method is HEAD.
fn decide(
    client: &Rc<Client>,
    parts: &http::request::Parts,
    has_body: bool,
    record: &mut Record,
) -> (Decision, bool) {
    let mut bytes = Vec::with_capacity(1024);
    let mut fields = client.worker.fields.take();
    fields.clear();
    fields.extend(
        parts.headers.iter().map(|(name, value)| {
            Field::write(&mut bytes, name.as_str().as_bytes(), value.as_bytes())
        }),
    );
    let target = target(&parts.uri, client.secure);
    let head = RequestHead {
        version: Version::HTTP_2,
        method: parts.method.as_str().as_bytes(),
        target,
        fields: Fields {
            head: &bytes,
            fields: &fields,
        },
        has_body: Some(has_body),
    };
    let decision = phases::decide(client, &head, record);
    client.worker.fields.set(fields);
    (decision, parts.method == http::Method::HEAD)
}

/// The target as its pseudo-fields say it (RFC 9113 section 8.3.1): the scheme is that of the
/// connection, and there is a path that begins with a slash, which the library would add.
fn target(uri: &http::Uri, secure: bool) -> Result<Target<'_>, Rejection> {
    let scheme = if secure { "https" } else { "http" };
    let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    let begins = path.is_none_or(|path| path.starts_with('/') || path == "*");
    // Where there is none, the whole of the two says "/", and the path alone says nothing.
    let begins = begins && !uri.path().is_empty();
    if uri.scheme_str().is_some_and(|own| own != scheme) || !begins {
        return Err(Rejection::Target);
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    Ok(Target {
        authority,
        path: uri.path(),
        query: uri.query(),
    })
}

fn own(
    client: &Client,
    reply: &Reply,
    is_head: bool,
    mut record: Record,
    progress: Rc<Progress>,
) -> Response<Payload> {
    let page = reply.page();
    let mut writer = Http2Head {
        response: Response::new(()),
        start: 0,
        head: Bytes::new(),
    };
    phases::own(client, reply, &page, &mut record, &mut writer);
    let page = if is_head {
        Bytes::new()
    } else {
        Bytes::from(page)
    };
    writer
        .response
        .map(|()| Payload::whole(page, record, progress))
}

/// Writes a head as hyper wants it.
struct Http2Head {
    response: Response<()>,
    /// A copy of the endpoint's head, whose values are shared instead of being copied one by one.
    head: Bytes,
    /// Where the original begins.
    start: usize,
}

impl Http2Head {
    /// The part of the copy that is `value` in the original; `None` if it lies elsewhere.
    fn shared(&self, value: &[u8]) -> Option<Bytes> {
        let from = (value.as_ptr() as usize).checked_sub(self.start)?;
        let range = from..from.checked_add(value.len())?;
        (self.head.get(range.clone()) == Some(value)).then(|| self.head.slice(range))
    }
}

impl HeadWriter for Http2Head {
    fn start(&mut self, status: u16, _reason: &[u8]) {
        // Checked when the head was read.
        *self.response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let value = match self.shared(value) {
            Some(value) => HeaderValue::from_maybe_shared(value),
            None => HeaderValue::from_bytes(value),
        };
        // A field that HTTP/2 cannot carry is left out; httparse lets hardly any through.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            self.response.headers_mut().append(name, value);
        }
    }
}
