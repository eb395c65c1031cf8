//! A worker's view of the table in force: the table, and what this worker keeps beside each entry.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use ahash::AHashSet;

use crate::{
    metrics::{RouteCounters, RouteLabels, WorkerMetrics},
    table::{CanonicalHost, CanonicalPath, Entry, RouteTable},
    upstream::{Pool, RoundRobin},
};
use ingress_model::BackendKey;

/// The table and, by [`Entry::index`], what belongs to its entries.
pub(super) struct Routes {
    table: Arc<RouteTable>,
    targets: Vec<Target>,
    balances: BTreeMap<BackendKey, Rc<RoundRobin>>,
}

/// What one worker keeps of one route.
pub(super) struct Target {
    pub(super) counters: Arc<RouteCounters>,
    pub(super) balance: Rc<RoundRobin>,
}

impl Routes {
    /// Makes the view of `table`; turns of backends go on from where `previous` left them, and
    /// connections to endpoints that are gone are closed.
    pub(super) fn build(
        table: Arc<RouteTable>,
        worker: usize,
        pool: &Pool,
        metrics: &WorkerMetrics,
        previous: Option<&Self>,
    ) -> Self {
        let entries = table.entries();
        let named: AHashSet<_> = entries
            .iter()
            .flat_map(|entry| &entry.backend.endpoints)
            .map(|endpoint| endpoint.address)
            .collect();
        pool.keep(|address| named.contains(address));
        let mut balances = BTreeMap::new();
        let mut targets = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = &entry.backend.key;
            let balance = balances.entry(key.clone()).or_insert_with(|| {
                let before = previous.and_then(|previous| previous.balances.get(key));
                Rc::new(RoundRobin::new(
                    &entry.backend,
                    pool,
                    before.map_or(worker, |before| before.position()),
                ))
            });
            targets.push(Target {
                counters: metrics.route(labels(entry)),
                balance: Rc::clone(balance),
            });
        }
        Self {
            table,
            targets,
            balances,
        }
    }

    /// The route of a request and what this worker keeps of it.
    pub(super) fn lookup(
        &self,
        host: &CanonicalHost<'_>,
        path: &CanonicalPath<'_>,
    ) -> Option<(&Entry, &Target)> {
        let entry = self.table.lookup(host, path)?;
        Some((entry, self.targets.get(entry.index)?))
    }
}

fn labels(entry: &Entry) -> RouteLabels {
    let ingress = &entry.route.ingress;
    RouteLabels {
        namespace: ingress.namespace.clone(),
        ingress: ingress.name.clone(),
        service: entry.backend.key.service.name.clone(),
    }
}
