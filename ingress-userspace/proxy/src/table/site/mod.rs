//! Adopts what the agent says, on the control side.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::sync::watch;

use super::{
    entry::{Entry, Slots},
    lookup::RouteTable,
    routes::HostRoutes,
};
use crate::{
    metrics::{Registry, RouteLabels},
    tls::{Certificates, Resolver},
    upstream::Upstreams,
};
use ingress_model::{
    Action, HostPattern, HostRules, ObjectName, Rule, TlsRedirect, Update, UpstreamKey,
};

/// Everything that is served, and the way to change it. Workers see only tables.
#[derive(Debug)]
pub struct Site {
    epoch: Option<u64>,
    metrics: Arc<Registry>,
    upstreams: Upstreams,
    certificates: Certificates,
    resolver: Arc<Resolver>,
    slots: Slots,
    tables: watch::Sender<Arc<RouteTable>>,
    /// Tables that workers may still hold. Freed here, so that no worker stands still for it.
    replaced: Vec<Arc<RouteTable>>,
    /// Entries that left the table and that workers may still hold; likewise.
    retired: Vec<Arc<Entry>>,
    compiled: u64,
}

/// An update to a state that is not the one in force: the whole state has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update is for state {base}, and {in_force:?} is in force")]
pub struct Gap {
    /// What the update changes.
    base: u64,
    /// What there is.
    in_force: Option<u64>,
}

impl Site {
    /// Serves nothing yet; certificates go to `resolver`, counters are those of `metrics`.
    pub fn new(resolver: Arc<Resolver>, metrics: Arc<Registry>) -> Self {
        Self {
            epoch: None,
            metrics,
            upstreams: Upstreams::default(),
            certificates: Certificates::default(),
            resolver,
            slots: Slots::default(),
            tables: watch::Sender::default(),
            replaced: Vec::new(),
            retired: Vec::new(),
            compiled: 0,
        }
    }

    /// The table in force, now and later; empty before the first update.
    pub fn tables(&self) -> watch::Receiver<Arc<RouteTable>> {
        self.tables.subscribe()
    }

    /// How many hosts were compiled so far.
    pub fn compiled(&self) -> u64 {
        self.compiled
    }

    /// When each Secret's certificate expires, in seconds since the Unix epoch.
    pub fn expiries(&self) -> impl Iterator<Item = (&ObjectName, i64)> {
        self.certificates.expiries()
    }

    /// Puts an update in force: endpoints and certificates first, so that no rule is in force
    /// before what it names, then all hosts by one swap. Costs what changed.
    ///
    /// # Errors
    /// It changes another state than the one in force; nothing was done.
    pub fn apply(&mut self, update: &Update) -> Result<(), Gap> {
        if let Some(base) = update.base
            && self.epoch != Some(base)
        {
            return Err(Gap {
                base,
                in_force: self.epoch,
            });
        }
        let is_whole = update.base.is_none();
        for (backend, endpoints) in &update.endpoints {
            let endpoints = endpoints.as_deref();
            self.upstreams.set_endpoints(backend, endpoints);
        }
        let mut table = RouteTable::clone(&self.tables.borrow());
        let mut gone: Vec<HostPattern> = Vec::new();
        if is_whole {
            let known: std::collections::BTreeSet<_> = update
                .endpoints
                .iter()
                .map(|(backend, _)| backend)
                .collect();
            self.upstreams.retain(|backend| known.contains(backend));
            let named: std::collections::BTreeSet<_> =
                update.hosts.iter().map(|(host, _)| host).collect();
            let hosts = table.hosts.iter().map(|(host, _)| host);
            gone.extend(hosts.filter(|host| !named.contains(host)));
        }
        let other_certificates = self.certificates.apply(update);
        let changes = update.hosts.iter();
        let changes = changes.map(|(host, rules)| (host, rules.as_ref()));
        for (host, rules) in changes.chain(gone.iter().map(|host| (host, None))) {
            self.set_host(&mut table, host, rules);
        }
        if other_certificates {
            self.resolver.publish(self.certificates.served());
        }
        self.epoch = Some(update.epoch);
        if !update.hosts.is_empty() || is_whole {
            let replaced = self.tables.send_replace(Arc::new(table));
            self.replaced.push(replaced);
        }
        self.free_replaced();
        Ok(())
    }

    /// Frees what nothing refers to any more; to be called now and then.
    pub fn tidy(&mut self) {
        self.free_replaced();
        self.retired.retain(|entry| Arc::strong_count(entry) > 1);
        self.upstreams.forget_unused();
    }

    fn free_replaced(&mut self) {
        self.replaced.retain(|table| Arc::strong_count(table) > 1);
    }

    fn set_host(
        &mut self,
        table: &mut RouteTable,
        host: &HostPattern,
        rules: Option<&Arc<HostRules>>,
    ) {
        let before = table.hosts.get(host);
        if let (Some(before), Some(rules)) = (before, rules)
            && before.rules == *rules
        {
            return;
        }
        let routes = rules.map(|rules| Arc::new(self.compile(rules)));
        let denied = |routes: &HostRoutes| {
            let entries = routes.entries.iter();
            entries.filter(|entry| entry.denied().is_some()).count()
        };
        if let Some(routes) = &routes {
            table.rules += routes.entries.len();
            table.denied += denied(routes);
        }
        if let Some(before) = table.hosts.set(host, routes) {
            table.rules -= before.entries.len();
            table.denied -= denied(&before);
            for entry in &before.entries {
                entry.retired.store(true, Relaxed);
                self.slots.give_back(entry.slot);
            }
            table.retirements += 1;
            self.retired.extend(before.entries.iter().cloned());
        }
    }

    fn compile(&mut self, rules: &Arc<HostRules>) -> HostRoutes {
        self.compiled += 1;
        let has_tls = rules.policy.tls;
        HostRoutes::new(Arc::clone(rules), |rule| {
            let targets = targets(rule);
            let upstream = |key: &Arc<UpstreamKey>| self.upstreams.of(key);
            let upstreams: Vec<_> = targets
                .iter()
                .map(|target| &target.upstream)
                .map(upstream)
                .collect();
            let mut sum = 0;
            let mut added = |weight: u32| {
                // A split's weights sum up to less than 2^32.
                sum += weight;
                sum
            };
            let weights: Vec<u32> = match targets {
                [] | [_] => Vec::new(),
                several => several.iter().map(|target| added(target.weight)).collect(),
            };
            Arc::new(Entry {
                slot: self.slots.take(),
                retired: false.into(),
                rule: rule.clone(),
                upstreams: upstreams.into(),
                weights: weights.into(),
                counters: self.metrics.route(labels(rule)),
                redirect_to_https: match rule.policy.tls_redirect {
                    TlsRedirect::Never => false,
                    TlsRedirect::WithTls => has_tls,
                    TlsRedirect::Always => true,
                },
            })
        })
    }
}

fn targets(rule: &Rule) -> &[ingress_model::Target] {
    match &rule.action {
        Action::Forward(split) => split.targets(),
        Action::Redirect(_) | Action::Respond(_) | Action::Deny(_) => &[],
    }
}

fn labels(rule: &Rule) -> RouteLabels {
    let first = targets(rule).first();
    let service = first.map(|target| target.upstream.backend.service.name.clone());
    RouteLabels {
        namespace: rule.source.name.namespace.clone(),
        ingress: rule.source.name.name.clone(),
        service: service.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
