//! cargo-fuzz, which builds and runs the fuzz targets: the one in PATH, or one in the cache.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    shell::{self, cargo, is_executable, run},
    workspace,
};

/// The release that setup builds.
pub(crate) const VERSION: &str = "0.13.2";

/// The program, if it is here.
pub(crate) fn find() -> Result<Option<PathBuf>> {
    let cached = dir()?.join("bin/cargo-fuzz");
    let cached = Some(cached).filter(|program| is_executable(program));
    Ok(shell::find("cargo-fuzz").or(cached))
}

/// Where setup puts it.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("cargo-fuzz-{VERSION}")))
}

/// Builds it. cargo writes the binary last, so there is never a half one.
pub(crate) fn install() -> Result<()> {
    run(cargo()
        .env_remove("CARGO_TARGET_DIR")
        .args(["install", "cargo-fuzz", "--version", VERSION])
        .args(["--locked", "--root"])
        .arg(dir()?))
}
