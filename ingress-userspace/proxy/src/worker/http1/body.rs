//! The client's side of a request that is being forwarded: its body comes, interim responses go.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use super::{head::HEAD_LIMIT, source::write_trailers, writer::Http1Head};
use crate::{
    http1::{Body, Fields, Next},
    net::{Deadline, Inbound, Outbound},
    upstream::{RequestBody, RequestBodyError},
    worker::{phases, stream::Stream},
};

/// The client's side of a request that is being forwarded.
pub(super) struct ClientBody<'c> {
    pub(super) stream: &'c Stream,
    pub(super) inbound: &'c mut Inbound,
    pub(super) body: &'c mut Body,
    pub(super) deadline: &'c mut Deadline,
    /// Interim responses that are not sent yet; what is left of them goes before the final one.
    pub(super) notice: &'c RefCell<Vec<u8>>,
    /// The client waits for 100 before it sends its body.
    pub(super) expects_continue: bool,
    pub(super) takes_interim: bool,
    pub(super) takes_trailers: bool,
}

impl ClientBody<'_> {
    /// Sends interim responses as far as the client takes them. A failure shows at the next read.
    fn flush_notice(&mut self, cx: &mut Context<'_>) {
        let mut notice = self.notice.borrow_mut();
        while !notice.is_empty() {
            match self.stream.poll_send(cx, &[IoSlice::new(&notice)]) {
                Poll::Ready(Ok(sent)) => drop(notice.drain(..sent)),
                Poll::Ready(Err(_)) => notice.clear(),
                Poll::Pending => return,
            }
        }
        let _ = self.stream.poll_flush(cx);
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = self.stream;
        self.inbound
            .poll_fill(cx, |cx, space| stream.poll_recv(cx, space))
    }

    fn say_continue(&mut self) {
        self.expects_continue = false;
        self.notice
            .borrow_mut()
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
}

impl RequestBody for ClientBody<'_> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
        let count = loop {
            match self
                .body
                .next(self.inbound)
                .map_err(RequestBodyError::Framing)?
            {
                Next::Data(count) => break count,
                Next::End => return Poll::Ready(Ok(None)),
                Next::Starved => {}
            }
            if self.expects_continue {
                self.say_continue();
            }
            self.flush_notice(cx);
            match ready!(self.poll_receive(cx)) {
                Ok(0) => return Poll::Ready(Err(RequestBodyError::Gone(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(RequestBodyError::Gone(Some(error)))),
            }
        };
        Poll::Ready(Ok(self.inbound.data().get(..count)))
    }

    fn consume(&mut self, count: usize) {
        self.body.take(self.inbound, count);
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        if self.takes_trailers {
            write_trailers(self.body.trailers(), out);
        }
    }

    /// Reads on, so that the end of the connection is seen. What comes is the rest of the body or the
    /// next request; both wait in the buffer, and no more of them than fits there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush_notice(cx);
        while !self.inbound.is_full() {
            if !matches!(ready!(self.poll_receive(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn deadline(&mut self) -> Option<&mut Deadline> {
        Some(self.deadline)
    }

    fn interim(&mut self, status: u16, reason: &[u8], fields: Fields<'_>) {
        if status == 100 {
            if self.expects_continue {
                self.say_continue();
            }
        } else if self.takes_interim {
            let mut out = Outbound::new();
            phases::interim(status, reason, fields, &mut Http1Head(&mut out));
            let mut notice = self.notice.borrow_mut();
            // An endpoint that sends without end is not heard beyond a head's length.
            if notice.len() + out.len() <= HEAD_LIMIT {
                notice.extend_from_slice(&out);
                notice.extend_from_slice(b"\r\n");
            }
        }
    }
}
