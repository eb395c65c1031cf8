//! The commands that ask a running Forebay: each is one question to its admin socket, printed for
//! people, or as it came for programs.
//!
//! `client` → `metrics`, `routes`, `status`; `annotations` needs no answer.

mod annotations;
mod client;
mod metrics;
mod output;
mod routes;
mod status;

pub(crate) use self::{annotations::annotations, metrics::metrics, routes::routes, status::status};
