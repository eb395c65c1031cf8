//! Flags: how the workers serve and end.

use std::time::Duration;

use clap::Args;

/// Most workers of a process.
pub(crate) const MOST_WORKERS: u16 = 256;

/// The workers, and what they add to responses.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Number of worker threads [default: one per core]
    #[arg(long, value_name = "N", env = "FOREBAY_WORKERS", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_WORKERS)), help_heading = "Process")]
    pub(crate) workers: Option<u16>,

    /// How long requests in flight may take after SIGTERM, as in 30, 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", env = "FOREBAY_SHUTDOWN_GRACE", default_value = "240s", value_parser = duration, help_heading = "Process")]
    pub(crate) shutdown_grace: Duration,

    /// How long to go on as before after SIGTERM, but not ready, so that a load balancer in front
    /// sends its connections elsewhere
    #[arg(
        long,
        value_name = "TIME",
        env = "FOREBAY_SHUTDOWN_DELAY",
        default_value = "0s",
        value_parser = duration,
        help_heading = "Process"
    )]
    pub(crate) shutdown_delay: Duration,

    /// How long idle connections stay open after SIGTERM, so that clients close them first; shorter
    /// if all connections close, and at most the shutdown grace
    #[arg(
        long,
        value_name = "TIME",
        env = "FOREBAY_LAME_DUCK",
        default_value = "10s",
        value_parser = duration,
        help_heading = "Process"
    )]
    pub(crate) lame_duck: Duration,

    /// Send `Strict-Transport-Security` in every TLS response, for a year and with subdomains
    #[arg(
        long,
        value_name = "BOOL",
        env = "FOREBAY_HSTS",
        default_value_t = true,
        action = clap::ArgAction::Set,
        help_heading = "Process"
    )]
    pub(crate) hsts: bool,

    /// Add the header `x-forebay` to responses: node, worker, Ingress, backend and endpoint.
    /// Exposes cluster internals to clients
    #[arg(long, env = "FOREBAY_TRACE_RESPONSES", help_heading = "Process")]
    pub(crate) trace_responses: bool,
}

/// `30`, `30s`, `500ms` or `2m`; at most a day.
fn duration(value: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match value {
        _ if value.ends_with("ms") => (&value[..value.len() - 2], 1),
        _ if value.ends_with('s') => (&value[..value.len() - 1], 1_000),
        _ if value.ends_with('m') => (&value[..value.len() - 1], 60_000),
        _ => (value, 1_000),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number with the unit ms, s or m (default: s)".to_owned())?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("longer than a day".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (value, ms) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("250ms", 250),
            ("2m", 120_000),
        ] {
            assert_eq!(duration(value), Ok(Duration::from_millis(ms)), "{value}");
        }
        for value in ["", "s", "-1", "1.5s", "99999999999999999999", "1441m"] {
            assert!(duration(value).is_err(), "{value}");
        }
    }
}
