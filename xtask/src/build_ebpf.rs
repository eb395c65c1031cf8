//! `build-ebpf`: compiles the kernel programs to `target/ebpf/forebay.bpf.o`, which userspace
//! embeds.
//!
//! The programs have a target directory of their own, since another compiler may build them. Every
//! compiler and linker found is tried in turn: a nightly newer than the linker's LLVM cannot be
//! linked, Debian's can.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    setup::{self, Piece, ebpf, ebpf::Compiler},
    shell::{path_with, run as run_shown},
    workspace,
};

/// BTF needs debug information, which the linker turns into type information that the kernel reads.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf";

/// Packet fields are not aligned; told that loads need not be, LLVM reads each at once instead of
/// byte by byte.
const MISALIGNED: &str = "-C link-arg=--cpu-features=+allows-misaligned-mem-access";

/// The feature of `ingress-ebpf` that makes it the kernel object.
const PROGRAMS: &str = "programs";

/// The feature that logs each packet.
const PACKET_LOG: &str = "packet-log";

/// The command line of `cargo xtask build-ebpf`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run clippy on the programs instead of building them
    #[arg(long)]
    check: bool,
    /// Log every packet; slow, for debugging only. The next command that needs the object rebuilds
    /// it without the log
    #[arg(long)]
    packet_log: bool,
    /// Build even if nothing changed
    #[arg(long)]
    force: bool,
}

/// Runs `cargo xtask build-ebpf`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    if options.packet_log {
        compile(PACKET_LOG)?;
        return fs::remove_file(stamp()).context("mark the object as a debug build");
    }
    if options.force {
        fs::remove_file(stamp()).ok();
    }
    build()
}

/// Builds the object unless it is newer than its sources.
pub(crate) fn build() -> Result<()> {
    if is_fresh() {
        Ok(())
    } else {
        compile(PROGRAMS)
    }
}

/// Builds the object with these features of `ingress-ebpf`.
fn compile(features: &str) -> Result<()> {
    setup::ensure(&Piece::BUILD)?;
    // Taken first: an edit during the build must make the object stale.
    let started = SystemTime::now();
    let mut failures = Vec::new();
    for compiler in ebpf::compilers() {
        for linker in ebpf::linkers()? {
            println!(
                "building the kernel object with {compiler}, {}",
                linker.display()
            );
            match run_shown(
                cargo(&compiler, &linker, "build", features)?.args(["--bin", "forebay-ebpf"]),
            ) {
                Ok(()) => return keep(&built(), started),
                Err(error) => failures.push(error),
            }
        }
    }
    match failures.pop() {
        Some(error) => {
            Err(error.context("no eBPF toolchain on this machine can build the kernel object"))
        }
        None => bail!("no eBPF toolchain found. {}", ebpf::BY_HAND),
    }
}

/// Runs clippy on the programs, with a compiler that has it.
pub(crate) fn check() -> Result<()> {
    setup::ensure(&[Piece::EbpfCompiler, Piece::BpfLinker, Piece::EbpfClippy])?;
    let Some(compiler) = ebpf::compilers().into_iter().find(Compiler::has_clippy) else {
        println!("skipped: no compiler with rust-src has clippy");
        return Ok(());
    };
    let linker = ebpf::linkers()?
        .into_iter()
        .next()
        .context("no bpf-linker")?;
    run_shown(cargo(&compiler, &linker, "clippy", PROGRAMS)?.args([
        "--bin",
        "forebay-ebpf",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn cargo(compiler: &Compiler, linker: &Path, subcommand: &str, features: &str) -> Result<Command> {
    let mut cargo = compiler.cargo();
    // The log builds its lines on the stack, where the verifier takes no misaligned store.
    let flags = if features == PACKET_LOG {
        FLAGS.to_owned()
    } else {
        format!("{FLAGS} {MISALIGNED}")
    };
    // The linker is found in PATH, and so is cargo-clippy: the compiler's own before another's.
    let path =
        path_with(&[linker.parent(), compiler.dir()].map(|dir| dir.unwrap_or(Path::new("/"))))?;
    cargo
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("PATH", path)
        .arg(subcommand)
        .args([
            "--locked",
            "--profile",
            "ebpf",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
        ])
        .args([
            "--package",
            "ingress-ebpf",
            "--features",
            features,
            "--target-dir",
        ])
        .arg(workspace::target().join("ebpf-build"));
    Ok(cargo)
}

fn built() -> PathBuf {
    workspace::target().join("ebpf-build/bpfel-unknown-none/ebpf/forebay-ebpf")
}

/// Where userspace's build script looks for the object.
fn object() -> PathBuf {
    workspace::target().join("ebpf/forebay.bpf.o")
}

fn stamp() -> PathBuf {
    workspace::target().join("ebpf/built-at")
}

/// Puts the object in its place. An equal one is left alone, so that userspace is not compiled
/// again.
fn keep(built: &Path, started: SystemTime) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("read {}", built.display()))?;
    let object = object();
    if fs::read(&object).ok().as_ref() != Some(&bytes) {
        fs::create_dir_all(object.parent().unwrap_or(Path::new("/")))?;
        let partial = object.with_extension("partial");
        fs::write(&partial, &bytes)?;
        fs::rename(&partial, &object)?;
    }
    fs::File::create(stamp())?.set_modified(started)?;
    println!("built {} ({} bytes)", object.display(), bytes.len());
    Ok(())
}

fn is_fresh() -> bool {
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let Some(built) = modified(&stamp()).filter(|_| object().exists()) else {
        return false;
    };
    let root = workspace::root();
    let sources = ["ingress-ebpf", "Cargo.toml", "Cargo.lock"].map(|name| root.join(name));
    sources
        .iter()
        .all(|source| newest(source).is_some_and(|newest| newest <= built))
}

/// When anything under a path last changed.
fn newest(path: &Path) -> Option<SystemTime> {
    if !path.is_dir() {
        return path.metadata().ok()?.modified().ok();
    }
    let own = path.metadata().ok()?.modified().ok()?;
    fs::read_dir(path)
        .ok()?
        .flatten()
        .filter_map(|entry| newest(&entry.path()))
        .chain([own])
        .max()
}
