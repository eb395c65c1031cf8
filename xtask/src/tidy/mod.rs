//! `tidy`: the rules of CONTRIBUTING.md that no compiler checks; `rules` holds them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

mod rules;

/// What is checked: the workspace's packages and the fuzz targets.
const FOLDERS: [&str; 4] = ["ingress-ebpf", "ingress-userspace", "tests", "xtask"];

/// Runs `cargo xtask tidy`.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    let mut faults = Vec::new();
    for file in &files {
        let path = file
            .strip_prefix(&root)
            .unwrap_or(file)
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(file).with_context(|| format!("read {path}"))?;
        faults.extend(
            check(&path, &text)
                .into_iter()
                .map(|fault| format!("{path}:{fault}")),
        );
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} problems in {} files", faults.len(), files.len());
    }
    println!("tidy: {} files, no problems", files.len());
    Ok(())
}

/// The faults of one file, each `LINE: what is wrong`.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if path.ends_with(".rs") {
        faults.extend(rules::opening(text));
        faults.extend(rules::name(path));
        faults.extend(rules::todos(text));
    } else if path.ends_with("Cargo.toml") && !path.starts_with("tests/fuzz/") {
        faults.extend(rules::versions(text));
    }
    faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.line, fault.what))
        .collect()
}

/// Every Rust file and manifest under a folder, in order; build products left out.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            || path.ends_with("Cargo.toml")
        {
            files.push(path);
        }
    }
    Ok(())
}
