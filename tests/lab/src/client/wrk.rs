//! Runs wrk and reads what it prints.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Namespace;

/// What wrk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Answers whose status was not 2xx or 3xx.
    pub wrong: u64,
    /// Connections, reads and writes that failed, and timeouts.
    pub failed: u64,
    /// Of these, connections that could not be made; wrk goes on without them.
    pub refused: u64,
}

/// A wrk that runs; killed when dropped.
#[derive(Debug)]
pub struct Wrk(Option<Child>);

/// Runs wrk for `duration` over `connections` keep-alive connections from one thread.
///
/// # Errors
/// wrk is not installed or cannot start its load.
pub fn wrk(
    namespace: Option<&Namespace>,
    connections: usize,
    duration: Duration,
    headers: &[&str],
    url: &str,
) -> Result<Load> {
    Wrk::start(namespace, connections, duration, headers, url)?.load()
}

impl Wrk {
    /// Starts wrk, which ends after `limit` or with [`Wrk::stop`].
    ///
    /// # Errors
    /// wrk is not installed.
    pub fn start(
        namespace: Option<&Namespace>,
        connections: usize,
        limit: Duration,
        headers: &[&str],
        url: &str,
    ) -> Result<Self> {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", "--timeout", "5s"])
            .args([
                format!("-c{connections}"),
                format!("-d{}s", limit.as_secs().max(1)),
            ])
            .args(headers.iter().flat_map(|header| ["-H", header]))
            .arg(url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = match namespace {
            Some(namespace) => namespace.spawn(command),
            None => command.spawn(),
        };
        Ok(Self(Some(child.context("start wrk (is it installed?)")?)))
    }

    /// Ends the load now and counts it.
    ///
    /// # Errors
    /// As [`Wrk::load`].
    pub fn stop(self) -> Result<Load> {
        if let Some(child) = &self.0 {
            kill_process(Pid::from_child(child), Signal::INT)?;
        }
        self.load()
    }

    /// Waits until the load ends, and counts it.
    ///
    /// # Errors
    /// wrk failed to start its load.
    pub fn load(mut self) -> Result<Load> {
        let child = self.0.take().context("wrk was stopped")?;
        let output = child.wait_with_output().context("wait for wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "wrk: {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        parse_wrk(&text)
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn parse_wrk(text: &str) -> Result<Load> {
    let mut load = Load::default();
    let mut counted = false;
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            load.requests = count
                .trim()
                .parse()
                .with_context(|| format!("wrk line {line:?}"))?;
            counted = true;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            load.rate = rate
                .trim()
                .parse()
                .with_context(|| format!("wrk line {line:?}"))?;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            load.wrong = count
                .trim()
                .parse()
                .with_context(|| format!("wrk line {line:?}"))?;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            let counts: Vec<_> = errors
                .split(',')
                .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok())
                .collect();
            load.failed = counts.iter().sum();
            load.refused = *counts
                .first()
                .with_context(|| format!("wrk line {line:?}"))?;
        }
    }
    ensure!(counted, "wrk printed no count: {text}");
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_counts_every_kind_of_failure() {
        let text = "  120 requests in 1.00s, 20KB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  \
                    Non-2xx or 3xx responses: 7\nRequests/sec:    119.90\n";
        assert_eq!(
            parse_wrk(text).unwrap(),
            Load {
                requests: 120,
                rate: 119.9,
                wrong: 7,
                failed: 10,
                refused: 1
            }
        );
        assert!(parse_wrk("unable to connect").is_err());
    }
}
