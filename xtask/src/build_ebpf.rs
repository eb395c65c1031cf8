//! `build-ebpf`: compiles the kernel programs to `target/ebpf/forebay.bpf.o`, which userspace
//! embeds, and for benchmarks and tests to folders beside it, which it does not.
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
/// The third version of the instruction set has 32-bit operations and all comparisons; every kernel
/// from 5.15 on has it.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C target-cpu=v3";

/// Packet fields are not aligned; told that loads need not be, LLVM reads each at once instead of
/// byte by byte.
const MISALIGNED: &str = "-C link-arg=--cpu-features=+allows-misaligned-mem-access";

/// The feature of `ingress-ebpf` that makes it the kernel object.
const PROGRAMS: &str = "programs";

/// The feature that logs each packet.
const PACKET_LOG: &str = "packet-log";

/// The feature that puts each frame back as it was.
const UNDO: &str = "undo";

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
    let features = if options.packet_log {
        PACKET_LOG
    } else {
        PROGRAMS
    };
    if options.force {
        fs::remove_file(stamp(features)).ok();
    }
    if options.packet_log {
        build_packet_log()?;
        // The embedded one is stale from now on.
        fs::remove_file(stamp(PROGRAMS)).ok();
        fs::create_dir_all(folder(PROGRAMS))?;
        fs::copy(object(PACKET_LOG), object(PROGRAMS)).context("embed the debug build")?;
        return Ok(());
    }
    build()
}

/// Builds the object unless it is newer than its sources.
pub(crate) fn build() -> Result<()> {
    build_unless_fresh(PROGRAMS)
}

/// Builds, unless it is newer than its sources, the object that benchmarks load: it puts each frame
/// back as it was.
pub(crate) fn build_undo() -> Result<()> {
    build_unless_fresh(UNDO)
}

/// Builds, unless it is newer than its sources, the object that logs each packet.
pub(crate) fn build_packet_log() -> Result<()> {
    build_unless_fresh(PACKET_LOG)
}

fn build_unless_fresh(features: &str) -> Result<()> {
    if is_fresh(features) {
        Ok(())
    } else {
        compile(features)
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
                Ok(()) => return keep(features, started),
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
    // The linker is found in PATH, and so is cargo-clippy: the compiler's own before another's.
    let path =
        path_with(&[linker.parent(), compiler.dir()].map(|dir| dir.unwrap_or(Path::new("/"))))?;
    cargo
        .env("RUSTFLAGS", flags(features))
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

/// What the compiler is told beside the features.
fn flags(features: &str) -> String {
    // The log builds its lines on the stack, where the verifier takes no misaligned store.
    if features == PACKET_LOG {
        FLAGS.to_owned()
    } else {
        format!("{FLAGS} {MISALIGNED}")
    }
}

fn built() -> PathBuf {
    workspace::target().join("ebpf-build/bpfel-unknown-none/ebpf/forebay-ebpf")
}

/// The folder of the object with these features. Userspace's build script looks into `ebpf` and
/// watches all of it, so the objects that it does not embed have others.
fn folder(features: &str) -> PathBuf {
    workspace::target().join(match features {
        UNDO => "ebpf-undo",
        PACKET_LOG => "ebpf-log",
        _ => "ebpf",
    })
}

fn object(features: &str) -> PathBuf {
    folder(features).join("forebay.bpf.o")
}

/// Was written when the last build began, and holds that build's flags.
fn stamp(features: &str) -> PathBuf {
    folder(features).join("built-at")
}

/// Puts the object in its place. An equal one is left alone, so that userspace is not compiled
/// again.
fn keep(features: &str, started: SystemTime) -> Result<()> {
    let built = built();
    let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let object = object(features);
    if fs::read(&object).ok().as_ref() != Some(&bytes) {
        fs::create_dir_all(folder(features))?;
        let partial = object.with_extension("partial");
        fs::write(&partial, &bytes)?;
        fs::rename(&partial, &object)?;
    }
    let stamp = stamp(features);
    fs::write(&stamp, flags(features))?;
    fs::File::options()
        .write(true)
        .open(&stamp)?
        .set_modified(started)?;
    println!("built {} ({} bytes)", object.display(), bytes.len());
    Ok(())
}

/// Whether the object is of these sources and these flags.
fn is_fresh(features: &str) -> bool {
    let stamp = stamp(features);
    // Flags are compared and not only dated: xtask's own source is none of the object's.
    if fs::read_to_string(&stamp).ok() != Some(flags(features)) {
        return false;
    }
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let Some(built) = modified(&stamp).filter(|_| object(features).exists()) else {
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
