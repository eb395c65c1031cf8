//! What the tasks of one worker share. Never leaves its thread.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    time::Instant,
};

use super::{
    WorkerSettings,
    drain::Drain,
    route::{Route, Routes},
};
use crate::{
    http1::Field,
    metrics::{WorkerCounters, WorkerMetrics},
    table::{CanonicalHost, CanonicalPath, Request, RouteTable},
    tls::ServerConfig,
    upstream::{Balancer, Balancers, Pool, RetryBudget, Upstream},
};

/// One worker.
pub(super) struct Worker {
    pub(super) id: usize,
    /// Replaced whole when a table is adopted; a request keeps the route that it began with.
    table: RefCell<Arc<RouteTable>>,
    routes: Routes,
    balancers: Balancers,
    pub(super) pool: Pool,
    pub(super) retry_budget: RetryBudget,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) settings: Arc<WorkerSettings>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) drain: Drain,
    /// For the fields of the head that is being parsed; kept for its memory.
    pub(super) fields: Cell<Vec<Field>>,
    clock: Clock,
}

/// How many tasks run by one reading of the clock, at most. A handshake takes a millisecond.
const TASKS_PER_READING: u8 = 8;

/// How many more tasks may run by the clock's last reading: none once the runtime has waited.
#[derive(Clone, Default)]
pub(super) struct Freshness(Arc<AtomicU8>);

impl Freshness {
    /// A worker's runtime, which notes here when it has waited.
    ///
    /// # Errors
    /// The kernel has no descriptors left for it.
    pub(super) fn runtime(&self) -> io::Result<LocalRuntime> {
        let own = self.clone();
        Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(move || own.end())
            .build_local(LocalOptions::default())
    }

    /// Notes that the runtime has waited.
    fn end(&self) {
        self.0.store(0, Relaxed);
    }

    /// Whether another task may run. Two threads never do this at once, so that it costs what a
    /// plain load and store do.
    fn take(&self) -> bool {
        let left = self.0.load(Relaxed);
        self.0.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    fn begin(&self) {
        self.0.store(TASKS_PER_READING - 1, Relaxed);
    }
}

/// One reading of the clock for the tasks that run in a row, not one for each who asks.
struct Clock {
    now: Cell<Instant>,
    freshness: Freshness,
    /// Two readings at one moment: what time of day an instant is.
    anchor: Cell<(Instant, SystemTime)>,
    /// The second that `date` says, counted from the anchor.
    date: RefCell<(u64, [u8; 29])>,
}

impl Worker {
    pub(super) fn new(
        id: usize,
        table: Arc<RouteTable>,
        metrics: Arc<WorkerMetrics>,
        settings: Arc<WorkerSettings>,
        tls: Arc<ServerConfig>,
        freshness: Freshness,
    ) -> Self {
        let now = Instant::now();
        let clock = Clock {
            now: Cell::new(now),
            freshness,
            anchor: Cell::new((now, SystemTime::now())),
            date: RefCell::new((u64::MAX, [b' '; 29])),
        };
        Self {
            id,
            table: RefCell::new(table),
            routes: Routes::default(),
            balancers: Balancers::default(),
            pool: Pool::default(),
            retry_budget: RetryBudget::default(),
            metrics,
            settings,
            tls,
            drain: Drain::default(),
            fields: Cell::default(),
            clock,
        }
    }

    /// The route of a request in the table in force; `None` where 404 is the answer.
    pub(super) fn lookup(
        &self,
        host: &CanonicalHost<'_>,
        path: &CanonicalPath<'_>,
        request: &impl Request,
    ) -> Option<Route> {
        let table = self.table.borrow();
        let entry = table.lookup(host, path, request)?;
        Some(self.routes.of(entry))
    }

    /// Puts another table in force, whatever its size by one store. The old one is freed on the
    /// control side, which holds it until no worker does.
    pub(super) fn adopt(&self, table: Arc<RouteTable>) {
        *self.table.borrow_mut() = table;
    }

    /// The balancer of `upstream`, with its endpoints of now.
    pub(super) fn balancer(&self, upstream: &Arc<Upstream>) -> Rc<Balancer> {
        self.balancers.of(upstream, &self.pool, self.id)
    }

