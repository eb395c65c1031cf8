//! `build-release`: the binary as the image ships it, optimised by a profile.
//!
//! It is compiled twice. The first one counts which of its code runs while `bench train` puts every
//! kind of load on it; the second is laid out by those counts. It runs a fifth fewer instructions
//! for a small request (callgrind, 11,673 before and 9,377 after).

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    build_ebpf,
    setup::{self, Piece, profdata},
    shell::{self, cargo, command},
    test::WORKSPACE,
    workspace,
};

/// Where all of it is, in the target directory.
const FOLDER: &str = "profiled";

/// Links the C library in: for an image with nothing else.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Code that no training has run is rare, not unwanted: it is not made slower to be smaller.
const KEEP_SPEED: &str = "-Cllvm-args=-pgso=false";

/// Between flags in `CARGO_ENCODED_RUSTFLAGS`, so that a path may have spaces.
const SEPARATOR: &str = "\x1f";

/// The command line of `cargo xtask build-release`.
#[derive(Args)]
pub(crate) struct Options {
    /// Link the C library into the binary, as the image has it
    #[arg(long)]
    r#static: bool,
}

/// Runs `cargo xtask build-release`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = build(options.r#static)?;
    println!("built {}", binary.display());
    Ok(())
}

/// Builds `target/profiled/forebay` and gives its path. Compiles nothing where nothing has changed.
pub(crate) fn build(is_static: bool) -> Result<PathBuf> {
    setup::ensure(&Piece::RELEASE)?;
    build_ebpf::build()?;
    let folder = workspace::target().join(FOLDER);
    let linked = is_static.then(|| STATIC.to_owned());
    let (raw, profile) = (folder.join("counts"), folder.join("forebay.profdata"));
    println!("compiling the binary that counts; the first time this takes some minutes");
    let counts = format!("-Cprofile-generate={}", raw.display());
    let flags: Vec<String> = linked.iter().cloned().chain([counts]).collect();
    let counting = compile(&folder.join("counting"), &flags)?;
    if !is_newer(&profile, &counting) {
        train(&counting, &raw, &profile)?;
    }
    println!("compiling the binary that is optimised; the first time this takes some minutes");
    let used = [
        format!("-Cprofile-use={}", profile.display()),
        KEEP_SPEED.to_owned(),
    ];
    let flags: Vec<String> = linked.into_iter().chain(used).collect();
    let built = compile(&folder.join("optimised"), &flags)?;
    let binary = folder.join("forebay");
    // Beside it first: the one before may be running, and half a binary must not have its name.
    let partial = folder.join("forebay.partial");
    fs::copy(&built, &partial)
        .with_context(|| format!("copy {} to {}", built.display(), partial.display()))?;
    put(&partial, &binary)?;
    Ok(binary)
}

/// Compiles `forebay` with these flags, into a target directory of its own: other flags make other
/// libraries. With a target named, the flags stay away from build scripts.
fn compile(target: &Path, flags: &[String]) -> Result<PathBuf> {
    let host = host()?;
    shell::run(
        // Of all variables with flags cargo reads this one first, and then no other.
        cargo()
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
            .args(["build", "--locked", "--release"])
            .args(["--package", "ingress-userspace", "--bin", "forebay"])
            .args(["--target", &host, "--target-dir"])
            .arg(target),
    )?;
    Ok(target.join(host).join("release/forebay"))
}

/// Lets the binary serve under load, and makes a profile of what it has counted. There is a profile
/// when all of that went well, and not before: it is taken for newer than the binary from then on.
fn train(counting: &Path, raw: &Path, profile: &Path) -> Result<()> {
    if raw.exists() {
        fs::remove_dir_all(raw).with_context(|| format!("remove {}", raw.display()))?;
    }
    println!("building what puts load on it; the first time this takes some minutes");
    // As `bench` builds it, so that neither undoes the other's work.
    shell::run(
        cargo()
            .args(["build", "--locked", "--release"])
            .args(WORKSPACE)
            .args(["--bin", "bench"]),
    )?;
    println!("training, half a minute");
    let bench = workspace::target().join("release/bench");
    shell::run(
        command(bench)
            .env("FOREBAY_BIN", counting)
            // Set for somebody else's counts, it would take ours there.
            .env_remove("LLVM_PROFILE_FILE")
            .arg("train"),
    )?;
    let merge = profdata::find().context("llvm-profdata was there a moment ago")?;
    let partial = profile.with_extension("partial");
    shell::run(
        command(merge)
            .args(["merge", "--output"])
            .arg(&partial)
            .arg(raw),
    )
    .context(profdata::BY_HAND)?;
    put(&partial, profile)
}

/// Gives a file its name once it is whole.
fn put(partial: &Path, whole: &Path) -> Result<()> {
    fs::rename(partial, whole)
        .with_context(|| format!("move {} to {}", partial.display(), whole.display()))
}

fn host() -> Result<String> {
    let said = shell::output(command("rustc").arg("-vV")).context("run `rustc -vV`")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    time(file) > time(than)
}
