//! Finds the rule of a request.

use std::sync::Arc;

use super::{
    entry::{Entry, Request},
    host::CanonicalHost,
    path::CanonicalPath,
    routes::HostRoutes,
};
use ingress_model::{HostMap, HostPattern};

/// The rules in force. Immutable: a change makes another table, which shares the hosts that did not
/// change.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    pub(super) hosts: HostMap<Arc<HostRoutes>>,
    /// Number of rules, with default backends.
    pub(super) rules: usize,
    /// How many of them are denied.
    pub(super) denied: usize,
    /// Raised when entries leave the table.
    pub(super) retirements: u64,
}

impl RouteTable {
    /// Finds the rule for a request; `None` means 404.
    ///
    /// An exact host takes precedence over a wildcard, a wildcard over rules without a host; only
    /// the first match counts. Then the longest path wins, `Exact` before `Prefix`.
    ///
    /// Source: Kubernetes Ingress, "Multiple matches"; the host rule is that of ingress-nginx.
    pub(crate) fn lookup(
        &self,
        host: &CanonicalHost<'_>,
        path: &CanonicalPath<'_>,
        request: &impl Request,
    ) -> Option<&Arc<Entry>> {
        self.hosts
            .find(host.as_str())?
            .lookup(path.as_bytes(), request)
    }

    /// How many rules are in force, with default backends.
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// How many of them are denied.
    pub fn denied(&self) -> usize {
        self.denied
    }

    /// Changes when entries have left the table since another one.
    pub(crate) fn retirements(&self) -> u64 {
        self.retirements
    }

    /// All rules by host, in a stable order: hosts as they are sorted, rules by precedence.
    ///
    /// Costs what the table is large; for people, not for requests.
    pub fn entries(&self) -> Vec<(HostPattern, Arc<Entry>)> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        hosts.sort_by(|(one, _), (other, _)| one.cmp(other));
        let of = |(host, routes): (HostPattern, &Arc<HostRoutes>)| {
            let entries = routes.entries.iter();
            let pairs = entries.map(|entry| (host.clone(), Arc::clone(entry)));
            pairs.collect::<Vec<_>>()
        };
        hosts.into_iter().flat_map(of).collect()
    }
}
