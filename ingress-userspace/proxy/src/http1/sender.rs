//! Sends a message: its head, then its body piece by piece as it comes. The same for requests to pods
//! and for responses to clients.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll},
};

use super::{Announced, chunk_line};
use crate::net::Outbound;

/// Up to this size, a piece of a body is copied behind its head: a copy costs less than `writev`.
pub(crate) const GATHER_LIMIT: usize = 4 * 1024;

/// Where the bytes of a body come from. They are looked at in place and stay until consumed.
pub(crate) trait Source {
    /// Why there are no more.
    type Error;

    /// The next bytes, at least one; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Self::Error>>;

    /// Takes the first `count` of these bytes.
    fn consume(&mut self, count: usize);

    /// Appends the trailers that may go on, each line with its end; after the end.
    fn write_trailers(&self, out: &mut Vec<u8>);
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The head, then the framing of the piece that is being sent, and small pieces themselves.
    line: Outbound,
    sent: usize,
    head_length: usize,
    framing: Announced,
    /// Small pieces may be copied. Not in a request, which has to be sent again if its first
    /// connection turns out to be dead: what is copied is consumed.
    gathers: bool,
    /// Bytes of the source that are announced and not sent.
    announced: usize,
    /// What follows them: the line end of a chunk.
    tail: &'static [u8],
    ended: bool,
    /// A byte of the source was consumed.
    touched: bool,
    /// A byte of the message has left.
    begun: bool,
}

/// What a call could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The whole message is sent.
    Done,
    /// All that there is is sent; the source has no more now.
    Starved,
    /// The socket takes no more now.
    Blocked,
}

/// Why a message cannot be sent to its end.
#[derive(Debug)]
pub(crate) enum SendError<E> {
    /// The source has failed.
    Source(E),
    /// The socket has failed.
    Socket(io::Error),
}

impl Sender {
    /// A request with a whole head.
    pub(crate) fn request(head: Outbound, framing: Announced) -> Self {
        Self::new(head, framing, false)
    }

    /// A response with a whole head.
    pub(crate) fn response(head: Outbound, framing: Announced) -> Self {
        Self::new(head, framing, true)
    }

    fn new(head: Outbound, framing: Announced, gathers: bool) -> Self {
        Self {
            head_length: head.len(),
            line: head,
            sent: 0,
            framing,
            gathers,
            announced: 0,
            tail: b"",
            ended: framing == Announced::Nothing,
            touched: false,
            begun: false,
        }
    }

