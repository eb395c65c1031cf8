//! Reads what wrk or h2load printed.

use anyhow::{Result, ensure};

use crate::program::Outcome;

/// Lines that say nothing here are passed over; what was not said is none.
///
/// # Errors
/// h2load spoke HTTP/1.1: it takes what a server offers.
pub(super) fn read(text: &str) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            outcome.requests = count.trim().parse().unwrap_or(0);
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            // wrk has counted them among the requests, too.
            let other = count.trim().parse().unwrap_or(0);
            outcome.requests = outcome.requests.saturating_sub(other);
            outcome.failed += other;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            outcome.failed += errors
                .split(',')
                .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok())
                .sum::<u64>();
        } else if let Some(counts) = line.strip_prefix("status codes:") {
            outcome.requests = leading_number(counts).unwrap_or(0);
            outcome.failed += counts
                .split(',')
                .nth(1)
                .and_then(leading_number)
                .unwrap_or(0);
        } else if let Some(counts) = line.strip_prefix("requests:") {
            // Streams that broke off, which have no status, and those with 4xx and 5xx.
            let failed = counts.split(',').find(|count| count.ends_with(" failed"));
            outcome.failed += failed.and_then(leading_number).unwrap_or(0);
        } else if let Some(protocol) = line.strip_prefix("Application protocol:") {
            ensure!(protocol.trim() == "h2", "h2load spoke{protocol}");
        } else if let Some(latency) = line.strip_prefix("50%") {
            outcome.p50_us = microseconds(latency);
        } else if let Some(latency) = line.strip_prefix("99%") {
            outcome.p99_us = microseconds(latency);
        }
    }
    Ok(outcome)
}

fn leading_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn microseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let text = "  Latency Distribution\n     50%    1.50ms\n     99%  870.00us\n  120 requests in 1.00s, 20KB read\n  \
                    Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\n";
        let expected = Outcome {
            requests: 113,
            failed: 17,
            p50_us: Some(1500.0),
            p99_us: Some(870.0),
        };
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn answers_that_all_say_not_found_are_no_requests() {
        let text = "  35790 requests in 1.10s, 6.01MB read\n  Non-2xx or 3xx responses: 35790\n";
        let outcome = read(text).unwrap();
        assert_eq!((outcome.requests, outcome.failed), (0, 35_790));
    }

    #[test]
    fn streams_that_break_off_have_failed() {
        let text = "Application protocol: h2\n\
                    requests: 26557 total, 26621 started, 26557 done, 23900 succeeded, 2657 failed, 2655 errored, 0 timeout\n\
                    status codes: 23898 2xx, 2 3xx, 2 4xx, 0 5xx\n";
        let expected = Outcome {
            requests: 23_898,
            failed: 2_659,
            ..Outcome::default()
        };
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn a_load_of_http2_by_http1_is_an_error() {
        let text = "Application protocol: http/1.1\nstatus codes: 4711 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let error = read(text).unwrap_err();
        assert_eq!(error.to_string(), "h2load spoke http/1.1");
    }

    #[test]
    fn latencies_have_a_unit() {
        for (text, expected) in [
            ("  1.50ms", Some(1500.0)),
            ("870.00us", Some(870.0)),
            ("2.00s", Some(2e6)),
            ("2.00m", None),
            ("2.00", None),
        ] {
            assert_eq!(microseconds(text), expected, "{text:?}");
        }
    }
}
