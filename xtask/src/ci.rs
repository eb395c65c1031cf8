//! `ci`: everything that must hold before a change lands, in the order of how fast it fails.

use std::{process::Stdio, time::Instant};

use anyhow::{Context, Result};

use crate::{
    build_ebpf,
    setup::{self, Piece, Purpose, kubernetes},
    shell::{self, cargo, command},
    test, tidy,
};

type Check = fn() -> Result<()>;

const STEPS: [(&str, Check); 8] = [
    ("setup", || setup::ensure(&Piece::of(Purpose::Ci))),
    ("format", || {
        shell::run(cargo().args(["fmt", "--all", "--check"]))
    }),
    ("tidy", tidy::run),
    ("eBPF build", build_ebpf::build),
    ("clippy", clippy),
    ("docs", docs),
    ("deploy manifests", manifests),
    ("tests", test::run_all),
];

/// Runs `cargo xtask ci`.
pub(crate) fn run() -> Result<()> {
    let mut times = Vec::new();
    for (number, (name, check)) in STEPS.iter().enumerate() {
        println!("\n== {} of {}: {name} ==", number + 1, STEPS.len());
        let start = Instant::now();
        check().with_context(|| format!("step `{name}` failed"))?;
        times.push((name, start.elapsed()));
    }
    println!();
    for (name, time) in times {
        println!("{name:<20}{:>6} s", time.as_secs());
    }
    println!("all steps passed");
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
    ]))?;
    build_ebpf::check()
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
    for folder in [
        "deploy/base",
        "deploy/overlays/sockets",
        "deploy/overlays/vip",
    ] {
        shell::run(
            command(&kubectl)
                .args(["kustomize", folder])
                .stdout(Stdio::null()),
        )?;
    }
    Ok(())
}
