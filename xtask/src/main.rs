//! `cargo xtask`: the commands that set up, build, demo, test and measure Forebay; one file per
//! command.

#![expect(
    clippy::print_stdout,
    reason = "every command here reports to the person who typed it"
)]

use std::process::ExitCode;

use clap::Parser;

mod shell;
mod workspace;

mod bench;
mod build_ebpf;
mod build_release;
mod ci;
mod demo;
mod fuzz;
mod setup;
mod test;
mod tidy;

/// Set up, build, test, demo and measure Forebay.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Install what building, testing and measuring need
    Setup(setup::Options),
    /// Build the kernel object, target/ebpf/forebay.bpf.o
    BuildEbpf(build_ebpf::Options),
    /// Build the binary as the image ships it: compiled, put under load, and compiled again with
    /// what was learned
    BuildRelease(build_release::Options),
    /// Run the tests and count them by group
    Test(test::Options),
    /// Show the path of requests for a virtual IP through three nodes
    Demo(demo::Options),
    /// Measure against other proxies (http), from an edit to its effect (converge), or against the
    /// XDP floor (steer)
    Bench(bench::Options),
    /// Check the rules of CONTRIBUTING.md that the compiler does not
    Tidy,
    /// Run everything CI runs: format, tidy, eBPF, lints, docs, manifests, fuzz targets and all tests
    Ci,
    /// Fuzz each parser for a while
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For people: what failed and why, without a backtrace.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(options) => setup::run(&options),
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::BuildRelease(options) => build_release::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tidy => tidy::run(),
        Command::Ci => ci::run(),
        Command::Fuzz(options) => fuzz::run(&options),
    }
}
