//! `forebay metrics`: what Prometheus reads, on standard output.

use std::process::ExitCode;

use anyhow::ensure;

use super::{client, output};
use crate::config::{ADMIN_SOCKET, AdminArgs};

/// Prints the metrics of the running Forebay.
///
/// # Errors
/// It does not answer.
pub(crate) fn metrics(args: &AdminArgs) -> anyhow::Result<ExitCode> {
    let (status, body) = client::get(&args.path(ADMIN_SOCKET), "/metrics")?;
    ensure!(status == 200, "it answers {status}: {}", body.trim_end());
    output::print(&body)?;
    Ok(ExitCode::SUCCESS)
}
