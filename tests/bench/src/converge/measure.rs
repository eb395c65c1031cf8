//! Measures one site through one source.

#![allow(clippy::print_stdout, reason = "a person waits, and reads the figures")]

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ingress_lab::forebay::Forebay;
use serde::Serialize;

use super::{
    running::{Processes, Running},
    site,
    source::{Source, Writer},
};
use crate::{account, client::Client, percentile::percentile};

/// An edit that has no effect within this time fails the benchmark.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests per second of the light load, over all of its connections.
const LIGHT: u64 = 400;

/// Edits per second of the steady load.
const STEADY: u64 = 100;

/// Seconds of one round under it: short, so that what else the machine does falls on rounds with
/// edits and on rounds without them alike.
const ROUND: u64 = 5;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) ingresses: usize,
    pub(super) edits: usize,
    pub(super) seconds: u64,
}

impl Plan {
    fn services(self) -> usize {
        (self.ingresses / site::SHARE).max(1)
    }

    /// The `at`th Ingress of the first Service: only its pods answer.
    fn served(self, at: usize) -> usize {
        at % (site::SHARE - 1) * self.services()
    }

    /// One of them that nobody edits.
    fn steady(self) -> usize {
        (site::SHARE - 1) * self.services()
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) source: &'static str,
    pub(super) ingresses: usize,
    /// From the start of the process to ready.
    pub(super) cold_start_ms: f64,
    pub(super) memory_mib: f64,
    /// After all edits, scrapes and requests.
    pub(super) memory_after_mib: f64,
    /// From the answer to a write to the first request that sees it, ascending.
    pub(super) edit_ms: Vec<f64>,
    /// The same for a change of endpoints.
    pub(super) endpoint_ms: Vec<f64>,
    pub(super) edit_cpu_us: f64,
    pub(super) endpoint_cpu_us: f64,
    /// Hosts that changes of endpoints compiled.
    pub(super) compiled_by_endpoints: f64,
    /// Latency of requests without edits, and with a hundred per second, ascending; the writer works
    /// as hard in both.
    pub(super) calm_ms: Vec<f64>,
    pub(super) storm_ms: Vec<f64>,
    /// Of each pair of rounds, how many times the p99 without edits the one under edits is.
    pub(super) storm_ratios: Vec<f64>,
}

