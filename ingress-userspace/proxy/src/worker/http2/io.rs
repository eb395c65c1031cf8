//! A client's connection as hyper reads and writes it, with a limit on standing still.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{crossing::Crossing, streams::Streams};
use crate::{
    net::{Deadline, Inbound, Stall},
    worker::stream::Stream,
};

/// Up to this size, parts of a write are copied together: a copy costs less than `writev` does.
const GATHER_LIMIT: usize = 4 * 1024;

/// The connection.
pub(super) struct Io {
    stream: Stream,
    /// Read ahead to tell HTTP/2 from HTTP/1.1; given out first.
    ahead: Inbound,
    crossing: Crossing,
    gathered: Vec<u8>,
    /// Hear whether the connection takes what is sent.
    streams: Streams,
    stall: Stall,
    /// For the client to take something, while it does not.
    deadline: Deadline,
    write_timeout: Duration,
}

impl Io {
    pub(super) fn new(
        stream: Stream,
        ahead: Inbound,
        crossing: Crossing,
        streams: Streams,
        write_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            ahead,
            crossing,
            gathered: Vec::new(),
            streams,
            stall: Stall::default(),
            deadline: Deadline::default(),
            write_timeout,
        }
    }

    /// Counts what a write took.
    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.streams.sent(count);
        }
        self.watch(written, cx)
    }

    /// Turns a write that stands still for too long into an error.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.streams.unblocked();
            self.stall.clear();
            self.deadline.clear();
            return written;
        }
        self.streams.blocked();
        let limit = self.write_timeout;
        let unacknowledged = || self.stream.unacknowledged();
        self.stall
            .poll(
                unacknowledged,
                &mut self.deadline,
                Instant::now(),
                limit,
                cx,
            )
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut limit = buf.remaining();
        match this.crossing.poll_answer(limit, cx) {
            Poll::Ready(Ok(answer)) => {
                buf.put_slice(answer);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(before)) => limit = limit.min(before),
            Poll::Pending => {}
        }
        loop {
            let room = buf.initialize_unfilled_to(limit);
            let count = if this.ahead.is_empty() {
                ready!(this.stream.poll_recv(cx, &mut *room))?
            } else {
                this.ahead.move_to(room)
            };
            let read = room.get_mut(..count).unwrap_or_default();
            let taken = this.crossing.follow(read);
            // Nothing would say that the client has ended.
            if taken > 0 || count == 0 {
                buf.advance(taken);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream.poll_send(cx, &[IoSlice::new(bytes)]);
        this.wrote(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_small = pieces.iter().map(|piece| piece.len()).sum::<usize>() <= GATHER_LIMIT;
        let written = if is_small && matches!(this.stream, Stream::Plain(_)) {
            this.gathered.clear();
            pieces
                .iter()
                .for_each(|piece| this.gathered.extend_from_slice(piece));
            this.stream.poll_send(cx, &[IoSlice::new(&this.gathered)])
        } else {
            this.stream.poll_send(cx, pieces)
        };
        this.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.stream.poll_flush(cx);
        this.watch(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = this.stream.poll_shut_down(cx);
        this.watch(ended, cx)
    }
}
