//! Every metric, declared once with its unit and labels.
//!
//! A worker writes only counters of its own, so no cache line is shared between cores; a scrape
//! adds them up.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Upper bounds of the request duration histogram, in microseconds: Prometheus' defaults, 5 ms to
/// 10 s, and 1 ms below them.
const DURATION_BOUNDS_US: [u64; 12] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// How many routes one piece of a scrape covers, at most: a hundred kilobytes.
const ROUTES_PER_PIECE: usize = 64;

/// How many different status codes are counted per route; later ones count as `other`.
const STATUS_SLOTS: usize = 12;

/// A number that only grows. One writer, many readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the worker that owns the counter may call this.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`. Only the worker that owns the counter may call this.
    pub fn add(&self, amount: u64) {
        // One writer: a plain add without a locked instruction loses nothing.
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Subtracts one, for gauges. Only the worker that owns the counter may call this.
    pub fn decrement(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Labels of a route. Bounded by the configuration, never by the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteLabels {
    /// Namespace of the Ingress.
    pub namespace: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Name of the Service.
    pub service: String,
}

/// The counters of one route, separate for each worker, and made with the first request that the
/// worker has for it: ten thousand routes, most of them asleep, on sixty-four workers would be 200 MB.
/// Freed with the last table that has the route.
#[derive(Debug)]
pub struct RouteMetrics {
    workers: Box<[OnceLock<Box<RouteCounters>>]>,
}

impl RouteMetrics {
    fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The counters of `worker`; only that worker may write them.
    pub(crate) fn of(&self, worker: usize) -> &RouteCounters {
        self.workers[worker % self.workers.len()].get_or_init(Box::default)
    }

    /// What the workers have counted; `None` where there was no request.
    fn sum(&self) -> Option<RouteSum> {
        let mut counted = self.workers.iter().filter_map(OnceLock::get).peekable();
        counted.peek()?;
        let mut sum = RouteSum::default();
        counted.for_each(|counters| sum.add(counters));
        Some(sum)
    }
}

/// What one worker counts for one route. Aligned to cache lines, which no two workers share.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RouteCounters {
    status: [(AtomicU64, Counter); STATUS_SLOTS],
    other: Counter,
    duration: [Counter; DURATION_BOUNDS_US.len() + 1],
    duration_us: Counter,
    bytes: Counter,
}

impl RouteCounters {
    /// Counts one request. `duration` is the time from its head to the last byte of its response,
    /// and `bytes` the body bytes sent.
    pub(crate) fn record(&self, status: u16, duration: Duration, bytes: u64) {
        self.bytes.add(bytes);
        let code = u64::from(status);
        let slot = self
            .status
            .iter()
            .find(|(taken, _)| matches!(taken.load(Relaxed), 0) || taken.load(Relaxed) == code);
        match slot {
            Some((taken, count)) => {
                taken.store(code, Relaxed);
                count.increment();
            }
            None => self.other.increment(),
        }
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US
            .iter()
            .position(|bound| us <= *bound)
            .unwrap_or(DURATION_BOUNDS_US.len());
        self.duration[bucket].increment();
        self.duration_us.add(us);
    }
}

/// Counters of one worker that belong to no route.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Downstream connections accepted.
    pub accepted: Counter,
    /// Open downstream connections.
    pub open: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Requests refused before routing, and requests without a route (400, 404, 405, 501, …).
    pub unrouted: RouteCounters,
    /// Connections opened to endpoints.
    pub upstream_connects: Counter,
    /// Failed connection attempts to endpoints.
    pub upstream_connects_failed: Counter,
    /// Requests sent over a pooled connection.
    pub upstream_reused: Counter,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Responses cut off before their end.
    pub cut: Counter,
    /// Connections lost to a panic. Each is a bug.
    pub panics: Counter,
}

/// One worker's place in the registry.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Counters that belong to no route.
    pub counters: WorkerCounters,
}

/// Metrics that another module collects at each scrape, such as the BPF counters.
pub type Collector = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// All metrics of the process. Only the main thread and scrapes take its locks; a worker increments
/// counters that it already holds.
pub struct Registry {
    worker_count: usize,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    routes: Mutex<BTreeMap<RouteLabels, Weak<RouteMetrics>>>,
    collectors: Mutex<Vec<Collector>>,
}