/// Measures a site of `plan` through a source.
pub(super) fn measure<S: Source>(
    name: &'static str,
    plan: &Plan,
    two_processes: bool,
) -> Result<Figures> {
    let plan = *plan;
    let mut source = S::start()?;
    let namespace = source.namespace();
    let pods = [
        namespace.origin("pod-a", source.pod())?,
        namespace.origin("pod-b", source.pod())?,
    ];
    let addresses = pods.each_ref().map(|pod| pod.address());
    let services = plan.services();
    println!(
        "  writing {services} Services with their endpoints, as many Secrets, and the Ingresses"
    );
    let mut objects: Vec<_> = (0..services).map(site::service).collect();
    objects.extend((0..services).map(|number| site::slice(number, addresses[0])));
    objects.extend((0..services).map(site::secret));
    // The storm without edits writes these, which nobody reads.
    objects.push(site::unread(0));
    objects.extend((0..plan.ingresses).map(|number| site::ingress(number, services, 0)));
    source.fill(objects)?;

    println!("  starting");
    let started = Instant::now();
    let mut running = Running::start(&source, two_processes)?;
    let forebay = &mut running.proxy;
    forebay.wait_for_ready()?;
    let cold_start_ms = milliseconds(started);
    let bench = Bench {
        plan,
        proxy: forebay.http_addr(),
        pods: addresses,
        processes: running.processes(),
    };
    let forebay = &running.proxy;
    let writer = source.writer()?;
    bench.settle()?;
    let memory_mib = bench.memory_mib()?;

    println!("  {} edits and as many changes of endpoints", plan.edits);
    let load = bench.light_load(&namespace);
    let (writer, edit_ms) = namespace.run(move || bench.edits(writer))?;
    let before = compiled(forebay)?;
    let (writer, endpoint_ms) = namespace.run(move || bench.endpoint_changes(writer))?;
    let compiled_by_endpoints = compiled(forebay)? - before;
    load.stop()?;

    println!("  CPU of each");
    let (writer, edit_cpu_us) = namespace.run(move || bench.cpu_of_edits(writer))?;
    let (writer, endpoint_cpu_us) = namespace.run(move || bench.cpu_of_endpoint_changes(writer))?;

    let (mut calm_ms, mut storm_ms, mut storm_ratios) = (Vec::new(), Vec::new(), Vec::new());
    if name == "api" && plan.seconds > 0 {
        let rounds = plan.seconds.div_ceil(ROUND);
        println!(
            "  {rounds} rounds of {ROUND} s with {STEADY} writes per second that nobody reads, and \
             as many with {STEADY} edits per second, in turn"
        );
        let mut writer = writer;
        for round in 0..rounds {
            let numbers = round * ROUND * STEADY..(round + 1) * ROUND * STEADY;
            let load = bench.light_load(&namespace);
            let storm = numbers.clone();
            writer = namespace.run(move || bench.storm(writer, storm, |_, at| site::unread(at)))?;
            let calm = ascending(load.stop()?);
            let load = bench.light_load(&namespace);
            let edit =
                |plan: Plan, at| site::ingress(plan.served(at), plan.services(), 1_000_000 + at);
            writer = namespace.run(move || bench.storm(writer, numbers, edit))?;
            let storm = ascending(load.stop()?);
            if let (Some(calm), Some(storm)) = (percentile(&calm, 99), percentile(&storm, 99)) {
                storm_ratios.push(storm / calm);
            }
            calm_ms.extend(calm);
            storm_ms.extend(storm);
        }
    }
    Ok(Figures {
        source: name,
        ingresses: plan.ingresses,
        cold_start_ms,
        memory_mib,
        memory_after_mib: bench.memory_mib()?,
        edit_ms: ascending(edit_ms),
        endpoint_ms: ascending(endpoint_ms),
        edit_cpu_us,
        endpoint_cpu_us,
        compiled_by_endpoints,
        calm_ms: ascending(calm_ms),
        storm_ms: ascending(storm_ms),
        storm_ratios,
    })
}

