//! `cargo xtask bench`: measures, and shows the figures beside a peer's or a floor's.

use anyhow::Result;
use clap::Parser;
use ingress_tests::bench;

/// Measures Forebay.
#[derive(Parser)]
enum Command {
    /// CPU a request, beside nginx, HAProxy and Envoy
    Http(bench::http::Options),
    /// Nanoseconds a frame of each verdict, beside `return XDP_PASS`
    Steer(bench::steer::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Http(options) => bench::http::run(&options),
        Command::Steer(options) => bench::steer::run(&options),
    }
}
