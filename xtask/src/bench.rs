//! `bench`: builds the binary of the image and becomes the benchmark.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    build_ebpf, build_release,
    setup::{self, Piece, kubernetes, python},
    shell::{self, cargo, command},
    test::WORKSPACE,
    workspace,
};

/// What to measure.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// CPU and memory per request, connection and message, against a copy loop, nginx, HAProxy and
    /// Envoy
    Http,
    /// Time from an edit to its effect, and its cost, with ten thousand Ingresses
    Converge,
    /// Nanoseconds per packet of each verdict, as a ratio to `return XDP_PASS`
    Steer,
}

/// The command line of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum)]
    subject: Subject,
    /// Measure a binary that is compiled once, without a profile
    #[arg(long)]
    unprofiled: bool,
    /// Options of the benchmark; see `cargo xtask bench http -- --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (subject, pieces): (_, &[Piece]) = match options.subject {
        Subject::Http => ("http", &Piece::BENCH),
        Subject::Converge => ("converge", &Piece::CONVERGE),
        Subject::Steer => ("steer", &[]),
    };
    // Packets are counted by a bench that loads the kernel programs itself.
    let serves = !matches!(options.subject, Subject::Steer);
    let asks_for_help = options
        .rest
        .iter()
        .any(|word| word == "--help" || word == "-h");
    if !asks_for_help {
        let release: &[Piece] = if serves && !options.unprofiled {
            &Piece::RELEASE
        } else {
            &[]
        };
        setup::ensure(&[pieces, release].concat())?;
    }
    build_ebpf::build()?;
    if !serves {
        build_ebpf::build_undo()?;
    }
    println!("building the benchmark; the first time this takes some minutes");
    let bins: &[&str] = if serves && options.unprofiled {
        &["--bin", "bench", "--bin", "forebay"]
    } else {
        &["--bin", "bench"]
    };
    shell::run(
        cargo()
            .args(["build", "--release"])
            .args(WORKSPACE)
            .args(bins),
    )?;
    let built = workspace::target().join("release");
    let mut bench = command(built.join("bench"));
    if asks_for_help {
        return shell::replace_by(bench.arg(subject).args(&options.rest));
    }
    check_options(&built.join("bench"), subject, &options.rest)?;
    if serves {
        let forebay = if options.unprofiled {
            built.join("forebay")
        } else {
            build_release::build(false)?
        };
        bench.env("FOREBAY_BIN", forebay);
    }
    if let Some(folder) = kubernetes::find()? {
        bench.env(kubernetes::VARIABLE, folder);
    }
    if let Some(envoy) = python::envoy()? {
        bench.env("FOREBAY_ENVOY", envoy);
    }
    shell::replace_by(bench.arg(subject).args(&options.rest))
}

/// Fails if the benchmark does not know the options: better now than after a quarter of an hour. Asked
/// for help behind them, it only reads them.
fn check_options(bench: &Path, subject: &str, options: &[String]) -> Result<()> {
    let status = command(bench)
        .arg(subject)
        .args(options)
        .arg("--help")
        .stdout(Stdio::null())
        .status()
        .context("start the benchmark")?;
    ensure!(
        status.success(),
        "these are not options of `bench {subject}`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn options_of_the_benchmark_follow_its_name() {
        for (line, unprofiled, rest) in [
            (&["x", "--unprofiled", "http"][..], true, &[][..]),
            (&["x", "http", "--unprofiled"], true, &[]),
            (
                &["x", "http", "--rows", "http1"],
                false,
                &["--rows", "http1"],
            ),
            (&["x", "http", "--", "--help"], false, &["--help"]),
        ] {
            let options = Line::try_parse_from(line).unwrap().options;
            assert_eq!(options.unprofiled, unprofiled, "{line:?}");
            assert_eq!(options.rest, rest, "{line:?}");
        }
    }
}
