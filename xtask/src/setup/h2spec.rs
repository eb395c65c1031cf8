//! h2spec, a conformance suite for HTTP/2, built from the Go module pinned in `tests/tools/h2spec`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::go;
use crate::shell::{is_executable, run};

/// The module's folder.
const MODULE: &str = "h2spec";

/// The program's package.
const PACKAGE: &str = "github.com/summerwind/h2spec/cmd/h2spec";

/// Names the program to the tests.
pub(crate) const VARIABLE: &str = "FOREBAY_H2SPEC";

/// The program, if it is here.
pub(crate) fn find() -> Result<Option<PathBuf>> {
    let program = dir()?.join("h2spec");
    Ok(Some(program).filter(|program| is_executable(program)))
}

/// Where setup puts it.
pub(crate) fn dir() -> Result<PathBuf> {
    go::tool_dir(MODULE)
}

/// Builds it beside its place and moves its folder into place whole.
pub(crate) fn build() -> Result<()> {
    let place = dir()?;
    let partial = place.with_extension("partial");
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    let program = partial.join("h2spec");
    run(&mut go::build(MODULE, PACKAGE, "-s -w", &program)?)?;
    fs::remove_dir_all(&place).ok();
    fs::rename(&partial, &place).with_context(|| format!("move h2spec to {}", place.display()))
}
