//! The commands that ask a running Forebay: each is one question to its admin socket, printed for
//! people, or as it came for programs.
//!
//! `client` → `metrics`, `routes`, `status`; `annotations`, `detach` and `explain` need no answer.

mod annotations;
mod client;
mod detach;
mod explain;
mod metrics;
mod output;
mod routes;
mod status;

pub(crate) use self::{
    annotations::annotations, detach::detach, explain::explain, metrics::metrics, routes::routes,
    status::status,
};
