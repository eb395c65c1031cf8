//! The body of a message, taken out of what has arrived on its connection.

use super::{Framing, chunked::Chunked};
use crate::{http1::ChunkError, net::Inbound};

/// Where in its body a message is.
#[derive(Debug)]
pub(crate) enum Body {
    /// This many bytes are to come.
    Length(u64),
    /// Chunks.
    Chunked(Box<Chunked>),
    /// Everything up to the end of the connection.
    Close,
    /// The connection has ended, and with it the body.
    Closed,
}

/// What is at the front of the bytes that have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes of the body, at least one.
    Data(usize),
    /// Nothing before more arrive.
    Starved,
    /// The end of the body.
    End,
}

/// A body that breaks its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// A malformed chunk.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The connection ended first.
    #[error("connection ended before the body did")]
    Truncated,
}

impl Body {
    /// The body that `framing` announces.
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::Close => Self::Close,
        }
    }

    /// Looks at `inbound`; framing is consumed, data is left to the caller.
    ///
    /// # Errors
    /// A chunk is malformed.
    #[inline]
    pub(crate) fn next(&mut self, inbound: &mut Inbound) -> Result<Next, BodyError> {
        let available = match self {
            Self::Length(0) | Self::Closed => return Ok(Next::End),
            Self::Length(left) => (*left).min(inbound.data().len() as u64),
            Self::Close => inbound.data().len() as u64,
            Self::Chunked(chunked) => match chunked.next(inbound)? {
                None => return Ok(Next::End),
                Some(available) => available,
            },
        };
        // Never more than has arrived, which fits.
        Ok(if available == 0 {
            Next::Starved
        } else {
            Next::Data(available as usize)
        })
    }

    /// Takes `count` bytes of data, no more than [`Self::next`] gave.
    #[inline]
    pub(crate) fn take(&mut self, inbound: &mut Inbound, count: usize) {
        inbound.consume(count);
        match self {
            Self::Length(left) => *left = left.saturating_sub(count as u64),
            Self::Chunked(chunked) => chunked.took(count as u64),
            Self::Close | Self::Closed => {}
        }
    }

    /// Notes that the connection has ended.
    ///
    /// # Errors
    /// The body has not: it is cut short.
    pub(crate) fn close(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Close | Self::Closed => {
                *self = Self::Closed;
                Ok(())
            }
            Self::Length(0) => Ok(()),
            Self::Length(_) | Self::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// The trailer section, once the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        match self {
            Self::Chunked(chunked) => chunked.trailers(),
            _ => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(wire: &[u8]) -> Inbound {
        let mut inbound = Inbound::default();
        assert!(inbound.extend(wire));
        inbound
    }

    /// Takes what `inbound` has of `body`, two bytes at a time at most; `true` at the end of the body.
    fn take_all(body: &mut Body, inbound: &mut Inbound) -> (Vec<u8>, bool) {
        let mut data = Vec::new();
        loop {
            match body.next(inbound).unwrap() {
                Next::Data(count) => {
                    let count = count.min(2);
                    data.extend_from_slice(&inbound.data()[..count]);
                    body.take(inbound, count);
                }
                Next::Starved => return (data, false),
                Next::End => return (data, true),
            }
        }
    }

    #[test]
    fn a_body_takes_what_its_framing_announces_and_no_more() {
        for (framing, wire, data, ended, rest) in [
            (Framing::Length(0), "next", "", true, "next"),
            (Framing::Length(5), "hellonext", "hello", true, "next"),
            (Framing::Length(5), "hel", "hel", false, ""),
            (
                Framing::Chunked,
                "5\r\nhello\r\n0\r\nT: x\r\n\r\nnext",
                "hello",
                true,
                "next",
            ),
            (Framing::Chunked, "5\r\nhel", "hel", false, ""),
            (Framing::Close, "hello", "hello", false, ""),
        ] {
            let (mut body, mut inbound) = (Body::new(framing), inbound(wire.as_bytes()));
            assert_eq!(
                take_all(&mut body, &mut inbound),
                (data.as_bytes().to_vec(), ended),
                "{framing:?} {wire:?}"
            );
            assert_eq!(inbound.data(), rest.as_bytes(), "{framing:?} {wire:?}");
        }
    }

    #[test]
    fn the_end_of_the_connection_ends_a_body_only_where_nothing_more_was_announced() {
        use BodyError::Truncated;
        for (framing, wire, closed) in [
            (Framing::Close, "", Ok(())),
            (Framing::Close, "hello", Ok(())),
            (Framing::Length(0), "", Ok(())),
            (Framing::Length(5), "hello", Ok(())),
            (Framing::Length(5), "hell", Err(Truncated)),
            (Framing::Chunked, "5\r\nhello\r\n", Err(Truncated)),
        ] {
            let (mut body, mut inbound) = (Body::new(framing), inbound(wire.as_bytes()));
            take_all(&mut body, &mut inbound);
            for time in 1..=2 {
                assert_eq!(body.close(), closed, "{framing:?} {wire:?}, time {time}");
            }
            if closed.is_ok() {
                assert_eq!(
                    body.next(&mut inbound),
                    Ok(Next::End),
                    "{framing:?} {wire:?}"
                );
            }
        }
    }

    #[test]
    fn only_chunks_carry_trailers() {
        for (framing, wire, trailers) in [
            (Framing::Length(2), "hi", ""),
            (Framing::Close, "hi", ""),
            (Framing::Chunked, "2\r\nhi\r\n0\r\nT: x\r\n\r\n", "T: x\r\n"),
        ] {
            let (mut body, mut inbound) = (Body::new(framing), inbound(wire.as_bytes()));
            take_all(&mut body, &mut inbound);
            assert_eq!(body.trailers(), trailers.as_bytes(), "{framing:?}");
        }
    }
}
