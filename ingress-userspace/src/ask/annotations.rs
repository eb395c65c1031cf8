//! `forebay annotations`: the reference page, on standard output. No running Forebay is asked.

use std::process::ExitCode;

use super::output;

/// Prints what becomes of each annotation, as Markdown.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn annotations() -> anyhow::Result<ExitCode> {
    output::print(&ingress_agent::annotations_page())?;
    Ok(ExitCode::SUCCESS)
}
