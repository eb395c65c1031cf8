//! What stands around the process under test, for the tests, the demo and the benchmarks.
//!
//! `lab` makes networks (`api_server` runs a control plane on one) → `origin` answers as pods →
//! `forebay` runs the binary → `client` asks it.

pub mod api_server;
pub mod client;
pub mod forebay;
pub mod lab;
pub mod origin;
pub mod programs;

use std::time::{Duration, Instant};

/// Waits until `holds`, asking every 2 ms; for conditions outside this process.
///
/// # Panics
/// When it does not hold within 10 s; the message names `what`.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says that the running test did not run, and why; `cargo xtask test` counts these lines.
#[expect(
    clippy::print_stdout,
    reason = "the line is for the person who runs the tests"
)]
pub fn skipped(reason: &str) {
    println!("SKIPPED: {reason}");
}
