//! Reads what wrk or h2load printed.

use crate::program::Outcome;

/// Lines that say nothing here are passed over; what was not said is none.
pub(super) fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            outcome.requests = count.trim().parse().unwrap_or(0);
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            outcome.failed += count.trim().parse().unwrap_or(0);
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            outcome.failed += errors
                .split(',')
                .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok())
                .sum::<u64>();
        } else if let Some(counts) = line.strip_prefix("status codes:") {
            outcome.requests = leading_number(counts).unwrap_or(0);
            outcome.failed += counts
                .split(',')
                .skip(1)
                .filter_map(leading_number)
                .sum::<u64>();
        } else if let Some(latency) = line.strip_prefix("50%") {
            outcome.p50_us = microseconds(latency);
        } else if let Some(latency) = line.strip_prefix("99%") {
            outcome.p99_us = microseconds(latency);
        }
    }
    outcome
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
            requests: 120,
            failed: 17,
            p50_us: Some(1500.0),
            p99_us: Some(870.0),
        };
        assert_eq!(read(text), expected);
    }

    #[test]
    fn h2load_is_read() {
        let text = "status codes: 4711 2xx, 0 3xx, 3 4xx, 2 5xx\n";
        let expected = Outcome {
            requests: 4711,
            failed: 5,
            ..Outcome::default()
        };
        assert_eq!(read(text), expected);
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
