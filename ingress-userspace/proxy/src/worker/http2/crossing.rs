//! Keeps an ending connection open for the requests that cross its first GOAWAY.
//!
//! hyper sends the last GOAWAY as soon as the client has answered the PING beside the first one (RFC
//! 9113 section 6.8). Clients answer a PING before all that waits to be sent, so requests which they
//! began before they saw GOAWAY follow that answer, and would be refused. So hyper hears the answer a
//! moment later.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::net::Deadline;

/// How long the answer is kept back.
const MOMENT: Duration = Duration::from_secs(1);
/// Size of the client's preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Size of a frame's header: length (3 bytes, big-endian), type, flags, stream (RFC 9113 section 4.1).
const HEADER: usize = 9;
/// The answer: a PING with the flag ACK and what h2 writes into the PING of a graceful shutdown. If
/// another version writes something else, the answer is not kept back, and a test fails.
const PONG: [u8; 17] = [
    0, 0, 8, 6, 1, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54,
];

/// Follows the frames that a client sends.
pub(super) struct Crossing {
    /// The first GOAWAY is sent.
    ending: Rc<Cell<bool>>,
    /// Bytes left of the preface, or of a frame's payload.
    left: usize,
    header: [u8; HEADER],
    /// Bytes of `header` that have come.
    known: usize,
    /// Set while the answer is kept back.
    kept: Deadline,
    /// What is left of an answer that is given out.
    answer: &'static [u8],
}

impl Crossing {
    pub(super) fn new(ending: Rc<Cell<bool>>) -> Self {
        Self {
            ending,
            left: PREFACE,
            header: [0; HEADER],
            known: 0,
            kept: Deadline::default(),
            answer: &[],
        }
    }

    /// Follows what was just read, and takes the answer out of it; how many bytes of it count.
    pub(super) fn follow(&mut self, read: &mut [u8]) -> usize {
        let mut at = 0;
        let mut end = read.len();
        while let Some(rest) = read.get_mut(at..end)
            && !rest.is_empty()
        {
            if self.left > 0 {
                let some = self.left.min(rest.len());
                self.left -= some;
                at += some;
            } else if self.known == 0
                && self.ending.get()
                && !self.kept.is_set()
                && rest.starts_with(&PONG)
            {
                rest.copy_within(PONG.len().., 0);
                end -= PONG.len();
                self.kept.set(Instant::now() + MOMENT);
            } else {
                for (known, byte) in self.header.iter_mut().skip(self.known).zip(rest.iter()) {
                    *known = *byte;
                    self.known += 1;
                    at += 1;
                }
                if self.known == HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.known = 0;
                }
            }
        }
        end
    }

    /// Ready once the answer has been kept long enough: the bytes that have to come before it, and
    /// as much of the answer as there is room for once there are none. If not, this task is woken when
    /// it has.
    pub(super) fn poll_answer(
        &mut self,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<&'static [u8], usize>> {
        if self.answer.is_empty() {
            std::task::ready!(self.kept.poll(cx));
            let before = match self.known {
                0 => self.left,
                known => HEADER - known,
            };
            if before > 0 {
                return Poll::Ready(Err(before));
            }
            self.kept.clear();
            self.ending.set(false);
            self.answer = &PONG;
        }
        let (now, later) = self.answer.split_at(room.min(self.answer.len()));
        self.answer = later;
        Poll::Ready(Ok(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A preface, SETTINGS, the answer, and DATA that looks like it.
    fn inbound() -> (Vec<u8>, Vec<u8>) {
        let mut before = vec![b'p'; PREFACE];
        before.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let mut after = vec![0, 0, PONG.len() as u8, 0, 0, 0, 0, 0, 1];
        after.extend(PONG);
        let sent = [&before[..], &PONG, &after].concat();
        (sent, [before, after].concat())
    }

    fn follow(crossing: &mut Crossing, sent: &[u8], size: usize) -> Vec<u8> {
        let mut got = Vec::new();
        for piece in sent.chunks(size) {
            let mut piece = piece.to_vec();
            let end = crossing.follow(&mut piece);
            got.extend_from_slice(&piece[..end]);
        }
        got
    }

    #[test]
    fn only_the_answer_to_the_ping_of_an_ending_connection_is_kept_back() {
        let (sent, without) = inbound();
        for (ending, wanted) in [(false, &sent), (true, &without)] {
            let mut crossing = Crossing::new(Rc::new(Cell::new(ending)));
            assert_eq!(
                follow(&mut crossing, &sent, sent.len()),
                *wanted,
                "ending: {ending}"
            );
            assert_eq!(crossing.kept.is_set(), ending);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_whole_however_little_is_read_at_once() {
        let (sent, _) = inbound();
        for room in 1..=PONG.len() {
            let ending = Rc::new(Cell::new(true));
            let mut crossing = Crossing::new(Rc::clone(&ending));
            follow(&mut crossing, &sent, sent.len());
            let mut answer = Vec::<u8>::new();
            while answer.len() < PONG.len() {
                let piece = std::future::poll_fn(|cx| crossing.poll_answer(room, cx));
                let piece = tokio::time::timeout(2 * MOMENT, piece).await.unwrap();
                assert!(piece.unwrap().len() <= room);
                answer.extend(piece.unwrap());
            }
            assert_eq!(answer, PONG, "{room} bytes at once");
            assert!(!ending.get(), "{room} bytes at once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_again_and_again_does_not_put_the_end_off() {
        let mut crossing = Crossing::new(Rc::new(Cell::new(true)));
        follow(&mut crossing, &inbound().0, usize::MAX);
        for _ in 0..3 {
            tokio::time::advance(MOMENT / 2).await;
            let mut again = PONG;
            // Only one is kept back: the others go on as they come.
            let end = crossing.follow(&mut again);
            assert_eq!(&again[..end], PONG);
        }
        let answer = std::future::poll_fn(|cx| crossing.poll_answer(PONG.len(), cx));
        let soon = tokio::time::timeout(Duration::from_millis(1), answer).await;
        assert_eq!(soon.unwrap(), Ok(&PONG[..]));
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let (sent, without) = inbound();
        for size in 1..sent.len() {
            let mut crossing = Crossing::new(Rc::new(Cell::new(true)));
            let got = follow(&mut crossing, &sent, size);
            // An answer that is cut itself goes on as it came.
            assert!(got == sent || got == without, "pieces of {size}: {got:?}");
            assert_eq!((crossing.left, crossing.known), (0, 0), "pieces of {size}");
        }
    }
}
