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
    workspace,
};

/// Where all of it is, in the target directory.
const FOLDER: &str = "profiled";

/// Links the C library in: for an image with nothing else.
const STATIC: &str = "-C target-feature=+crt-static";

/// Code that no training has run is rare, not unwanted: it is not made slower to be smaller.
const KEEP_SPEED: &str = "-C llvm-args=-pgso=false";

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
    let flags = if is_static { STATIC } else { "" };
    let (raw, profile) = (folder.join("counts"), folder.join("forebay.profdata"));
    println!("compiling the binary that counts; the first time this takes some minutes");
    let counting = compile(
        &folder.join("counting"),
        &format!("{flags} -C profile-generate={}", raw.display()),
    )?;
    if !is_newer(&profile, &counting) {
        train(&counting, &raw, &profile)?;
    }
    println!("compiling the binary that is optimised; the first time this takes some minutes");
    let profile = profile.display();
    let used = format!("{flags} -C profile-use={profile} {KEEP_SPEED}");
    let built = compile(&folder.join("optimised"), &used)?;
    let binary = folder.join("forebay");
    fs::copy(&built, &binary)
        .with_context(|| format!("copy {} to {}", built.display(), binary.display()))?;
    Ok(binary)
}

/// Compiles `forebay` with these flags, into a target directory of its own: other flags make other
/// libraries. With a target named, the flags stay away from build scripts.
fn compile(target: &Path, flags: &str) -> Result<PathBuf> {
    let host = host()?;
    shell::run(
        cargo()
            .env("RUSTFLAGS", flags.trim())
            .args(["build", "--locked", "--release"])
            .args(["--package", "ingress-userspace", "--bin", "forebay"])
            .args(["--target", &host, "--target-dir"])
            .arg(target),
    )?;
    Ok(target.join(host).join("release/forebay"))
}

/// Lets the binary serve under load, and makes a profile of what it has counted.
fn train(counting: &Path, raw: &Path, profile: &Path) -> Result<()> {
    if raw.exists() {
        fs::remove_dir_all(raw).with_context(|| format!("remove {}", raw.display()))?;
    }
    shell::run(cargo().args(["build", "--release", "--package", "ingress-bench"]))?;
    println!("training, half a minute");
    let bench = workspace::target().join("release/bench");
    shell::run(command(bench).env("FOREBAY_BIN", counting).arg("train"))?;
    let merge = profdata::find().context("llvm-profdata was there a moment ago")?;
    shell::run(
        command(merge)
            .args(["merge", "--output"])
            .arg(profile)
            .arg(raw),
    )
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
