//! The eBPF tool chain: a Rust compiler with the library's sources, and bpf-linker.
//!
//! Any compiler will do that has `rust-src`: a rustup nightly, the toolchain in use, or Debian's.
//! Debian's comes without a download from anywhere but its archive, so it is what setup installs.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    shell::{self, cargo, command, find, output, run},
    workspace,
};

/// The release of bpf-linker that setup builds.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// Debian's compiler; in `bookworm-security` it is 1.96.
pub(crate) const COMPILER_PACKAGES: [&str; 3] = ["cargo-web", "rustc-web", "rust-web-src"];
/// What bpf-linker is built against: LLVM must be at least as new as the compiler's.
pub(crate) const LINKER_PACKAGES: [&str; 4] =
    ["g++", "libpolly-22-dev", "libzstd-dev", "llvm-22-dev"];
/// What to tell someone whose system offers no such packages.
pub(crate) const BY_HAND: &str = "Without Debian's packages an eBPF tool chain is had by:\n    \
    rustup toolchain install nightly --component rust-src && cargo install bpf-linker";

/// The oldest compiler that takes this workspace: `rust-version` in Cargo.toml.
const OLDEST_MINOR: u32 = 95;

/// A way to run cargo for the eBPF target.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// The words before cargo's arguments.
    cargo: Vec<PathBuf>,
    /// Set where `cargo` would pick another compiler.
    rustc: PathBuf,
    /// Stable compilers allow `-Z build-std` only when told so.
    nightly: bool,
    version: String,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), with rust-src",
            self.version,
            self.rustc.display()
        )
    }
}

impl Compiler {
    /// A cargo command that compiles with this compiler.
    pub(crate) fn cargo(&self) -> Command {
        let mut words = self.cargo.iter();
        let mut cargo = command(words.next().cloned().unwrap_or_else(|| "cargo".into()));
        shell::forget_cargo(&mut cargo);
        // Set by the cargo and rustup that run us; another compiler must not load their libraries.
        cargo
            .args(words)
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("RUSTUP_TOOLCHAIN");
        if self.cargo.len() == 1 {
            cargo.env("RUSTC", &self.rustc);
        }
        if !self.nightly {
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    /// Where the compiler and the programs that belong to it are.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.rustc.parent()
    }

    /// Whether this compiler has clippy beside it.
    pub(crate) fn has_clippy(&self) -> bool {
        self.rustc.with_file_name("clippy-driver").exists()
    }

    /// Whether it is the one of Debian's packages.
    pub(crate) fn is_debian(&self) -> bool {
        self.rustc == Path::new("/usr/bin/rustc")
    }

    fn new(cargo: Vec<PathBuf>, rustc: PathBuf) -> Option<Self> {
        let clean = || {
            let mut rustc = command(&rustc);
            rustc
                .env_remove("LD_LIBRARY_PATH")
                .env_remove("RUSTUP_TOOLCHAIN");
            rustc
        };
        let version = output(clean().arg("--version"))?;
        let sysroot = PathBuf::from(output(clean().args(["--print", "sysroot"]))?);
        let sources = sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists();
        let nightly = version.contains("-nightly") || version.contains("-dev");
        (sources && is_new_enough(&version)).then_some(Self {
            cargo,
            rustc,
            nightly,
            version,
        })
    }
}

/// Every compiler here that can build the kernel object; the one to try first comes first.
pub(crate) fn compilers() -> Vec<Compiler> {
    let nightly = output(command("rustup").args(["which", "rustc", "--toolchain", "nightly"]))
        .and_then(|rustc| {
            Compiler::new(
                ["rustup", "run", "nightly", "cargo"]
                    .map(PathBuf::from)
                    .to_vec(),
                rustc.into(),
            )
        });
    let in_use = output(command("rustc").args(["--print", "sysroot"])).and_then(|sysroot| {
        let rustc = Path::new(&sysroot).join("bin/rustc");
        Compiler::new(vec![cargo().get_program().into()], rustc)
    });
    let debian = Compiler::new(vec!["/usr/bin/cargo".into()], "/usr/bin/rustc".into());
    let mut all: Vec<Compiler> = Vec::new();
    for compiler in [nightly, in_use, debian].into_iter().flatten() {
        if !all.iter().any(|known| known.rustc == compiler.rustc) {
            all.push(compiler);
        }
    }
    all
}

/// Every bpf-linker here that starts: the one in PATH, the one in the cache.
pub(crate) fn linkers() -> Result<Vec<PathBuf>> {
    let cached = linker_dir()?.join("bin/bpf-linker");
    let mut all: Vec<PathBuf> = find("bpf-linker").into_iter().chain([cached]).collect();
    all.dedup();
    // One whose LLVM library went away does not start.
    all.retain(|linker| output(command(linker).arg("--version")).is_some());
    Ok(all)
}

/// Where setup puts bpf-linker.
pub(crate) fn linker_dir() -> Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("bpf-linker-{LINKER_VERSION}")))
}

/// Builds bpf-linker against Debian's LLVM. cargo writes the binary last, so there is never a half
/// one.
pub(crate) fn install_linker() -> Result<()> {
    run(cargo()
        .env("LLVM_PREFIX", "/usr/lib/llvm-22")
        .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22")
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
        ])
        .args([
            "--no-default-features",
            "--features",
            "llvm-22",
            "--force",
            "--root",
        ])
        .arg(linker_dir()?))
}

/// Reads `rustc 1.96.0 …`.
fn is_new_enough(version: &str) -> bool {
    let minor = version
        .split(['.', ' '])
        .nth(2)
        .and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= OLDEST_MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_older_than_the_workspace_are_not_used() {
        for (version, enough) in [
            (
                "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)",
                true,
            ),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", true),
            ("rustc 1.95.0 (59807616e 2026-04-14)", true),
            ("rustc 1.85.0 (4d91de4e4 2025-02-17)", false),
            ("rustc", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }
}
