//! Nothing is lost while things change: `clients` keeps the load up, `replacement` puts one process
//! in the place of another below it, `processes` ends agent and proxy, `rollout` changes endpoints.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what stands around a test fails by panicking too, and says what it counted"
)]

mod clients;
mod link;
mod pair;
mod pod;
mod site;

mod processes;
mod replacement;
mod rollout;
