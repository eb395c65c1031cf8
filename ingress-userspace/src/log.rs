//! Sets up the log.

use tracing_subscriber::{EnvFilter, fmt::SubscriberBuilder};

/// What is logged unless `FOREBAY_LOG` says otherwise. The client of the API server logs each try
/// at `error`; the controller says the same once.
const DEFAULT: &str = "info,kube_client=off,kube_runtime=off";

/// Form of the log lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log; `FOREBAY_LOG` filters it (default `info` for all that is ours), in the syntax of
/// `EnvFilter`.
///
/// A second call changes nothing.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("FOREBAY_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where a log was started before, as in tests: that one stays.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
