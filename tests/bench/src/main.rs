//! `cargo xtask bench`: measures, always beside a peer or a floor in the same run.

use anyhow::Result;
use clap::Parser;

mod http;
mod steer;

/// Measures Forebay.
#[derive(Parser)]
enum Command {
    /// CPU a request, beside nginx, HAProxy and Envoy
    Http(http::Options),
    /// Nanoseconds a frame of each verdict, beside `return XDP_PASS`
    Steer(steer::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Http(options) => http::run(&options),
        Command::Steer(options) => steer::run(&options),
    }
}
