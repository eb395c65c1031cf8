//! `forebay detach`: removes what served virtual IPs from the kernel, whether or not a Forebay runs.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use ingress_agent::kernel::{self, Removed};

use super::output;
use crate::config::PinArgs;

/// Takes programs, maps and local routes back.
///
/// # Errors
/// The process may not.
pub(crate) fn detach(args: &PinArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let removed = runtime
        .block_on(kernel::detach(&args.pin_dir))
        .context("cannot remove what served virtual IPs")?;
    output::print(&summary(&removed))?;
    Ok(ExitCode::SUCCESS)
}

fn summary(removed: &Removed) -> String {
    if removed.is_empty() {
        return "nothing is attached\n".to_owned();
    }
    let mut summary = String::new();
    let lines = removed
        .programs
        .iter()
        .map(|program| format!("detached {program}"));
    let routes = removed
        .vips
        .iter()
        .map(|vip| format!("removed the local route to {vip}"));
    for line in lines.chain(routes) {
        // Writing to a String cannot fail.
        let _ = writeln!(summary, "{line}");
    }
    if removed.maps > 0 {
        let _ = writeln!(summary, "removed {} maps", removed.maps);
    }
    summary
}
