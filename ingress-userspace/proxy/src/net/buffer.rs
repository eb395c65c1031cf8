//! Memory for bytes on their way, borrowed from the thread for as long as there are any.
//!
//! A connection that waits holds no buffer: ten thousand idle connections cost what their tasks
//! cost. Few buffers are in use at once, and the last one given back is the next one taken, so
//! that they stay in the core's cache.

use std::{
    cell::RefCell,
    fmt, io,
    ops::{Deref, DerefMut},
    task::{Context, Poll, ready},
};

/// Size of a buffer for received bytes: the largest head, and what one read of a body takes.
pub(crate) const INBOUND_SIZE: usize = 64 * 1024;
/// What such a buffer has behind that: as many bytes take a little more once they are encrypted.
const SLACK: usize = 1024;
/// Most buffers of a kind that a thread keeps for later use.
const FREE_LIMIT: usize = 64;
/// A buffer that grew beyond this is not kept.
const OUTBOUND_KEPT: usize = 64 * 1024;
/// What a new buffer for a head holds without growing.
const OUTBOUND_SIZE: usize = 2 * 1024;

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new(Free { inbound: Vec::new(), outbound: Vec::new() }) };
}

struct Free {
    inbound: Vec<Box<[u8]>>,
    outbound: Vec<Vec<u8>>,
}

/// Where received bytes go: memory that is taken only once there is something to receive.
pub(crate) trait Room<'r> {
    /// The memory.
    fn take(self) -> &'r mut [u8];
}

impl<'r> Room<'r> for &'r mut [u8] {
    fn take(self) -> &'r mut [u8] {
        self
    }
}

/// The room behind the bytes of an [`Inbound`].
pub(crate) struct Space<'i>(&'i mut Inbound);

impl<'i> Room<'i> for Space<'i> {
    fn take(self) -> &'i mut [u8] {
        let Inbound {
            storage,
            start,
            end,
        } = self.0;
        let storage = storage.get_or_insert_with(take_inbound);
        if storage.len() < INBOUND_SIZE {
            let settled = std::mem::replace(storage, take_inbound());
            if let (Some(front), Some(bytes)) =
                (storage.get_mut(..*end - *start), settled.get(*start..*end))
            {
                front.copy_from_slice(bytes);
            }
            *end -= *start;
            *start = 0;
        }
        if *end >= INBOUND_SIZE && *start > 0 {
            storage.copy_within(*start..*end, 0);
            *end -= *start;
            *start = 0;
        }
        storage.get_mut(*end..INBOUND_SIZE).unwrap_or_default()
    }
}

/// Received bytes that are not consumed. Holds memory only while there are any.
#[derive(Default)]
pub(crate) struct Inbound {
    storage: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Inbound {
    /// The bytes, oldest first.
    pub(crate) fn data(&self) -> &[u8] {
        let storage = self.storage.as_deref().unwrap_or_default();
        storage.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no more fit.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start == INBOUND_SIZE
    }

    /// Takes the first `count` bytes away; no more than there are.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.release();
        }
    }

    /// Moves the first bytes to `room`, as many as fit; how many they are.
    pub(crate) fn move_to(&mut self, room: &mut [u8]) -> usize {
        let moved = room
            .iter_mut()
            .zip(self.data())
            .map(|(to, from)| *to = *from)
            .count();
        self.consume(moved);
        moved
    }

    /// Receives more through `receive`; 0 is the end of the stream, or a full buffer.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        receive: impl FnOnce(&mut Context<'_>, Space<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.is_full() {
            return Poll::Ready(Ok(0));
        }
        let received = receive(cx, Space(self));
        match received {
            Poll::Ready(Ok(count)) if count > 0 => self.end += count,
            _ if self.start == self.end && self.storage.is_some() => self.release(),
            _ => {}
        }
        Poll::Ready(ready!(received))
    }

    /// The bytes, to be worked on in place.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        let storage = self.storage.as_deref_mut().unwrap_or_default();
        storage.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Holds no more memory than the bytes need, until more are received: for what has to wait.
    pub(crate) fn settle(&mut self) {
        if self.is_empty()
            || self
                .storage
                .as_ref()
                .is_none_or(|all| all.len() < INBOUND_SIZE)
        {
            return;
        }
        let settled: Box<[u8]> = self.data().into();
        self.release();
        self.end = settled.len();
        self.storage = Some(settled);
    }

    /// Appends what `write` writes into the room that it gets, which is `least` bytes or more.
    pub(crate) fn put<E>(
        &mut self,
        least: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        Space(self).take();
        let room =
            |inbound: &Self| inbound.storage.as_ref().map_or(0, |all| all.len()) - inbound.end;
        if room(self) < least {
            // Rare: this memory is not kept for later.
            let mut larger = self.data().to_vec();
            larger.resize(larger.len() + least, 0);
            self.release();
            self.end = larger.len() - least;
            self.storage = Some(larger.into());
        }
        let storage = self.storage.as_deref_mut().unwrap_or_default();
        let written = write(storage.get_mut(self.end..).unwrap_or_default());
        self.end += *written.as_ref().unwrap_or(&0);
        if self.is_empty() {
            self.release();
        }
        written.map(|_| ())
    }

    /// Appends bytes that came by another way; `false` where they do not fit.
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let Some(space) = Space(self).take().get_mut(..bytes.len()) else {
            return false;
        };
        space.copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(storage) = self.storage.take()
            && storage.len() == INBOUND_SIZE + SLACK
        {
            // Fails only while the thread ends: then the memory goes with it.
            let _ = FREE.try_with(|free| {
                let free = &mut free.borrow_mut().inbound;
                if free.len() < FREE_LIMIT {
                    free.push(storage);
                }
            });
        }
    }
}

