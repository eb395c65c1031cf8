//! What agent and proxy say to each other as bytes, where they are two processes.
//!
//! The format is postcard's (little-endian varints, lengths before what is variable; a struct is the
//! sequence of its fields). Both ends are the same binary, so that it follows the types, and another
//! [`VERSION`] is refused rather than guessed at. What comes in is checked by the constructors that
//! checked it on its way out. How the bytes are framed is the link's own matter.

mod message;
mod update;

pub use message::{FromAgent, FromProxy, MESSAGE_LIMIT, Place, read, write};
pub use update::{Decoder, WireError, encode};

/// Changes with every change of the format: a field more or less, another order, another type.
pub const VERSION: u16 = 2;