    pub(super) fn counters(&self) -> &WorkerCounters {
        &self.metrics.counters
    }

    /// When the running task was woken, or one shortly before it.
    pub(super) fn now(&self) -> Instant {
        self.clock.now.get()
    }

    /// Reads the clock where its last reading is old; called first when a task runs.
    pub(super) fn tick(&self) {
        if !self.clock.freshness.take() {
            self.read_clock();
        }
    }

    fn read_clock(&self) {
        self.clock.now.set(Instant::now());
        self.clock.freshness.begin();
    }

    /// The time of day as a `Date` field says it (RFC 9110 section 5.6.7).
    pub(super) fn date(&self) -> [u8; 29] {
        let (instant, time) = self.clock.anchor.get();
        let since = self.now().saturating_duration_since(instant);
        let mut date = self.clock.date.borrow_mut();
        if date.0 != since.as_secs() {
            let text = httpdate::fmt_http_date(time + since);
            if let Ok(text) = text.as_bytes().try_into() {
                *date = (since.as_secs(), text);
            }
        }
        date.1
    }

    /// What has to be done now and then.
    pub(super) fn sweep(&self) {
        self.read_clock();
        // The time of day may have been set.
        self.clock.anchor.set((self.now(), SystemTime::now()));
        self.clock.date.borrow_mut().0 = u64::MAX;
        let retirements = self.table.borrow().retirements();
        self.routes.forget_retired(retirements);
        self.balancers.forget_outdated();
        self.pool.sweep(self.now());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::{Resolver, server_config};

    #[test]
    fn a_reading_of_the_clock_serves_eight_tasks_and_none_after_a_wait() {
        let freshness = Freshness::default();
        assert!(!freshness.take(), "nothing was read");
        for _ in 0..2 {
            // The task that reads is the first.
            freshness.begin();
            let others = (0..100).take_while(|_| freshness.take()).count();
            assert_eq!(others + 1, usize::from(TASKS_PER_READING));
        }
        freshness.begin();
        freshness.end();
        assert!(!freshness.take(), "the runtime has waited");
    }

    #[test]
    fn a_worker_that_has_waited_reads_the_clock_again() {
        let freshness = Freshness::default();
        let runtime = freshness.runtime().unwrap();
        let is_fresh = runtime.block_on(async {
            freshness.begin();
            // Nothing else is to be done: the runtime waits.
            tokio::time::sleep(Duration::from_millis(1)).await;
            freshness.take()
        });
        assert!(!is_fresh, "it goes on with the reading from before");
    }

    /// A worker without routes.
    pub(in super::super) fn worker() -> Worker {
        let resolver = Resolver::new().unwrap();
        Worker::new(
            0,
            Arc::default(),
            Arc::default(),
            Arc::default(),
            server_config(resolver).unwrap(),
            Freshness::default(),
        )
    }

    fn date(worker: &Worker) -> SystemTime {
        let date = worker.date();
        let date = std::str::from_utf8(&date).unwrap();
        httpdate::parse_http_date(date).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_reads_the_clock_at_its_first_task_and_after_eight() {
        let worker = worker();
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            tokio::time::advance(second).await;
            worker.tick();
            let read = Instant::now();
            assert_eq!(worker.now(), read, "nothing was read");
            for _ in 1..TASKS_PER_READING {
                tokio::time::advance(second).await;
                worker.tick();
                assert_eq!(worker.now(), read, "it reads more often than it has to");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_is_as_old_as_the_reading_of_the_clock() {
        let worker = worker();
        let mut said = date(&worker);
        for seconds in [1, 1, 60, 86_400] {
            let time = Duration::from_secs(seconds);
            tokio::time::advance(time).await;
            assert_eq!(date(&worker), said);
            worker.read_clock();
            said += time;
            assert_eq!(date(&worker), said);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_takes_the_time_of_day_anew() {
        let worker = worker();
        let before = date(&worker);
        let hour = Duration::from_secs(3600);
        // As if somebody had set the time of day back: it stands still.
        tokio::time::advance(hour).await;
        worker.sweep();
        assert_eq!(worker.now(), Instant::now());
        assert!(date(&worker) < before + hour);
    }
}
