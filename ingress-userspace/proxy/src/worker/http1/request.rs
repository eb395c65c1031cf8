//! Decides what becomes of a request, and answers what needs no endpoint.

use std::{future::Future, io};

use tokio::task::coop::consume_budget;

use super::{
    connection::Connection,
    head::Head,
    source::Nothing,
    terms::{After, Terms},
    writer::{Http1Head, end_head},
};
use crate::{
    http1::{Announced, Body, Fields, Framing, SendError, Sender},
    net::Outbound,
    worker::{
        phases::{self, Decision, Reply, RequestHead},
        record::Record,
    },
};

impl Connection {
    /// Serves the request whose `head` has arrived.
    pub(super) fn request(&mut self, head: Head) -> impl Future<Output = io::Result<After>> {
        let mut record = Record::new(&self.client.worker);
        let length = head.length;
        let (terms, mut decision) = self.decide(head, &mut record);
        self.inbound.consume(length);
        // What has been decided so far takes no space in the future.
        async move {
            // In place: what is moved to a name of its own has its space twice.
            match &mut decision {
                Decision::Answer(reply, unread) => {
                    self.answer(reply, terms, *unread, &mut record).await
                }
                Decision::Forward(plan) => {
                    let mut body = Body::new(plan.framing);
                    match self.forward(plan, terms, &mut body, &mut record).await {
                        Ok(after) => Ok(after),
                        // Rare, and large.
                        Err(detour) => {
                            Box::pin(self.detour(*detour, plan, terms, body, &mut record)).await
                        }
                    }
                }
            }
        }
    }

    /// Takes the head through the phases that do not wait.
    fn decide(&self, head: Head, record: &mut Record) -> (Terms, Decision) {
        let bytes = self.inbound.data().get(..head.length).unwrap_or_default();
        let Head { line, fields, .. } = head;
        let request = RequestHead {
            version: line.version,
            method: line.method.of_head(bytes),
            target: phases::target(line.target.of_head(bytes)),
            fields: Fields {
                head: bytes,
                fields: &fields,
            },
            has_body: None,
        };
        let terms = Terms::of(&request);
        let decision = phases::decide(&self.client, &request, record);
        self.client.worker.fields.set(fields);
        (terms, decision)
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
        // Neither the next request, which may be there, nor its answer has to wait for anything: a
        // client that sends thousands at once would have the worker to itself meanwhile.
        consume_budget().await;
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
        // The allocator serves up to this much the fast way. Compilers differ by a few dozen bytes.
        let size = future_size(Connection::request);
        assert!(
            size <= 1024,
            "{size} bytes: what is rare belongs into a box of its own"
        );
    }
}
