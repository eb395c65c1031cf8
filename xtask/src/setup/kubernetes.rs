//! The Kubernetes binaries of the tests, built from the Go modules pinned in
//! `tests/tools/kubernetes`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::go;
use crate::shell::{is_executable, shown};

/// One binary and the package it is built from.
pub(crate) struct Binary {
    /// Its file name.
    pub(crate) name: &'static str,
    package: &'static str,
}

/// What the tests start.
pub(crate) const BINARIES: [Binary; 4] = [
    Binary {
        name: "kube-apiserver",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
    },
    Binary {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    Binary {
        name: "kubectl",
        package: "k8s.io/kubernetes/cmd/kubectl",
    },
    // The main package at a module's root: without a name of ours it would be called `server`.
    Binary {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
    },
];

/// A clean build without symbols, with the version that clients ask for.
const LINKER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3";

/// The module's folder.
const MODULE: &str = "kubernetes";

/// Names the folder of the binaries: of a person's own to us, and of those we found to the tests.
pub(crate) const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// The folder that has all of them: `$KUBEBUILDER_ASSETS`, else the cache. Nothing else looks.
pub(crate) fn find() -> Result<Option<PathBuf>> {
    let given = env::var_os(VARIABLE).map(PathBuf::from);
    Ok(given.into_iter().chain([dir()?]).find(|dir| has_all(dir)))
}

fn has_all(dir: &Path) -> bool {
    BINARIES
        .iter()
        .all(|binary| is_executable(&dir.join(binary.name)))
}

/// Their folder in the cache.
pub(crate) fn dir() -> Result<PathBuf> {
    go::tool_dir(MODULE)
}

/// Builds each binary beside its place and moves the folder into place whole.
pub(crate) fn build() -> Result<()> {
    let place = dir()?;
    if has_all(&place) {
        return Ok(());
    }
    let partial = place.with_extension("partial");
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    let start = Instant::now();
    for (done, binary) in BINARIES.iter().enumerate() {
        let label = format!("{} ({} of {})", binary.name, done + 1, BINARIES.len());
        let place = partial.join(binary.name);
        let mut build = go::build(MODULE, binary.package, LINKER_FLAGS, &place)?;
        build_one(&mut build, &label, start)?;
    }
    fs::remove_dir_all(&place).ok();
    fs::rename(&partial, &place)
        .with_context(|| format!("move the binaries to {}", place.display()))
}

/// Waits for one build and shows that it is alive.
fn build_one(build: &mut Command, label: &str, start: Instant) -> Result<()> {
    println!("  building {label}");
    let mut child = build
        .spawn()
        .with_context(|| format!("start `{}`", shown(build)))?;
    let mut reported = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("`{}` ended with {status}", shown(build));
            }
            return Ok(());
        }
        if reported.elapsed() >= Duration::from_secs(20) {
            reported = Instant::now();
            let elapsed = start.elapsed().as_secs();
            println!(
                "  building {label}: {}:{:02} so far",
                elapsed / 60,
                elapsed % 60
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
}
