//! CPU a request of Forebay, beside nginx, HAProxy and Envoy: one worker each, one origin for all.
//!
//! `peer` starts the proxies with settings that do the same work → `load` asks them in turn →
//! `report`.

mod config;
mod load;
mod peer;
mod report;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use self::load::Protocol;
use self::{
    load::Sample,
    peer::{Origin, Peer},
};

/// What to measure and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds; each measures every proxy once, and the medians are reported
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds that one proxy is measured for in one round
    #[arg(long, default_value_t = 4)]
    pub(crate) seconds: u64,
    /// Keep-alive connections of the load
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Proxies to measure [default: those that are installed]
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Protocols to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Protocol::ALL)]
    pub(crate) protocols: Vec<Protocol>,
    /// Leaves the choice of cores to the kernel: otherwise the proxy has the first core, and the
    /// load and the origin have the last
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    pub(crate) output: PathBuf,
}

/// Median figures of one proxy for one protocol.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Figures {
    /// Name of the proxy.
    pub(crate) proxy: String,
    /// Version as the proxy says it.
    pub(crate) version: String,
    /// What was spoken to it.
    pub(crate) protocol: Protocol,
    /// CPU time a request, user and system, all threads, in microseconds.
    pub(crate) cpu_us: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Median latency, in microseconds.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile of the latency, in microseconds.
    pub(crate) p99_us: Option<f64>,
    /// CPU time as a ratio to nginx: the median of the rounds' own ratios, since both share a
    /// round's weather.
    pub(crate) to_nginx: Option<f64>,
    /// Requests that failed or were answered with anything but 200, over all rounds.
    pub(crate) failed: u64,
}

/// Runs `bench http`.
///
/// # Errors
/// A proxy cannot be started, the load cannot be run, or the results cannot be written.
#[expect(
    clippy::print_stdout,
    reason = "the table is for the person who measures"
)]
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder for the proxies' settings")?;
    let origin = Origin::start(folder.path(), !options.no_pin)?;
    let (peers, left_out) = peer::start_all(folder.path(), &origin, options)?;
    for reason in left_out {
        println!("left out: {reason}");
    }
    let mut samples: BTreeMap<(Protocol, usize), Vec<Sample>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for &protocol in &options.protocols {
            for (place, peer) in peers.iter().enumerate() {
                // The first round warms up: connections to the origin, caches, branch predictors.
                let seconds = if round == 0 { 1 } else { options.seconds };
                let sample = load::measure(peer, protocol, Duration::from_secs(seconds), options)
                    .with_context(|| format!("measure {} over {protocol}", peer.name))?;
                if round > 0 {
                    println!(
                        "round {round}: {protocol:<8} {:<8} {:7.2} µs CPU a request",
                        peer.name,
                        sample.cpu_us()
                    );
                    samples.entry((protocol, place)).or_default().push(sample);
                }
            }
        }
    }
    let figures = summarise(&peers, &samples);
    print!("{}", report::table(&figures));
    report::write(&options.output, &figures)
}

fn summarise(peers: &[Peer], samples: &BTreeMap<(Protocol, usize), Vec<Sample>>) -> Vec<Figures> {
    let nginx = peers.iter().position(|peer| peer.name == "nginx");
    let mut figures = Vec::new();
    for ((protocol, place), own) in samples {
        let Some(peer) = peers.get(*place) else {
            continue;
        };
        let base = nginx.and_then(|nginx| samples.get(&(*protocol, nginx)));
        let ratios = base.map(|base| {
            own.iter()
                .zip(base)
                .map(|(own, base)| own.cpu_us() / base.cpu_us())
        });
        figures.push(Figures {
            proxy: peer.name.to_owned(),
            version: peer.version.clone(),
            protocol: *protocol,
            cpu_us: median(own.iter().map(Sample::cpu_us)).unwrap_or(f64::NAN),
            rate: median(own.iter().map(Sample::rate)).unwrap_or(f64::NAN),
            p50_us: median(own.iter().filter_map(|sample| sample.p50_us)),
            p99_us: median(own.iter().filter_map(|sample| sample.p99_us)),
            to_nginx: ratios.and_then(median),
            failed: own.iter().map(|sample| sample.failed).sum(),
        });
    }
    figures
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median([3.0, 1.0, 9.0].into_iter()), Some(3.0));
        assert_eq!(median([4.0, 1.0, 2.0, 9.0].into_iter()), Some(3.0));
        assert_eq!(median([].into_iter()), None);
    }
}
