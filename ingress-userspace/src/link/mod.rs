//! The link between an agent and a proxy that are two processes: a Unix socket, frames, descriptors.
//!
//! ```text
//! proxy                                        agent
//!   │ ── Hello: version, workers, sockets it has ──> │ binds what is missing
//!   │ <── Welcome and sockets (SCM_RIGHTS) ───────── │
//!   │ <── the whole state, then what changes ─────── │ one update per frame
//!   │ ── Serving: its workers accept ──────────────> │ lets the kernel steer to the sockets
//!   │ ── Leaving, Ending, Closed ──────────────────> │ at its end
//! ```
//!
//! Whichever ends, the other goes on: a new proxy takes the sockets that the agent kept, with the
//! connections that wait in them; a new agent gets them from the proxy, which serves meanwhile.

mod channel;
mod last_good;
mod proxy;
mod replay;

pub(crate) use self::{
    channel::{Channel, Frame, LinkError, PATIENCE, join},
    last_good::{LastGood, LastGoodError},
    proxy::{Command, HEARTBEAT, Link},
};