impl Registry {
    /// A registry for this many workers.
    pub fn new(worker_count: usize) -> Self {
        Self {
            worker_count,
            workers: Mutex::default(),
            routes: Mutex::default(),
            collectors: Mutex::default(),
        }
    }

    /// Adds a worker.
    pub fn worker(&self) -> Arc<WorkerMetrics> {
        let metrics = Arc::new(WorkerMetrics::default());
        locked(&self.workers).push(Arc::clone(&metrics));
        metrics
    }

    /// The counters of a route; the existing ones while a table still holds them.
    pub(crate) fn route(&self, labels: RouteLabels) -> Arc<RouteMetrics> {
        let mut routes = locked(&self.routes);
        let slot = routes.entry(labels).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let metrics = Arc::new(RouteMetrics::new(self.worker_count));
            *slot = Arc::downgrade(&metrics);
            metrics
        })
    }

    /// Adds metrics that are collected at each scrape.
    pub fn collect_with(&self, collector: Collector) {
        locked(&self.collectors).push(collector);
    }

    /// All metrics in the Prometheus text format, version 0.0.4, piece by piece: with ten thousand
    /// routes it is tens of megabytes, which nobody has to hold.
    pub fn expose(&self) -> impl Iterator<Item = String> + Send + use<> {
        let workers = locked(&self.workers).clone();
        let mut first = Exposition::default();
        expose_workers(&workers, &mut first);
        for collector in locked(&self.collectors).iter() {
            collector(&mut first);
        }
        // The workers' requests without a route are those with empty labels.
        let mut unrouted = RouteSum::default();
        workers
            .iter()
            .for_each(|worker| unrouted.add(&worker.counters.unrouted));
        let routes = Arc::new(self.living_routes());
        let families = RouteFamily::ALL.into_iter().flat_map(move |family| {
            let mut head = Exposition::default();
            family.open(&mut head);
            family.expose(&RouteLabels::default(), &unrouted, &mut head);
            let routes = Arc::clone(&routes);
            let pieces = (0..routes.len())
                .step_by(ROUTES_PER_PIECE)
                .map(move |start| {
                    let end = routes.len().min(start + ROUTES_PER_PIECE);
                    let mut piece = Exposition::default();
                    for (labels, metrics) in routes.get(start..end).unwrap_or_default() {
                        if let Some(sum) = metrics.upgrade().and_then(|own| own.sum()) {
                            family.expose(labels, &sum, &mut piece);
                        }
                    }
                    piece.text
                });
            std::iter::once(head.text).chain(pieces)
        });
        std::iter::once(first.text)
            .chain(families)
            .filter(|piece| !piece.is_empty())
    }

    /// The routes that a table still has, by their labels; the others are forgotten. A scrape does
    /// not keep them: whoever asks decides how long it takes.
    fn living_routes(&self) -> Vec<(RouteLabels, Weak<RouteMetrics>)> {
        let mut routes = locked(&self.routes);
        routes.retain(|_, metrics| metrics.strong_count() > 0);
        let living = routes
            .iter()
            .map(|(labels, metrics)| (labels.clone(), Weak::clone(metrics)));
        living.collect()
    }
}

