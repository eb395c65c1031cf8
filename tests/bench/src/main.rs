//! `cargo xtask bench`: measures, always beside a peer or a floor in the same run.

use anyhow::Result;
use clap::{Parser, builder::RangedU64ValueParser};

mod account;
mod client;
mod converge;
mod http;
mod median;
mod percentile;
mod program;
mod steer;

/// The host that all requests name, and the certificate.
const HOST: &str = "bench.example";

/// Parses a count that must not be less: of nothing, there is no median.
fn at_least(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..)
}

/// Measures Forebay.
#[derive(Parser)]
enum Command {
    /// CPU and memory per request, connection and message, against a copy loop, nginx, HAProxy and
    /// Envoy
    Http(http::Options),
    /// Time from an edit to its effect, and its cost, with ten thousand Ingresses
    Converge(converge::Options),
    /// Nanoseconds per packet of each verdict, as a ratio to `return XDP_PASS`
    Steer(steer::Options),
    /// Puts every kind of load on Forebay for a build that is optimised by a profile
    Train,
    /// What `http` starts beside the proxies
    #[command(subcommand, hide = true)]
    Program(program::Program),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Http(options) => http::run(&options),
        Command::Converge(options) => converge::run(&options),
        Command::Steer(options) => steer::run(&options),
        Command::Train => http::train(),
        Command::Program(program) => program::run(&program),
    }
}
