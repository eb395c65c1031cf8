//! `setup`: looks for what a purpose needs, says what it found and what it will do, then does it.
//!
//! The other commands call [`ensure`] for just what they need. A second run finds everything and
//! does nothing.

use std::fs::{self, File};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{shell, workspace};

pub(crate) mod cargo_fuzz;
pub(crate) mod ebpf;
pub(crate) mod go;
pub(crate) mod h2spec;
pub(crate) mod kubernetes;
mod packages;
mod pieces;
pub(crate) mod profdata;
pub(crate) mod python;
mod step;

pub(crate) use pieces::Piece;
use pieces::State;
use step::Step;

/// What to prepare for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile the kernel object and the binary
    Build,
    /// Compile the binary as the image ships it
    Release,
    /// Run all tests, and `cargo xtask demo`
    Test,
    /// Run the benchmarks
    Bench,
    /// Run what CI runs
    Ci,
    /// All of these
    All,
}

/// The command line of `cargo xtask setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// What to prepare for
    #[arg(long = "for", value_enum, default_value = "all")]
    purpose: Purpose,
    /// Print what is installed and what would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `cargo xtask setup`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let missing = inspect(&Piece::of(options.purpose), true)?;
    if options.dry_run || missing.is_empty() {
        println!(
            "{}",
            if missing.is_empty() {
                "nothing to do"
            } else {
                "dry run: nothing was done"
            }
        );
        return Ok(());
    }
    install(missing)
}

/// Makes sure that the pieces are there; prints only when one is missing.
pub(crate) fn ensure(pieces: &[Piece]) -> Result<()> {
    if pieces
        .iter()
        .all(|piece| matches!(piece.state(), Ok(State::Found(_))))
    {
        return Ok(());
    }
    let missing = inspect(pieces, false)?;
    install(missing)
}

/// Prints a line per piece, then the steps to come; returns the steps.
fn inspect(pieces: &[Piece], all: bool) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for piece in pieces {
        match piece.state()? {
            State::Found(what) if all => println!("found    {:<22} {what}", piece.name()),
            State::Found(_) => {}
            State::Missing(needed) => {
                println!("missing  {:<22} for {}", piece.name(), piece.reason());
                steps.extend(needed);
            }
        }
    }
    let steps = step::in_order(steps);
    if !steps.is_empty() {
        println!("to do:");
    }
    for step in &steps {
        println!("  - {}", step.describe()?);
    }
    Ok(steps)
}

fn install(steps: Vec<Step>) -> Result<()> {
    check_rights(&steps)?;
    let cache = workspace::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    // Two commands at once must not build the same thing twice; the lock goes with the file.
    let lock = File::create(cache.join(".lock"))?;
    lock.lock().context("lock the cache")?;
    for step in steps {
        match step.run() {
            Err(error) if step.is_optional() => println!("skipped: {error:#}"),
            done => done.with_context(|| step.describe().unwrap_or_default())?,
        }
    }
    Ok(())
}

/// Fails before anything is done if a step needs a right we lack, and names the command to run.
fn check_rights(steps: &[Step]) -> Result<()> {
    let Some(Step::Packages(names)) = steps.first() else {
        return Ok(());
    };
    if shell::find("apt-get").is_none() {
        bail!(
            "no apt-get found; install these packages by hand (Debian names): {}.\n{}{}",
            names.join(" "),
            ebpf::BY_HAND,
            if names.contains(&profdata::PACKAGE) {
                format!("\n{}", profdata::BY_HAND)
            } else {
                String::new()
            }
        );
    }
    if !shell::is_root() {
        bail!(
            "not root; run this, then try again:\n    {}",
            packages::by_hand(names)
        );
    }
    Ok(())
}
