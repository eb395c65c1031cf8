//! What a load counted, as the benchmark's own loads print it: one line of JSON.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::percentile::percentile;

/// What a load counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answers of the kind that was asked for.
    pub(crate) requests: u64,
    /// Everything else: wrong answers, errors, timeouts.
    pub(crate) failed: u64,
    /// Median latency, in microseconds.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of the latency, in microseconds.
    pub(crate) p99_us: Option<f64>,
}

impl Outcome {
    /// Prints it for the process that started this one.
    #[expect(clippy::print_stdout, reason = "the line is what the program is for")]
    pub(super) fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Counts while a load runs.
#[derive(Debug, Default)]
pub(super) struct Count {
    latencies_us: Vec<u32>,
    pub(super) failed: u64,
}

impl Count {
    /// One answer of the right kind.
    pub(super) fn answer(&mut self, latency: Duration) {
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.latencies_us.push(latency_us);
    }

    /// Adds what another connection counted.
    pub(super) fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.failed += other.failed;
    }

    /// The whole; an answer counts as `each` requests.
    pub(super) fn outcome(mut self, each: u64) -> Outcome {
        self.latencies_us.sort_unstable();
        Outcome {
            requests: self.latencies_us.len() as u64 * each,
            failed: self.failed,
            p50_us: percentile(&self.latencies_us, 50).map(f64::from),
            p99_us: percentile(&self.latencies_us, 99).map(f64::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_stand_for_several_messages() {
        let mut count = Count::default();
        count.answer(Duration::from_micros(7));
        let mut other = Count {
            failed: 2,
            ..Count::default()
        };
        other.answer(Duration::from_millis(1));
        count.add(other);
        assert_eq!(
            count.outcome(2),
            Outcome {
                requests: 4,
                failed: 2,
                p50_us: Some(7.0),
                p99_us: Some(1000.0)
            }
        );
    }
}
