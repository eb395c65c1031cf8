//! `fuzz`: runs each fuzz target for a while, on the stable compiler.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::shell::{self, cargo, output};

/// The command line of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    target: Option<String>,
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if output(cargo().args(["fuzz", "--version"])).is_none() {
        println!("missing  cargo-fuzz; it will be built and installed (40 seconds)");
        shell::run(cargo().args(["install", "cargo-fuzz", "--locked"]))?;
    }
    let targets = match &options.target {
        Some(target) => target.clone(),
        None => output(&mut fuzz("list")).context("list the fuzz targets")?,
    };
    let time = format!("-max_total_time={}", options.seconds);
    for target in targets.lines() {
        println!("\n== {target}, {} s ==", options.seconds);
        shell::run(
            fuzz("run")
                .arg(target)
                .arg("--")
                .args(["-len_control=0", &time]),
        )?;
    }
    Ok(())
}

/// cargo-fuzz on our targets. Sanitizers are unstable options, which a stable compiler takes only
/// when told so.
fn fuzz(subcommand: &str) -> Command {
    let mut fuzz = cargo();
    fuzz.env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", subcommand, "--fuzz-dir", "tests/fuzz"]);
    fuzz
}
