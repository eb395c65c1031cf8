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
