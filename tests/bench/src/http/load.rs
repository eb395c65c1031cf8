//! Loads one proxy for a while and reads what it cost.

use std::{
    fmt, fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::{
    Options,
    peer::{Core, Peer, wrapper},
};

/// What is spoken to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1, kept connections.
    Http1,
    /// HTTP/1.1 over TLS 1.3, kept connections.
    Https1,
    /// HTTP/2 over TLS 1.3, four streams a connection.
    Https2,
}

impl Protocol {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Https1, Self::Https2];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http1 => "http1",
            Self::Https1 => "https1",
            Self::Https2 => "https2",
        })
    }
}

/// One proxy in one round.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    requests: u64,
    seconds: f64,
    cpu_seconds: f64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) failed: u64,
}

impl Sample {
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.requests as f64
    }

    pub(super) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Loads `peer` for `duration`.
pub(super) fn measure(
    peer: &Peer,
    protocol: Protocol,
    duration: Duration,
    options: &Options,
) -> Result<Sample> {
    let seconds = duration.as_secs().max(1);
    let mut words = wrapper(!options.no_pin, Core::Load)?;
    let connections = options.connections.max(4);
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    match protocol {
        Protocol::Http1 | Protocol::Https1 => {
            add(&["wrk", "-t1", "--latency", "--timeout", "5s"]);
            add(&[
                &format!("-c{connections}"),
                &format!("-d{seconds}s"),
                "-H",
                "Host: bench.example",
            ]);
        }
        Protocol::Https2 => {
            add(&[
                "h2load",
                "-t1",
                "-m4",
                &format!("-c{}", connections / 4),
                &format!("-D{seconds}"),
            ]);
        }
    }
    let plain = protocol == Protocol::Http1;
    let (scheme, address) = if plain {
        ("http", peer.http)
    } else {
        ("https", peer.https)
    };
    add(&[&format!("{scheme}://{address}/a/path?of=some&length")]);

    let before = cpu_seconds(peer.pid())?;
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("run {words:?}"))?;
    let cpu_seconds = cpu_seconds(peer.pid())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sample = Sample {
        seconds: seconds as f64,
        cpu_seconds,
        ..read(&text)
    };
    ensure!(sample.requests > 0, "{words:?} counted no request: {text}");
    Ok(sample)
}

/// Reads what wrk or h2load printed.
fn read(text: &str) -> Sample {
    let mut sample = Sample::default();
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            sample.requests = count.trim().parse().unwrap_or(0);
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            sample.failed += count.trim().parse().unwrap_or(0);
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            sample.failed += errors
                .split(',')
                .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok())
                .sum::<u64>();
        } else if let Some(counts) = line.strip_prefix("status codes:") {
            sample.requests = counts
                .trim()
                .split(' ')
                .next()
                .and_then(|count| count.parse().ok())
                .unwrap_or(0);
            sample.failed += counts
                .split(',')
                .skip(1)
                .filter_map(|part| part.trim().split(' ').next()?.parse::<u64>().ok())
                .sum::<u64>();
        } else if let Some(latency) = line.strip_prefix("50%") {
            sample.p50_us = microseconds(latency);
        } else if let Some(latency) = line.strip_prefix("99%") {
            sample.p99_us = microseconds(latency);
        }
    }
    sample
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

/// CPU time of a process and its children that live, user and system.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the proxy has ended")?;
    let ticks = ticks(&stat).with_context(|| format!("read {stat:?}"))?;
    let mut seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children
            .split_ascii_whitespace()
            .filter_map(|child| child.parse().ok())
        {
            seconds += cpu_seconds(child)?;
        }
    }
    Ok(seconds)
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5); the second field may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_and_h2load_are_read() {
        let wrk = "  Latency Distribution\n     50%    1.50ms\n     99%  870.00us\n  120 requests in 1.00s, 20KB read\n  \
                   Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\n";
        let sample = read(wrk);
        assert_eq!((sample.requests, sample.failed), (120, 17));
        assert_eq!((sample.p50_us, sample.p99_us), (Some(1500.0), Some(870.0)));
        let sample = read("status codes: 4711 2xx, 0 3xx, 3 4xx, 2 5xx\n");
        assert_eq!((sample.requests, sample.failed), (4711, 5));
    }

    #[test]
    fn names_with_spaces_do_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4 0 0 0 0 40 2 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(42));
    }
}
