//! `fuzz`: builds the fuzz targets once, then runs each for a while, on the stable compiler.
//!
//! The seeds in `tests/fuzz/corpus` are read only. What a run finds beyond them is kept below
//! `tests/fuzz/target`, where the next run on this machine goes on from; what breaks a target is
//! written to `tests/fuzz/artifacts`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    setup::{self, Piece, cargo_fuzz},
    shell::{self, command, output, path_with},
    workspace,
};

/// The command line of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Print only statistics and failures, not progress
    #[arg(long)]
    quiet: bool,
    /// Run only this target
    target: Option<String>,
}

/// Runs each target on its seeds and a little longer, as CI does.
pub(crate) fn smoke() -> Result<()> {
    run(&Options {
        seconds: 5,
        quiet: true,
        target: None,
    })
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(&Piece::FUZZ)?;
    let listed = output(&mut fuzz("list")?).context("list the fuzz targets")?;
    let mut targets: Vec<&str> = listed.lines().collect();
    if let Some(only) = &options.target {
        targets.retain(|target| target == only);
        if targets.is_empty() {
            bail!(
                "no target `{only}`; targets: {}",
                listed.replace('\n', ", ")
            );
        }
    }
    let mut build = sanitized("build")?;
    shell::run(build.args(&options.target))?;
    for target in targets {
        println!("\n== {target}, {} s ==", options.seconds);
        run_target(target, options)?;
    }
    Ok(())
}

fn run_target(target: &str, options: &Options) -> Result<()> {
    let found = folder().join("target/found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
    // libFuzzer writes to the first folder and only reads the others.
    let seeds = Some(folder().join("corpus").join(target)).filter(|seeds| seeds.is_dir());
    let mut run = sanitized("run")?;
    run.arg(target).arg(found).args(seeds);
    run.args(["--", "-len_control=0", "-timeout=10"])
        .arg(format!("-max_total_time={}", options.seconds));
    if options.quiet {
        run.args(["-verbosity=0", "-print_funcs=0", "-print_final_stats=1"]);
    }
    shell::run(&mut run)
}

/// Our targets' workspace.
fn folder() -> PathBuf {
    workspace::root().join("tests/fuzz")
}

/// A command that compiles. Debian's compiler has no sanitizer; without one the targets still find
/// panics and broken assertions, which is all that safe code can do wrong.
fn sanitized(subcommand: &str) -> Result<Command> {
    let mut command = fuzz(subcommand)?;
    let sanitizer = if has_sanitizer() { "address" } else { "none" };
    command.args(["--sanitizer", sanitizer]);
    Ok(command)
}

fn has_sanitizer() -> bool {
    let libraries = output(command("rustc").args(["--print", "target-libdir"]));
    let files = libraries.and_then(|folder| fs::read_dir(folder).ok());
    files.is_some_and(|files| {
        files
            .flatten()
            .any(|file| file.file_name().to_string_lossy().ends_with("_rt.asan.a"))
    })
}

/// cargo-fuzz on our targets. Sanitizers and coverage are unstable options, which a stable compiler
/// takes only when told so.
fn fuzz(subcommand: &str) -> Result<Command> {
    let program = cargo_fuzz::find()?.context("no cargo-fuzz")?;
    let mut cargo = shell::cargo();
    cargo
        .env(
            "PATH",
            path_with(&[program.parent().unwrap_or(Path::new("/"))])?,
        )
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", subcommand, "--fuzz-dir", "tests/fuzz"]);
    Ok(cargo)
}
