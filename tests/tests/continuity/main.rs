//! Nothing is lost while things change: `clients` keeps the load up, `replacement` puts one process
//! in the place of another below it, `rollout` one set of endpoints.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what stands around a test fails by panicking too, and says what it counted"
)]

mod clients;
mod pod;
mod site;

mod replacement;
mod rollout;
