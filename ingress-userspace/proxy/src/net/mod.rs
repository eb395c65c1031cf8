//! What both sides of the proxy stand on: sockets, buffers that go back when they are empty, deadlines.

mod buffer;
mod deadline;
mod listener;
#[cfg(fuzzing)]
mod memory;
#[cfg(not(fuzzing))]
mod socket;
mod stall;
#[expect(unsafe_code, reason = "promises about descriptors")]
mod sys;

pub(crate) use buffer::{INBOUND_SIZE, Inbound, Outbound, Room};
pub(crate) use deadline::Deadline;
pub(crate) use listener::Listener;
#[cfg(fuzzing)]
pub use memory::{End, Far};
#[cfg(fuzzing)]
pub(crate) use memory::{Socket, connected, pair};
#[cfg(not(fuzzing))]
pub(crate) use socket::Socket;
pub(crate) use stall::Stall;
