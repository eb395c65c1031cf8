//! Decides what becomes of a request, and answers what needs no endpoint.

use std::io;

use super::{
    connection::Connection,
    head::status_of,
    source::Nothing,
    terms::{After, Terms},
    writer::{Http1Head, end_head},
};
use crate::{
    http1::{Announced, Body, Fields, Framing, SendError, Sender, parse_request},
    net::Outbound,
    worker::{
        phases::{self, Decision, Reply, RequestHead},
        record::Record,
    },
};

impl Connection {
    /// Serves the request whose head of `length` bytes has arrived.
    pub(super) async fn request(&mut self, length: usize) -> io::Result<After> {
        let mut record = Record::new(&self.client.worker);
        let decided = self.decide(length, &mut record);
        self.inbound.consume(length);
        match decided {
            Ok((terms, Decision::Answer(reply, unread))) => {
                self.answer(&reply, terms, unread, &mut record).await
            }
            Ok((terms, Decision::Forward(mut plan))) => {
                let mut body = Body::new(plan.framing);
                match self.forward(&mut plan, terms, &mut body, &mut record).await {
                    Ok(after) => Ok(after),
                    // Rare, and large.
                    Err(detour) => {
                        Box::pin(self.detour(*detour, &plan, terms, body, &mut record)).await
                    }
                }
            }
            Err(status) => {
                self.answer(
                    &Reply::unreadable(status),
                    Terms::UNKNOWN,
                    Framing::Close,
                    &mut record,
                )
                .await
            }
        }
    }

    /// Parses the head and takes it through the phases that do not wait; an error is a status.
    fn decide(&self, length: usize, record: &mut Record) -> Result<(Terms, Decision), u16> {
        let head = self.inbound.data().get(..length).unwrap_or_default();
        let slot = &self.client.worker.fields;
        let mut fields = slot.take();
        let decided = parse_request(head, &mut fields)
            .map_err(status_of)
            .map(|line| {
                let fields = Fields {
                    head,
                    fields: &fields,
                };
                let target = phases::target(line.target.of_head(head));
                let method = line.method.of_head(head);
                let request = RequestHead {
                    version: line.version,
                    method,
                    target,
                    fields,
                    has_body: None,
                };
                (
                    Terms::of(&request),
                    phases::decide(&self.client, &request, record),
                )
            });
        slot.set(fields);
        decided
    }

    /// Answers what is no request and ends the connection.
    pub(super) async fn refuse(&mut self, status: u16) -> io::Result<After> {
        let mut record = Record::new(&self.client.worker);
        self.answer(
            &Reply::unreadable(status),
            Terms::UNKNOWN,
            Framing::Close,
            &mut record,
        )
        .await
    }

    /// Sends an answer of our own. `unread` is what is left of the request's body: if it has not
    /// arrived, it is not waited for, and the connection ends.
    pub(super) async fn answer(
        &mut self,
        reply: &Reply,
        terms: Terms,
        unread: Framing,
        record: &mut Record,
    ) -> io::Result<After> {
        let is_read = matches!(unread, Framing::Length(length) if self.skip(length));
        let keep_alive = terms.keep_alive && !reply.closes && is_read && !self.member.is_ending();
        let page = reply.page();
        let mut out = Outbound::new();
        out.put(&[&self.client.notice.take()]);
        phases::own(&self.client, reply, &page, record, &mut Http1Head(&mut out));
        end_head(&mut out, terms.version, keep_alive, false);
        if !terms.is_head {
            out.put(&[page.as_bytes()]);
        }
        let mut sender = Sender::response(out, Announced::Nothing);
        match self.relay(&mut sender, &mut Nothing, record).await {
            Ok(()) => record.complete(),
            Err(SendError::Source(never)) => match never {},
            Err(SendError::Socket(error)) => return Err(error),
        }
        Ok(if keep_alive {
            After::Next
        } else {
            After::Close
        })
    }

    /// Takes a body of `length` bytes out of what has arrived; `false` if it is not all there.
    fn skip(&mut self, length: u64) -> bool {
        let is_there = self.inbound.data().len() as u64 >= length;
        if is_there {
            self.inbound
                .consume(usize::try_from(length).unwrap_or(usize::MAX));
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the future of a function of two holds, in bytes.
    fn future_size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_stays_small() {
        // 1,024 is the bound of the fast path; compilers differ by a few dozen bytes.
        let size = future_size(Connection::request);
        assert!(
            size <= 1024 + 128,
            "{size} bytes: what is rare belongs into a box of its own"
        );
    }
}