fn take_inbound() -> Box<[u8]> {
    let free = FREE
        .try_with(|free| free.borrow_mut().inbound.pop())
        .ok()
        .flatten();
    free.unwrap_or_else(|| vec![0; INBOUND_SIZE + SLACK].into_boxed_slice())
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("length", &self.data().len())
            .finish()
    }
}

/// Bytes to be sent, in a vector whose memory goes back to the thread when this is dropped.
#[derive(Debug)]
pub(crate) struct Outbound(Vec<u8>);

impl Outbound {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let free = FREE
            .try_with(|free| free.borrow_mut().outbound.pop())
            .ok()
            .flatten();
        Self(free.unwrap_or_else(|| Vec::with_capacity(OUTBOUND_SIZE)))
    }

    /// Appends all `pieces`.
    pub(crate) fn put(&mut self, pieces: &[&[u8]]) {
        pieces
            .iter()
            .for_each(|piece| self.0.extend_from_slice(piece));
    }
}

impl Deref for Outbound {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Outbound {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        if memory.capacity() > OUTBOUND_KEPT {
            return;
        }
        memory.clear();
        let _ = FREE.try_with(|free| {
            let free = &mut free.borrow_mut().outbound;
            if free.len() < FREE_LIMIT {
                free.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(inbound: &mut Inbound, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        inbound.poll_fill(&mut cx, |_, space| {
            let space = space.take();
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        })
    }

    #[test]
    fn memory_is_held_only_while_there_are_bytes() {
        let mut inbound = Inbound::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(
            inbound
                .poll_fill(&mut cx, |_, _| Poll::Pending)
                .is_pending()
        );
        assert!(inbound.storage.is_none());
        assert!(fill(&mut inbound, b"abc").is_ready());
        inbound.consume(1);
        assert_eq!(inbound.data(), b"bc");
        inbound.consume(2);
        assert!(inbound.storage.is_none());
    }

    #[test]
    fn bytes_that_wait_hold_no_more_than_their_own_memory() {
        let mut inbound = Inbound::default();
        inbound.settle();
        assert!(inbound.storage.is_none());
        assert!(fill(&mut inbound, b"abcd").is_ready());
        inbound.consume(1);
        for _ in 0..2 {
            inbound.settle();
            assert_eq!(inbound.storage.as_ref().map(|all| all.len()), Some(3));
            assert_eq!(inbound.data(), b"bcd");
        }
        inbound.consume(1);
        assert!(fill(&mut inbound, &vec![1; INBOUND_SIZE]).is_ready());
        assert!(inbound.is_full());
        assert_eq!(inbound.data()[..3], [b'c', b'd', 1]);
        // The small piece of memory is not given to another.
        inbound.settle();
        inbound.consume(INBOUND_SIZE);
        assert_eq!(take_inbound().len(), INBOUND_SIZE + SLACK);
        assert!(fill(&mut inbound, b"ab").is_ready());
        inbound.settle();
        inbound.consume(2);
        assert_eq!(take_inbound().len(), INBOUND_SIZE + SLACK);
    }

    #[test]
    fn what_is_put_has_the_room_that_it_asks_for() {
        let mut inbound = Inbound::default();
        let mut put = |least: usize, count: usize| {
            let written = inbound.put(least, |room| {
                assert!(room.len() >= least, "{} of {least}", room.len());
                room[..count].fill(7);
                if count == 0 { Err(()) } else { Ok(count) }
            });
            assert_eq!(written.is_ok(), count > 0);
            (inbound.data().len(), inbound.storage.is_some())
        };
        assert_eq!(put(1, 0), (0, false));
        const WHOLE: usize = INBOUND_SIZE + SLACK;
        assert_eq!(put(WHOLE, 1), (1, true));
        assert_eq!(put(WHOLE, WHOLE), (WHOLE + 1, true));
        assert_eq!(put(1, 0), (WHOLE + 1, true));
        assert!(inbound.data().iter().all(|byte| *byte == 7));
        // Memory of another size is not kept.
        inbound.consume(WHOLE + 1);
        assert_eq!(take_inbound().len(), INBOUND_SIZE + SLACK);
    }

    #[test]
    fn what_is_left_moves_to_the_front_when_the_end_is_reached() {
        let mut inbound = Inbound::default();
        assert!(fill(&mut inbound, &vec![1; INBOUND_SIZE]).is_ready());
        assert!(inbound.is_full());
        assert!(matches!(fill(&mut inbound, b"x"), Poll::Ready(Ok(0))));
        inbound.consume(INBOUND_SIZE - 1);
        assert!(matches!(fill(&mut inbound, b"xy"), Poll::Ready(Ok(2))));
        assert_eq!(inbound.data(), [1, b'x', b'y']);
    }
}
