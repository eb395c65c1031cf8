//! The pod side of a request: pick an endpoint, reuse or open a connection, exchange one request for
//! one response.
//!
//! `balance` → `pool` → `exchange` sends a `request` and reads the head of the response → `download`
//! reads its body. `endpoints` is what the control side says; `attempt` is when to try again.
//!
//! All of it is polled by the task of the client's connection, so that a request costs no task, no
//! channel and no wake-up of its own, and a pool per worker needs no lock.

mod attempt;
mod balance;
mod endpoints;
mod peer;
mod pool;

mod download;
mod exchange;
mod request;
mod response;

mod body;
mod error;

pub(crate) use attempt::{Attempts, Failure, Repeatable, RetryBudget};
pub(crate) use balance::{Balancer, Balancers, Choice};
pub(crate) use body::{RequestBody, RequestBodyError};
pub(crate) use download::Download;
pub use endpoints::Upstream;
pub(crate) use endpoints::Upstreams;
pub(crate) use error::ForwardError;
pub(crate) use exchange::{Ask, Exchange, Timeouts};
pub(crate) use pool::{EndpointPool, Lease, Pool};
pub(crate) use request::Outgoing;
pub(crate) use response::Head;
#[cfg(fuzzing)]
pub(crate) use response::{Context, read_head};
