//! Debian packages: without questions, without recommendations, without starting a service.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{command, output, run};

/// The commands for someone who may install packages.
pub(crate) fn by_hand(names: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        names.join(" ")
    )
}

/// Installs packages; refreshes the lists first, since a new machine has none and an old one has
/// stale ones.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    let services: Vec<&str> = ["nginx", "haproxy"]
        .into_iter()
        .filter(|name| names.contains(name))
        .collect();
    run(command("apt-get").args(["-qq", "update"]))?;
    run(command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A run level in which no service starts.
        .env("RUNLEVEL", "1")
        .args([
            "-qq",
            "-o",
            "Dpkg::Use-Pty=0",
            "install",
            "--yes",
            "--no-install-recommends",
        ])
        .args(names))
    .with_context(|| format!("install packages. {}", super::ebpf::BY_HAND))?;
    // systemd does not heed RUNLEVEL; what we brought only for benchmarks must not hold port 80.
    if Path::new("/run/systemd/system").exists() {
        for service in services {
            output(command("systemctl").args(["disable", "--now", service]));
        }
    }
    Ok(())
}
