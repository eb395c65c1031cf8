//! llvm-profdata, which makes of what a binary has counted a profile that a compiler reads.
//!
//! It has to be as new as the compiler's LLVM: Debian's of the version that bpf-linker is built
//! against, or the one of the rustup toolchain in use.

use std::path::{Path, PathBuf};

use crate::shell::{self, command, output};

/// The Debian package that has it, and where it puts it.
pub(crate) const PACKAGE: &str = "llvm-22";
const DEBIAN: &str = "/usr/lib/llvm-22/bin/llvm-profdata";

/// What to tell someone without that package, or with a compiler that is newer.
pub(crate) const BY_HAND: &str = "llvm-profdata must be as new as the compiler's LLVM (`rustc -vV`); \
    with rustup, this brings it: rustup component add llvm-tools";

/// Looks for it.
pub(crate) fn find() -> Option<PathBuf> {
    let own = output(command("rustc").args(["--print", "target-libdir"]))
        .and_then(|lib| Some(Path::new(&lib).parent()?.join("bin/llvm-profdata")));
    own.into_iter()
        .chain([PathBuf::from(DEBIAN)])
        .find(|path| shell::is_executable(path))
}