fn compiled(forebay: &Forebay) -> Result<f64> {
    let metrics = forebay.metrics()?;
    metrics
        .sum("forebay_hosts_compiled_total", &[])
        .context("no metric of compiled hosts")
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn ascending(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// What the measurements of one site share.
#[derive(Clone, Copy, Debug)]
struct Bench {
    plan: Plan,
    proxy: SocketAddr,
    pods: [SocketAddr; 2],
    processes: Processes,
}

type Measured = Result<(Writer, Vec<f64>)>;

impl Bench {
    /// Waits until a second passes in which the process does next to nothing.
    fn settle(&self) -> Result<()> {
        let until = Instant::now() + 3 * LIMIT;
        loop {
            let before = self.processes.sum(account::cpu_nanoseconds)?;
            std::thread::sleep(Duration::from_secs(1));
            if self.processes.sum(account::cpu_nanoseconds)? - before < 20_000_000 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "Forebay does not come to rest");
        }
    }

    fn memory_mib(&self) -> Result<f64> {
        Ok(self.processes.sum(account::pss_kib)? as f64 / 1024.0)
    }

    fn edits(&self, mut writer: Writer) -> Measured {
        let plan = self.plan;
        let mut client = Client::connect(self.proxy)?;
        let mut latencies = Vec::new();
        for version in 1..=plan.edits {
            let number = plan.served(version);
            writer.write(&site::ingress(number, plan.services(), version))?;
            let written = Instant::now();
            let (host, path) = (site::host(number), format!("/v{version}"));
            while client.get(&host, &path)?.status != 200 {
                ensure!(written.elapsed() < LIMIT, "edit {version} has no effect");
            }
            latencies.push(milliseconds(written));
        }
        Ok((writer, latencies))
    }

    fn endpoint_changes(&self, mut writer: Writer) -> Measured {
        let mut client = Client::connect(self.proxy)?;
        let host = site::host(self.plan.steady());
        let mut latencies = Vec::new();
        for at in 1..=self.plan.edits {
            let pod = ["pod-a", "pod-b"][at % 2].as_bytes();
            writer.write(&site::slice(0, self.pods[at % 2]))?;
            let written = Instant::now();
            let shows = |body: &[u8]| body.windows(pod.len()).any(|part| part == pod);
            while !shows(&client.get(&host, "/v0")?.body) {
                ensure!(
                    written.elapsed() < LIMIT,
                    "endpoint change {at} has no effect"
                );
            }
            latencies.push(milliseconds(written));
        }
        Ok((writer, latencies))
    }

    fn cpu_of_edits(&self, writer: Writer) -> Result<(Writer, f64)> {
        let plan = self.plan;
        self.cpu_of(writer, |at| {
            site::ingress(plan.served(at), plan.services(), 500_000 + at)
        })
    }

    fn cpu_of_endpoint_changes(&self, writer: Writer) -> Result<(Writer, f64)> {
        self.cpu_of(writer, |at| site::slice(0, self.pods[at % 2]))
    }

    /// CPU of one write, in microseconds, less what passes without any.
    fn cpu_of(
        &self,
        mut writer: Writer,
        object: impl Fn(usize) -> serde_json::Value,
    ) -> Result<(Writer, f64)> {
        const WRITES: usize = 100;
        const PAUSE: Duration = Duration::from_millis(50);
        self.settle()?;
        let start = self.processes.sum(account::cpu_nanoseconds)?;
        let began = Instant::now();
        for at in 1..=WRITES {
            writer.write(&object(at))?;
            std::thread::sleep(PAUSE);
        }
        let took = began.elapsed();
        let busy = self.processes.sum(account::cpu_nanoseconds)? - start;
        self.settle()?;
        let start = self.processes.sum(account::cpu_nanoseconds)?;
        std::thread::sleep(took);
        let idle = self.processes.sum(account::cpu_nanoseconds)? - start;
        Ok((writer, (busy as f64 - idle as f64) / 1e3 / WRITES as f64))
    }

    fn storm(
        &self,
        mut writer: Writer,
        numbers: Range<u64>,
        object: impl Fn(Plan, usize) -> serde_json::Value,
    ) -> Result<Writer> {
        let (began, first) = (Instant::now(), numbers.start);
        for at in numbers {
            let due = began + Duration::from_secs_f64((at - first) as f64 / STEADY as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            writer.write(&object(self.plan, at as usize))?;
        }
        Ok(writer)
    }

    /// Requests at a steady rate, until it is stopped.
    fn light_load(&self, namespace: &ingress_lab::lab::Namespace) -> Load {
        const CONNECTIONS: u64 = 4;
        let stopped = Arc::new(AtomicBool::new(false));
        let (proxy, host) = (self.proxy, site::host(self.plan.steady()));
        let threads = (0..CONNECTIONS).map(|_| {
            let (stopped, host) = (Arc::clone(&stopped), host.clone());
            namespace.run(move || {
                std::thread::spawn(move || requests(proxy, &host, LIGHT / CONNECTIONS, &stopped))
            })
        });
        Load {
            threads: threads.collect(),
            stopped,
        }
    }
}

/// Requests under way.
struct Load {
    stopped: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Result<Vec<f64>>>>,
}

impl Load {
    /// Ends it, and gives the latency of each request in milliseconds.
    fn stop(self) -> Result<Vec<f64>> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            let latencies = thread.join();
            all.extend(latencies.map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    }
}

fn requests(proxy: SocketAddr, host: &str, rate: u64, stopped: &AtomicBool) -> Result<Vec<f64>> {
    let mut client = Client::connect(proxy)?;
    let mut latencies = Vec::new();
    let began = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs_f64(latencies.len() as f64 / rate as f64);
        let early = due.saturating_duration_since(Instant::now());
        std::thread::sleep(early);
        // A request that the one before has kept waiting has waited since it was due.
        let asked = if early.is_zero() { due } else { Instant::now() };
        let answer = client.get(host, "/v0")?;
        ensure!(answer.status == 200, "a request got {}", answer.status);
        latencies.push(milliseconds(asked));
    }
    Ok(latencies)
}