    /// Whether no byte of the message has left.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.begun
    }

    /// What is ready to be sent and is not.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.line.get(self.sent..).unwrap_or_default()
    }

    /// Whether the message can be sent again from its start.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.touched
    }

    /// Makes it ready to be sent again. Only where [`Self::is_replayable`] says so.
    pub(crate) fn rewind(&mut self) {
        self.line.truncate(self.head_length);
        (self.sent, self.announced, self.tail) = (0, 0, b"");
        self.ended = self.framing == Announced::Nothing;
    }

    /// Sends what there is. `moved` grows by the bytes that the socket took.
    ///
    /// # Errors
    /// The source or the socket fails.
    pub(crate) fn poll<S: Source>(
        &mut self,
        source: &mut S,
        moved: &mut u64,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Result<Step, SendError<S::Error>> {
        loop {
            let starved = !self.fetch(source, cx).map_err(SendError::Source)?;
            let line = self.line.get(self.sent..).unwrap_or_default();
            let mut data = &b""[..];
            if self.announced > 0
                && let Poll::Ready(bytes) = source.poll_data(cx)
            {
                let bytes = bytes.map_err(SendError::Source)?.unwrap_or_default();
                data = bytes.get(..self.announced).unwrap_or(bytes);
            }
            let written = match (line, data, self.tail) {
                ([], [], []) if starved => return Ok(Step::Starved),
                ([], [], []) => return Ok(Step::Done),
                (line, [], []) => send(cx, &[IoSlice::new(line)]),
                ([], data, []) => send(cx, &[IoSlice::new(data)]),
                (line, data, tail) => send(
                    cx,
                    &[IoSlice::new(line), IoSlice::new(data), IoSlice::new(tail)],
                ),
            };
            let written = match written {
                Poll::Pending => return Ok(Step::Blocked),
                Poll::Ready(Ok(0)) => {
                    return Err(SendError::Socket(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Err(SendError::Socket(error)),
            };
            self.begun = true;
            *moved += written as u64;
            self.took(source, written);
        }
    }

    /// Announces the next piece once the last one is sent; `false` where the source has none.
    fn fetch<S: Source>(&mut self, source: &mut S, cx: &mut Context<'_>) -> Result<bool, S::Error> {
        while self.announced == 0 && self.tail.is_empty() && !self.ended {
            let data = match source.poll_data(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(data) => data?,
            };
            if self.sent == self.line.len() {
                // The lines of earlier pieces go, so that a long body does not pile them up. A
                // request's head stays for another try.
                let kept = if self.gathers { 0 } else { self.head_length };
                self.line.truncate(kept);
                self.sent = kept;
            } else if self.gathers && self.sent >= GATHER_LIMIT {
                // So do they where some of them are never gone when the next one comes.
                self.line.drain(..self.sent);
                self.sent = 0;
            }
            let chunked = self.framing == Announced::Chunks;
            let Some(data) = data else {
                self.ended = true;
                if chunked {
                    self.line.extend_from_slice(b"0\r\n");
                    source.write_trailers(&mut self.line);
                    self.line.extend_from_slice(b"\r\n");
                }
                break;
            };
            let length = data.len();
            if chunked {
                chunk_line(&mut self.line, length);
            }
            let line_end: &[u8] = if chunked { b"\r\n" } else { b"" };
            if self.gathers && self.line.len() - self.sent + length <= GATHER_LIMIT {
                self.line.put(&[data, line_end]);
                self.touched = true;
                source.consume(length);
            } else {
                self.announced = length;
                self.tail = if chunked { b"\r\n" } else { b"" };
            }
        }
        Ok(true)
    }

    fn took<S: Source>(&mut self, source: &mut S, written: usize) {
        let of_line = written.min(self.line.len() - self.sent);
        self.sent += of_line;
        let of_data = (written - of_line).min(self.announced);
        if of_data > 0 {
            self.touched = true;
            self.announced -= of_data;
            source.consume(of_data);
        }
        self.tail = self
            .tail
            .get(written - of_line - of_data..)
            .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use super::*;

    /// Pieces of a body; an empty one is a pause.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        type Error = Infallible;

        fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Infallible>> {
            if self.0.front().is_some_and(Vec::is_empty) {
                self.0.pop_front();
                return Poll::Pending;
            }
            Poll::Ready(Ok(self.0.front().map(Vec::as_slice)))
        }

        fn consume(&mut self, count: usize) {
            let Some(front) = self.0.front_mut() else {
                return;
            };
            front.drain(..count);
            if front.is_empty() {
                self.0.pop_front();
            }
        }

        fn write_trailers(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(b"T: x\r\n");
        }
    }

    fn pieces(of: &[&[u8]]) -> Pieces {
        Pieces(of.iter().map(|piece| piece.to_vec()).collect())
    }

    fn head() -> Outbound {
        let mut head = Outbound::new();
        head.extend_from_slice(b"HEAD\r\n\r\n");
        head
    }

    /// Sends all of it to a socket that takes `most` bytes at a time.
    fn send(mut sender: Sender, source: &mut Pieces, most: usize) -> Vec<u8> {
        let (mut wire, mut moved) = (Vec::new(), 0);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            let step = sender.poll(source, &mut moved, &mut cx, |_, slices| {
                let all: Vec<u8> = slices
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                let taken = all.len().min(most);
                wire.extend_from_slice(&all[..taken]);
                Poll::Ready(Ok(taken))
            });
            if step.unwrap() == Step::Done {
                assert_eq!(moved, wire.len() as u64);
                return wire;
            }
        }
    }

    #[test]
    fn a_message_is_the_same_however_its_socket_takes_it() {
        let large = vec![b'y'; GATHER_LIMIT];
        let body: [&[u8]; 5] = [b"one", b"", b"two", &large, b"three"];
        let plain = [&b"HEAD\r\n\r\n"[..], &body.concat()].concat();
        let chunks: [&[u8]; 4] = [
            b"HEAD\r\n\r\n3\r\none\r\n3\r\ntwo\r\n1000\r\n",
            &large,
            b"\r\n5\r\nthree\r\n",
            b"0\r\nT: x\r\n\r\n",
        ];
        for most in [1, 2, 3, 7, 100, 1 << 20] {
            for make in [Sender::request, Sender::response] {
                assert_eq!(
                    send(make(head(), Announced::Length), &mut pieces(&body), most),
                    plain,
                    "{most}"
                );
                assert_eq!(
                    send(make(head(), Announced::Chunks), &mut pieces(&body), most),
                    chunks.concat(),
                    "{most}"
                );
                assert_eq!(
                    send(make(head(), Announced::Nothing), &mut pieces(&[]), most),
                    b"HEAD\r\n\r\n",
                    "{most}"
                );
            }
        }
    }

    #[test]
    fn a_request_is_sent_again_whole_until_its_body_is_touched() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut source = pieces(&[b"body"]);
        let mut sender = Sender::request(head(), Announced::Chunks);
        let mut limit = b"HEAD\r\n\r\n4\r\n".len();
        let step = sender.poll(&mut source, &mut 0, &mut cx, |_, _| {
            match std::mem::take(&mut limit) {
                0 => Poll::Pending,
                taken => Poll::Ready(Ok(taken)),
            }
        });
        assert_eq!(step.unwrap(), Step::Blocked);
        assert!(sender.is_replayable());
        sender.rewind();
        assert_eq!(
            send(sender, &mut source, 1),
            b"HEAD\r\n\r\n4\r\nbody\r\n0\r\nT: x\r\n\r\n"
        );
        let mut sender = Sender::request(head(), Announced::Length);
        let mut source = pieces(&[b"body"]);
        let sent = sender.poll(&mut source, &mut 0, &mut cx, |_, slices| {
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        });
        assert_eq!(sent.unwrap(), Step::Done);
        assert!(!sender.is_replayable());
    }

    #[test]
    fn the_lines_of_a_long_body_do_not_pile_up() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut source = pieces(&vec![&b"piece"[..]; 10_000]);
        let mut sender = Sender::request(head(), Announced::Chunks);
        let step = sender.poll(&mut source, &mut 0, &mut cx, |_, slices| {
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        });
        assert_eq!(step.unwrap(), Step::Done);
        assert!(
            sender.line.len() < 100,
            "{} bytes of lines",
            sender.line.len()
        );
    }

    /// Polls once with a socket that takes `taken` bytes and then no more. What each call was offered.
    fn offered(sender: &mut Sender, source: &mut Pieces, mut taken: usize) -> Vec<Vec<usize>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut calls = Vec::new();
        let step = sender.poll(source, &mut 0, &mut cx, |_, slices| {
            calls.push(slices.iter().map(|slice| slice.len()).collect());
            match std::mem::take(&mut taken) {
                0 => Poll::Pending,
                some => Poll::Ready(Ok(some)),
            }
        });
        assert_eq!(step.unwrap(), Step::Blocked);
        calls
    }

    #[test]
    fn a_response_copies_pieces_as_long_as_4_kib_wait_and_no_longer() {
        // The head takes eight bytes, the line before such a chunk five.
        for (framing, piece, calls) in [
            (Announced::Length, 4088, [4096].to_vec()),
            (Announced::Length, 4089, [8, 4089, 0].to_vec()),
            (Announced::Chunks, 4083, [8 + 5 + 4083 + 2].to_vec()),
            (Announced::Chunks, 4084, [8 + 5, 4084, 2].to_vec()),
        ] {
            let large = vec![b'x'; piece];
            let mut sender = Sender::response(head(), framing);
            let mut source = pieces(&[&large, b""]);
            assert_eq!(
                offered(&mut sender, &mut source, 0),
                [calls],
                "{framing:?} {piece}"
            );
        }
    }

    #[test]
    fn what_was_sent_already_leaves_room_for_more_to_be_copied() {
        let (first, second) = (vec![b'x'; 3000], vec![b'y'; 2000]);
        let mut sender = Sender::response(head(), Announced::Length);
        // A pause after the first piece, so that it leaves alone.
        let mut source = pieces(&[&first, b"", &second, b""]);
        assert_eq!(
            offered(&mut sender, &mut source, 1000),
            [[3008], [2008 + 2000]],
            "1000 of 3008 bytes are sent when the second piece comes"
        );
    }

    #[test]
    fn a_request_never_copies_its_body() {
        let mut sender = Sender::request(head(), Announced::Chunks);
        let mut source = pieces(&[b"body"]);
        assert_eq!(offered(&mut sender, &mut source, 0), [[11, 4, 2]]);
        assert!(sender.is_replayable());
    }

    #[test]
    fn a_request_is_sent_again_whole_where_its_body_began_behind_half_a_long_head() {
        let mut head = Outbound::new();
        head.extend_from_slice(&[b'h'; 3 * GATHER_LIMIT]);
        let whole = [&head[..], b"body"].concat();
        let mut sender = Sender::request(head, Announced::Length);
        // The head leaves before the body is there.
        let mut source = pieces(&[b"", b"body"]);
        let calls = offered(&mut sender, &mut source, 2 * GATHER_LIMIT);
        assert_eq!(
            calls,
            [[3 * GATHER_LIMIT].to_vec(), [GATHER_LIMIT, 4, 0].to_vec()]
        );
        assert!(sender.is_replayable());
        sender.rewind();
        assert!(send(sender, &mut source, usize::MAX) == whole);
    }

    #[test]
    fn a_message_is_unsent_until_its_first_byte_leaves() {
        let mut sender = Sender::response(head(), Announced::Nothing);
        assert!(sender.is_unsent());
        offered(&mut sender, &mut pieces(&[]), 0);
        assert!(sender.is_unsent(), "the socket took nothing");
        assert_eq!(sender.unsent(), b"HEAD\r\n\r\n");
        offered(&mut sender, &mut pieces(&[]), 3);
        assert!(!sender.is_unsent());
        assert_eq!(sender.unsent(), b"D\r\n\r\n");
    }

    /// A body that must not be asked again after its end.
    struct AskedOnce {
        pieces: Pieces,
        ended: bool,
    }

    impl Source for AskedOnce {
        type Error = Infallible;

        fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Infallible>> {
            assert!(!self.ended, "asked after the end");
            self.ended = self.pieces.0.is_empty();
            self.pieces.poll_data(cx)
        }

        fn consume(&mut self, count: usize) {
            self.pieces.consume(count);
        }

        fn write_trailers(&self, out: &mut Vec<u8>) {
            self.pieces.write_trailers(out);
        }
    }

    #[test]
    fn a_body_is_not_asked_again_after_its_end() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for framing in [Announced::Length, Announced::Chunks] {
            for make in [Sender::request, Sender::response] {
                let mut source = AskedOnce {
                    pieces: pieces(&[b"one", b"two"]),
                    ended: false,
                };
                let mut sender = make(head(), framing);
                let step = sender.poll(&mut source, &mut 0, &mut cx, |_, slices| {
                    Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
                });
                assert_eq!(step.unwrap(), Step::Done, "{framing:?}");
                assert!(source.ended, "{framing:?}");
            }
        }
    }

    #[test]
    fn the_lines_of_a_long_body_do_not_pile_up_where_the_socket_never_takes_all_of_them() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // One at a time, so that each is copied behind the rest of those before it.
        let mut source = pieces(&[&b"piece"[..], b""].repeat(10_000));
        let mut sender = Sender::response(head(), Announced::Chunks);
        let mut most = 0;
        for _ in 0..100_000 {
            let mut once = 1;
            let step = sender.poll(&mut source, &mut 0, &mut cx, |_, slices| {
                let all: usize = slices.iter().map(|slice| slice.len()).sum();
                match std::mem::take(&mut once) {
                    0 => Poll::Pending,
                    _ => Poll::Ready(Ok((all - 1).max(1))),
                }
            });
            most = most.max(sender.line.len());
            if step.unwrap() == Step::Done {
                break;
            }
        }
        assert!(source.0.is_empty(), "{} pieces are left", source.0.len());
        assert!(most < 3 * GATHER_LIMIT, "{most} bytes of lines");
    }
}
