//! Embeds the kernel object: from `$FOREBAY_EBPF_OBJECT`, else from `target/ebpf/forebay.bpf.o`.
//!
//! Without one the binary still builds, but cannot steer; it reports that when asked to.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FOREBAY_EBPF_OBJECT");
    let (Some(out), Some(package)) = (env::var_os("OUT_DIR"), env::var_os("CARGO_MANIFEST_DIR"))
    else {
        println!("cargo::error=cargo runs this script, with OUT_DIR and CARGO_MANIFEST_DIR set");
        return ExitCode::FAILURE;
    };
    let workspace = PathBuf::from(package).join("../..");
    let named = env::var_os("FOREBAY_EBPF_OBJECT").map(PathBuf::from);
    let object = named
        .clone()
        .unwrap_or_else(|| target(&workspace).join("ebpf/forebay.bpf.o"));
    watch(&object, named.is_some());

    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
            println!(
                "cargo::warning=no kernel object is embedded: `cargo xtask build-ebpf` makes it"
            );
            Vec::new()
        }
        Err(error) => {
            println!("cargo::error=read {}: {error}", object.display());
            return ExitCode::FAILURE;
        }
    };
    if named.is_none() && !bytes.is_empty() {
        warn_if_stale(&object, &workspace.join("ingress-ebpf"));
    }
    if let Err(error) = fs::write(Path::new(&out).join("forebay.bpf.o"), bytes) {
        println!("cargo::error=write the kernel object to OUT_DIR: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The target directory: the one cargo was told, else the workspace's.
fn target(workspace: &Path) -> PathBuf {
    workspace.join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// Runs this script again when the object changes or appears.
///
/// A file that is missing would count as changed in every build, so its folder is made and watched.
fn watch(object: &Path, named: bool) {
    match object.parent() {
        Some(folder) if !named && fs::create_dir_all(folder).is_ok() => {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
        _ => println!("cargo::rerun-if-changed={}", object.display()),
    }
}

/// Tells when the object is older than what it is built from.
///
/// `built-at`, beside the object, holds the time of a build that changed nothing.
fn warn_if_stale(object: &Path, sources: &Path) {
    for folder in ["src", "programs"] {
        println!("cargo::rerun-if-changed={}", sources.join(folder).display());
    }
    let built = modified(object).max(modified(&object.with_file_name("built-at")));
    if newest(&sources.join("src")).max(newest(&sources.join("programs"))) > built {
        println!(
            "cargo::warning=the kernel object is older than ingress-ebpf: `cargo xtask build-ebpf` makes it anew"
        );
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
}

/// When anything under a folder last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    entries
        .map(|path| {
            if path.is_dir() {
                newest(&path)
            } else {
                modified(&path)
            }
        })
        .max()
        .flatten()
}
