//! Waits for the head of the next request.

use std::{future::poll_fn, io, task::Poll};

use tokio::time::Instant;

use super::connection::Connection;
use crate::{
    http1::{Field, HeadError, HeadFinder, RequestLine, check_request_start, parse_request},
    net::Inbound,
    worker::state::Worker,
};

/// Largest head of a request; larger ones get 431.
pub(in crate::worker) const HEAD_LIMIT: usize = 32 * 1024;

/// The head of a request, taken apart; its bytes are at the front of what has arrived.
pub(super) struct Head {
    pub(super) line: RequestLine,
    /// In bytes.
    pub(super) length: usize,
    pub(super) fields: Vec<Field>,
}

/// What came while a head was awaited.
pub(super) enum Awaited {
    /// One.
    Head(Head),
    /// Something else, which this status answers.
    Bad(u16),
    /// The end of the connection, or of our patience with an idle one.
    End,
}

impl Connection {
    /// Waits for the next head: for its first byte as long as a connection may be idle, from there on
    /// for a time of its own.
    pub(super) async fn head(&mut self) -> io::Result<Awaited> {
        let Self {
            client,
            stream,
            inbound,
            deadline,
            member,
            ..
        } = self;
        let worker = &client.worker;
        let settings = &worker.settings;
        let mut finder = HeadFinder::default();
        let mut begun: Option<Instant> = None;
        let mut line_checked = false;
        deadline.set(worker.now() + settings.idle_timeout);
        poll_fn(|cx| {
            loop {
                skip_empty_lines(inbound);
                let data = inbound.data();
                if let Some(first) = data.first() {
                    if begun.is_none() {
                        begun = Some(worker.now());
                        member.asked();
                        // Nearly always all of it comes at once. Where it does not, or is none, its
                        // end is looked for in what is new each time, and it is parsed once more.
                        if let Ok(Some(head)) = parse(worker, data)
                            && head.length <= HEAD_LIMIT
                        {
                            return Poll::Ready(Ok(Awaited::Head(head)));
                        }
                    }
                    match finder.find(data) {
                        Some(length) if length <= HEAD_LIMIT => {
                            let head = data.get(..length).unwrap_or_default();
                            return Poll::Ready(Ok(match parse(worker, head) {
                                Ok(Some(head)) => Awaited::Head(head),
                                Ok(None) => Awaited::Bad(status_of(HeadError::Syntax)),
                                Err(error) => Awaited::Bad(status_of(error)),
                            }));
                        }
                        Some(_) => return Poll::Ready(Ok(Awaited::Bad(431))),
                        None if data.len() > HEAD_LIMIT => {
                            return Poll::Ready(Ok(Awaited::Bad(431)));
                        }
                        None => {}
                    }
                    // What cannot become a request is not waited for: a TLS handshake, say.
                    if finder.has_line() && !line_checked {
                        line_checked = true;
                        if let Err(error) = check_request_start(data) {
                            return Poll::Ready(Ok(Awaited::Bad(status_of(error))));
                        }
                    } else if !first.is_ascii_graphic() && *first != b'\r' {
                        return Poll::Ready(Ok(Awaited::Bad(400)));
                    }
                }
                match inbound.poll_fill(cx, |cx, space| stream.poll_recv(cx, space)) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Awaited::End)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
                return match begun {
                    Some(begun) => {
                        deadline.set(begun + settings.head_timeout);
                        deadline.poll(cx).map(|()| Ok(Awaited::Bad(408)))
                    }
                    None if deadline.poll(cx).is_ready() || member.poll_idle_end(cx) => {
                        Poll::Ready(Ok(Awaited::End))
                    }
                    None => Poll::Pending,
                };
            }
        })
        .await
    }
}

/// Parses the head that `bytes` begin with; `None` while it is open.
fn parse(worker: &Worker, bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut fields = worker.fields.take();
    match parse_request(bytes, &mut fields) {
        Ok(Some((line, length))) => Ok(Some(Head {
            line,
            length,
            fields,
        })),
        other => {
            worker.fields.set(fields);
            other.map(|_| None)
        }
    }
}

/// What answers a head that cannot be read.
fn status_of(error: HeadError) -> u16 {
    match error {
        HeadError::TooLarge => 431,
        HeadError::Syntax => 400,
    }
}

/// RFC 9112 section 2.2: empty lines before a request are no part of it.
fn skip_empty_lines(inbound: &mut Inbound) {
    loop {
        match inbound.data() {
            [b'\r', b'\n', ..] => inbound.consume(2),
            [b'\n', ..] => inbound.consume(1),
            _ => return,
        }
    }
}
