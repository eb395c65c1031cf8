//! `build-release`: the binary as the image ships it, optimised by a profile.
//!
//! It is compiled twice. The first one counts which of its code runs while `bench train` puts every
//! kind of load on it; the second is laid out by those counts. It runs a fifth fewer instructions
//! for a small request (callgrind, 11,673 before and 9,377 after). A binary that is too large for the
//! image is an error.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
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

/// Most bytes that the image may hold. A new node pulls it before its first pod serves, and each
/// rollout pulls it on all of them; the binary has about 20 MB without its line tables and 80 with
/// them, so that this leaves room for code and none for those.
const IMAGE_LIMIT: u64 = 30_000_000;

/// What the image holds beside the binary, at most: root certificates (220 kB) and licences.
const BESIDE: u64 = 500_000;

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
    let stripped = stripped_size(&binary)?;
    println!(
        "without symbols and line tables it has {}",
        megabytes(stripped)
    );
    fits_image(stripped)
}

/// How many bytes of the binary `deploy/Dockerfile` takes into the image.
fn stripped_size(binary: &Path) -> Result<u64> {
    let stripped = workspace::target().join("stripped.partial");
    shell::run(
        command("objcopy")
            .arg("--strip-all")
            .args([binary, &stripped]),
    )?;
    let size = stripped.metadata().map(|file| file.len());
    // Only its size was wanted.
    fs::remove_file(&stripped).with_context(|| format!("remove {}", stripped.display()))?;
    size.with_context(|| format!("read the size of {}", stripped.display()))
}

/// Fails if an image with a binary of that size would be too large.
fn fits_image(stripped: u64) -> Result<()> {
    ensure!(
        stripped + BESIDE <= IMAGE_LIMIT,
        "the image would hold {}, and may hold {}: see what the binary has gained",
        megabytes(stripped + BESIDE),
        megabytes(IMAGE_LIMIT)
    );
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_more_than_thirty_megabytes_is_refused() {
        fits_image(19_800_000).unwrap();
        fits_image(IMAGE_LIMIT - BESIDE).unwrap();
        let error = fits_image(IMAGE_LIMIT - BESIDE + 1).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("would hold 30.1 MB, and may hold 30.0 MB"),
            "{error}"
        );
    }

    #[test]
    fn line_tables_do_not_count() {
        // A binary that is there, with line tables: this one.
        let own = std::env::current_exe().unwrap();
        let stripped = stripped_size(&own).unwrap();
        assert!(stripped > 100_000, "{stripped}");
        assert!(stripped < own.metadata().unwrap().len(), "{stripped}");
    }

    #[test]
    fn the_image_holds_nothing_that_is_not_counted() {
        let dockerfile = fs::read_to_string(workspace::root().join("deploy/Dockerfile")).unwrap();
        let (_, last_stage) = dockerfile.rsplit_once("\nFROM ").unwrap();
        let copied = last_stage
            .lines()
            .filter_map(|line| line.strip_prefix("COPY "));
        let sources: Vec<_> = copied
            .flat_map(|copy| copy.rsplit_once(' ').unwrap().0.split(' '))
            .filter(|word| !word.starts_with("--"))
            .collect();
        let counted = [
            "/forebay",
            "/etc/ssl/certs/ca-certificates.crt",
            // An empty folder.
            "/runtime",
            "LICENSE-MIT",
            "LICENSE-APACHE",
        ];
        assert_eq!(sources, counted);
        let licences = ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| workspace::root().join(name));
        let licences = licences.map(|path| path.metadata().unwrap().len());
        assert!(licences.iter().sum::<u64>() + 220_000 < BESIDE);
    }
}
