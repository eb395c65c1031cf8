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
    let (filter, refused) = filter(&std::env::var("FOREBAY_LOG").unwrap_or_default());
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
    if let Some(error) = refused {
        tracing::warn!(
            error,
            "FOREBAY_LOG is not a valid filter; using the default"
        );
    }
}

/// What `text` asks for, or the default and why not. Nothing asks for the default, too.
fn filter(text: &str) -> (EnvFilter, Option<String>) {
    if text.is_empty() {
        return (EnvFilter::new(DEFAULT), None);
    }
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named_and_the_default_stays() {
        let default = EnvFilter::new(DEFAULT).to_string();
        for (text, filters, refused) in [
            ("", &*default, false),
            ("debug", "debug", false),
            ("a=b=c", &default, true),
            ("info,x=loud", &default, true),
        ] {
            let (filter, error) = filter(text);
            assert_eq!(filter.to_string(), filters, "{text}");
            assert_eq!(error.is_some(), refused, "{text}: {error:?}");
        }
    }
}