/// What a panic left behind is as good as any: these are lists that only grow or are replaced.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Kind of a metric family.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// Text of a scrape under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Opens a family: every metric has a help text and a type.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Writes one sample; label values are escaped.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.text.push_str(name);
        for (position, (label, value)) in labels.iter().enumerate() {
            self.text.push(if position == 0 { '{' } else { ',' });
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn expose_workers(workers: &[Arc<WorkerMetrics>], exposition: &mut Exposition) {
    type Field = fn(&WorkerCounters) -> &Counter;
    let families: [(&str, Kind, &str, Field); 9] = [
        (
            "forebay_downstream_connections_total",
            Kind::Counter,
            "Connections accepted from clients.",
            |w| &w.accepted,
        ),
        (
            "forebay_downstream_connections",
            Kind::Gauge,
            "Open client connections.",
            |w| &w.open,
        ),
        (
            "forebay_tls_handshakes_failed_total",
            Kind::Counter,
            "TLS handshakes that failed or took too long.",
            |w| &w.handshakes_failed,
        ),
        (
            "forebay_upstream_connects_total",
            Kind::Counter,
            "Connections opened to endpoints.",
            |w| &w.upstream_connects,
        ),
        (
            "forebay_upstream_connects_failed_total",
            Kind::Counter,
            "Failed connection attempts to endpoints.",
            |w| &w.upstream_connects_failed,
        ),
        (
            "forebay_upstream_reused_total",
            Kind::Counter,
            "Requests sent over a pooled connection.",
            |w| &w.upstream_reused,
        ),
        (
            "forebay_retries_total",
            Kind::Counter,
            "Tries of requests beyond their first; one over a pooled connection that was dead counts, too.",
            |w| &w.retries,
        ),
        (
            "forebay_responses_cut_total",
            Kind::Counter,
            "Responses cut off before their end.",
            |w| &w.cut,
        ),
        (
            "forebay_panics_total",
            Kind::Counter,
            "Connections lost to a panic.",
            |w| &w.panics,
        ),
    ];
    for (name, kind, help, field) in families {
        exposition.family(name, kind, help);
        for (id, worker) in workers.iter().enumerate() {
            exposition.sample(
                name,
                &[("worker", &id.to_string())],
                field(&worker.counters).value(),
            );
        }
    }
}

/// The sum of one route over all workers.
#[derive(Default)]
struct RouteSum {
    status: BTreeMap<u64, u64>,
    duration: [u64; DURATION_BOUNDS_US.len() + 1],
    duration_us: u64,
    bytes: u64,
}

impl RouteSum {
    fn add(&mut self, counters: &RouteCounters) {
        for (code, count) in counters
            .status
            .iter()
            .filter(|(code, _)| code.load(Relaxed) != 0)
        {
            *self.status.entry(code.load(Relaxed)).or_default() += count.value();
        }
        if counters.other.value() > 0 {
            *self.status.entry(0).or_default() += counters.other.value();
        }
        for (sum, counter) in self.duration.iter_mut().zip(&counters.duration) {
            *sum += counter.value();
        }
        self.duration_us += counters.duration_us.value();
        self.bytes += counters.bytes.value();
    }
}

/// The metrics that each route has.
#[derive(Clone, Copy)]
enum RouteFamily {
    Requests,
    Bytes,
    Duration,
}

impl RouteFamily {
    const ALL: [Self; 3] = [Self::Requests, Self::Bytes, Self::Duration];

    fn name(self) -> &'static str {
        match self {
            Self::Requests => "forebay_requests_total",
            Self::Bytes => "forebay_response_bytes_total",
            Self::Duration => "forebay_request_duration_seconds",
        }
    }

    fn open(self, exposition: &mut Exposition) {
        let (kind, help) = match self {
            Self::Requests => (
                Kind::Counter,
                "Requests by response status; 499: the client left before the response; empty \
                 labels: no route. A route appears with its first request.",
            ),
            Self::Bytes => (
                Kind::Counter,
                "Response bytes sent to clients: for HTTP/1.1 with heads and framing, for HTTP/2 \
                 bodies alone.",
            ),
            Self::Duration => (
                Kind::Histogram,
                "Time from a request's head to the last byte of its response.",
            ),
        };
        exposition.family(self.name(), kind, help);
    }

    fn expose(self, labels: &RouteLabels, sum: &RouteSum, exposition: &mut Exposition) {
        let name = self.name();
        match self {
            Self::Requests => {
                for (code, count) in &sum.status {
                    let status = if *code == 0 {
                        "other".to_owned()
                    } else {
                        code.to_string()
                    };
                    exposition.sample(name, &labels.and("status", &status), count);
                }
            }
            Self::Bytes => exposition.sample(name, &labels.pairs(), sum.bytes),
            Self::Duration => {
                let mut count = 0;
                let bucket_name = format!("{name}_bucket");
                for (position, bucket) in sum.duration.iter().enumerate() {
                    count += bucket;
                    let bound = DURATION_BOUNDS_US
                        .get(position)
                        .map_or("+Inf".to_owned(), |us| seconds(*us).to_string());
                    exposition.sample(&bucket_name, &labels.and("le", &bound), count);
                }
                let total = seconds(sum.duration_us);
                exposition.sample(&format!("{name}_sum"), &labels.pairs(), total);
                exposition.sample(&format!("{name}_count"), &labels.pairs(), count);
            }
        }
    }
}

