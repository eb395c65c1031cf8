//! Where things are: the repository, its target directory, and the cache outside the tree.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cache for what is built once a machine: `$FOREBAY_CACHE`, `$XDG_CACHE_HOME/forebay` or
/// `~/.cache/forebay`.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("FOREBAY_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("forebay")))
        .or_else(|| Some(set("HOME")?.join(".cache/forebay")))
        .context("no cache folder: set FOREBAY_CACHE or HOME")
}
