//! `ci`: everything that must hold before a change lands; what fails fast comes first.

use std::{process::Stdio, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf, fuzz,
    setup::{self, Piece, Purpose, kubernetes},
    shell::{self, cargo, command},
    test, tidy,
};

type Check = fn() -> Result<()>;

const STEPS: [(&str, Check); 8] = [
    ("format", format),
    ("tidy", tidy::run),
    ("eBPF build", build_ebpf::build),
    ("clippy", clippy),
    ("eBPF clippy", build_ebpf::check),
    ("docs", docs),
    ("deploy manifests", manifests),
    ("fuzz", fuzz::smoke),
];

/// Runs `cargo xtask ci`. A step that fails does not keep the next from running: one run shows all
/// that is wrong.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&Piece::of(Purpose::Ci))?;
    let mut failed = Vec::new();
    for (name, check) in STEPS {
        println!("\n== {name} ==");
        let start = Instant::now();
        let outcome = match check() {
            Ok(()) => "passed",
            Err(error) => {
                failed.push(format!("{name}: {error:#}"));
                "FAILED"
            }
        };
        println!("{name} {outcome} in {} s", start.elapsed().as_secs());
    }
    // The tests come last: what is read first of a long log is its end, and that is their count.
    if let Err(error) = test::run_all() {
        failed.push(format!("tests: {error:#}"));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The workspace, and the fuzz targets, which are another.
fn format() -> Result<()> {
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        shell::run(cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    shell::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn docs() -> Result<()> {
    shell::run(cargo().env("RUSTDOCFLAGS", "--deny warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]))
}

/// Renders the base and each overlay with the pinned kubectl.
fn manifests() -> Result<()> {
    let kubectl = kubernetes::find()?
        .context("no Kubernetes binaries")?
        .join("kubectl");
    for folder in ["deploy/base", "deploy/overlays/vip"] {
        shell::run(
            command(&kubectl)
                .args(["kustomize", folder])
                .stdout(Stdio::null()),
        )?;
    }
    Ok(())
}