impl RouteLabels {
    fn pairs(&self) -> [(&str, &str); 3] {
        [
            ("namespace", &self.namespace),
            ("ingress", &self.ingress),
            ("service", &self.service),
        ]
    }

    fn and<'l>(&'l self, label: &'l str, value: &'l str) -> [(&'l str, &'l str); 4] {
        let [namespace, ingress, service] = self.pairs();
        [namespace, ingress, service, (label, value)]
    }
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_adds_up_what_the_workers_counted() {
        let registry = Registry::new(2);
        let labels = RouteLabels {
            namespace: "shop".into(),
            ingress: "we\"b".into(),
            service: "s1".into(),
        };
        let route = registry.route(labels);
        // Their counters have one writer each, or counts are lost.
        assert!(!std::ptr::eq(route.of(0), route.of(1)));
        for id in 0..2 {
            let worker = registry.worker();
            worker.counters.accepted.increment();
            route.of(id).record(200, Duration::from_micros(700), 10);
            route.of(id).record(502, Duration::from_secs(20), 1);
        }
        let text: String = registry.expose().collect();
        for line in [
            "forebay_downstream_connections_total{worker=\"1\"} 1",
            "forebay_requests_total{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\",status=\"200\"} 2",
            "forebay_request_duration_seconds_bucket{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\",le=\"0.001\"} 2",
            "forebay_request_duration_seconds_bucket{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\",le=\"+Inf\"} 4",
            "forebay_response_bytes_total{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\"} 22",
            "forebay_request_duration_seconds_count{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\"} 4",
            "forebay_request_duration_seconds_sum{namespace=\"shop\",ingress=\"we\\\"b\",service=\"s1\"} 40.0014",
        ] {
            assert!(text.contains(line), "no line {line} in\n{text}");
        }
    }

    #[test]
    fn a_label_is_read_back_as_it_was() {
        let mut exposition = Exposition::default();
        let labels = [("none", ""), ("all", "a\\b\"c\nd\\n"), ("plain", "é{},=")];
        exposition.sample("name", &labels, 1);
        let text = r#"name{none="",all="a\\b\"c\nd\\n",plain="é{},="} 1"#;
        assert_eq!(exposition.text, format!("{text}\n"));
    }

    #[test]
    fn more_status_codes_than_slots_count_as_other() {
        let registry = Registry::new(2);
        let worker = registry.worker();
        let says = |what: &str| registry.expose().any(|piece| piece.contains(what));
        for status in 400..412 {
            worker.counters.unrouted.record(status, Duration::ZERO, 0);
        }
        assert!(!says("status=\"other\""), "each has a slot");
        for status in 412..430 {
            worker.counters.unrouted.record(status, Duration::ZERO, 0);
        }
        assert!(says("status=\"other\"} 18"));
    }

    #[test]
    fn routes_without_requests_cost_next_to_nothing_and_a_scrape_is_never_whole_in_memory() {
        let registry = Registry::new(64);
        let labels = |number: usize| RouteLabels {
            ingress: format!("i{number:05}"),
            ..RouteLabels::default()
        };
        let routes: Vec<_> = (0..1000).map(|at| registry.route(labels(at))).collect();
        let is_counted =
            |route: &Arc<RouteMetrics>| route.workers.iter().any(|own| own.get().is_some());
        assert!(!routes.iter().any(is_counted));
        assert!(!registry.expose().any(|piece| piece.contains("i00000")));
        for route in &routes {
            route.of(63).record(200, Duration::ZERO, 0);
        }
        let pieces: Vec<String> = registry.expose().collect();
        assert!(pieces.iter().all(|piece| piece.len() < 256 * 1024));
        let text = pieces.concat();
        for family in RouteFamily::ALL {
            let (before, samples) = text
                .split_once(&format!("# TYPE {} ", family.name()))
                .unwrap();
            assert!(!before.contains(&format!("{}{{", family.name())));
            // Samples of a family stand together, behind its one head.
            let own = samples.split("# HELP").next().unwrap();
            for number in 0..1000 {
                assert!(own.contains(&labels(number).ingress), "{number}");
            }
        }
    }

    #[test]
    fn counters_of_a_route_that_is_gone_are_freed() {
        let registry = Registry::new(1);
        let labels = RouteLabels {
            namespace: "shop".into(),
            ..RouteLabels::default()
        };
        let first = registry.route(labels.clone());
        first.of(0).record(200, Duration::ZERO, 0);
        let second = registry.route(labels.clone());
        assert!(
            Arc::ptr_eq(&first, &second),
            "a new table begins to count anew"
        );
        let names_it = || {
            registry
                .expose()
                .any(|piece| piece.contains("namespace=\"shop\""))
        };
        assert!(names_it());
        drop((first, second));
        assert!(!names_it());
        assert!(locked(&registry.routes).is_empty());
    }

    #[test]
    fn a_scrape_that_stands_still_keeps_no_route_that_is_gone() {
        let registry = Registry::new(1);
        let labels = RouteLabels {
            namespace: "shop".into(),
            ..RouteLabels::default()
        };
        let route = registry.route(labels);
        route.of(0).record(200, Duration::ZERO, 0);
        let mut slow = registry.expose();
        let names_it = |piece: String| piece.contains("namespace=\"shop\"");
        assert!(slow.by_ref().any(names_it));
        drop(route);
        assert!(!registry.expose().any(names_it), "other scrapes show it");
        assert!(!slow.any(names_it), "this one goes on to show it");
    }

    #[test]
    fn a_request_that_took_as_long_as_a_bound_is_within_it() {
        let counters = RouteCounters::default();
        let microsecond = Duration::from_micros(1);
        for us in DURATION_BOUNDS_US {
            let bound = Duration::from_micros(us);
            counters.record(200, bound, 0);
            counters.record(200, bound + microsecond, 0);
        }
        let counts = counters.duration.each_ref().map(Counter::value);
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    }

    #[test]
    fn a_scrape_says_of_each_worker_what_it_counted() {
        let registry = Registry::new(1);
        let worker = registry.worker();
        let own = &worker.counters;
        let named = [
            (&own.accepted, "downstream_connections_total", "counter"),
            (&own.open, "downstream_connections", "gauge"),
            (
                &own.handshakes_failed,
                "tls_handshakes_failed_total",
                "counter",
            ),
            (&own.upstream_connects, "upstream_connects_total", "counter"),
            (
                &own.upstream_connects_failed,
                "upstream_connects_failed_total",
                "counter",
            ),
            (&own.upstream_reused, "upstream_reused_total", "counter"),
            (&own.retries, "retries_total", "counter"),
            (&own.cut, "responses_cut_total", "counter"),
            (&own.panics, "panics_total", "counter"),
        ];
        for (count, (counter, ..)) in (10..).zip(named) {
            counter.add(count);
            counter.increment();
            counter.decrement();
        }
        let text: String = registry.expose().collect();
        for (count, (_, name, kind)) in (10..).zip(named) {
            for line in [
                format!("\n# TYPE forebay_{name} {kind}\n"),
                format!("\nforebay_{name}{{worker=\"0\"}} {count}\n"),
            ] {
                assert!(text.contains(&line), "no line {line:?} in\n{text}");
            }
        }
        let duration = "\n# TYPE forebay_request_duration_seconds histogram\n";
        assert!(text.contains(duration), "{text}");
    }

    #[test]
    fn a_scrape_contains_what_other_modules_collect() {
        let registry = Registry::new(1);
        let asked = Counter::default();
        registry.collect_with(Box::new(move |exposition| {
            asked.increment();
            exposition.family("asked", Kind::Gauge, "Scrapes.");
            exposition.sample("asked", &[], asked.value());
        }));
        for count in 1..3 {
            let text: String = registry.expose().collect();
            let said = format!("# HELP asked Scrapes.\n# TYPE asked gauge\nasked {count}\n");
            assert!(text.contains(&said), "{text}");
        }
    }
}
