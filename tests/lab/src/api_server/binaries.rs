//! Where the Kubernetes binaries are.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::workspace;

/// The folder with the binaries: `$KUBEBUILDER_ASSETS`, else the cache that `cargo xtask setup`
/// fills.
pub(super) fn find() -> Result<Option<PathBuf>> {
    let sums = workspace().join("tests/tools/kubernetes/go.sum");
    let output = Command::new("sha256sum")
        .arg(&sums)
        .output()
        .context("run sha256sum")?;
    let hash = String::from_utf8_lossy(&output.stdout);
    let key = hash
        .get(..16)
        .with_context(|| format!("no hash of {}", sums.display()))?;
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/forebay"));
    let xdg =
        || std::env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("forebay"));
    let cache = std::env::var_os("FOREBAY_CACHE")
        .map(PathBuf::from)
        .or_else(xdg)
        .or_else(home);
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let folders = given
        .into_iter()
        .chain(cache.map(|cache| cache.join(format!("kubernetes-{key}"))));
    let whole = |folder: &PathBuf| {
        ["etcd", "kube-apiserver", "kubectl"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    Ok({ folders }.find(whole))
}
