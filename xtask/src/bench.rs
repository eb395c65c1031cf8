//! `bench`: builds the binary of the image and becomes the benchmark.

use anyhow::Result;
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
    let subject = match options.subject {
        Subject::Http => {
            setup::ensure(&Piece::BENCH)?;
            "http"
        }
        Subject::Converge => {
            setup::ensure(&[Piece::Kubernetes])?;
            "converge"
        }
        Subject::Steer => "steer",
    };
    build_ebpf::build()?;
    println!("building the benchmark; the first time this takes some minutes");
    // Packets are counted by a bench that loads the kernel programs itself.
    let serves = !matches!(options.subject, Subject::Steer);
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
