//! Turns snapshots into what the workers use, and shows what came of it.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{oneshot, watch};

use ingress_agent::Feed;
use ingress_model::{Problem, Severity, Snapshot};
use ingress_proxy::{
    metrics::{Kind, Registry},
    table::{Entry, RouteTable},
    tls,
    upstream::Upstreams,
};

use crate::admin::{Readiness, SourceStatus, Status};

/// Compiles each snapshot and swaps it in whole.
pub(super) struct Publisher {
    metrics: Arc<Registry>,
    upstreams: Upstreams,
    /// What the table in force was compiled from, and what was wrong with it.
    compiled: Option<(Arc<Snapshot>, Vec<Problem>)>,
    resolver: Arc<tls::Resolver>,
    certificates: Option<Arc<tls::Certificates>>,
    tables: watch::Sender<Arc<RouteTable>>,
    status: watch::Sender<Arc<Status>>,
}

impl Publisher {
    /// Starts with an empty table, which no worker sees: they are spawned after the first whole
    /// one.
    pub(super) fn new(
        status: Status,
        resolver: Arc<tls::Resolver>,
        metrics: Arc<Registry>,
    ) -> (
        Self,
        watch::Receiver<Arc<RouteTable>>,
        watch::Receiver<Arc<Status>>,
    ) {
        let (tables, table_updates) = watch::channel(Arc::new(RouteTable::default()));
        let (status, status_updates) = watch::channel(Arc::new(status));
        (
            Self {
                metrics,
                upstreams: Upstreams::default(),
                compiled: None,
                resolver,
                certificates: None,
                tables,
                status,
            },
            table_updates,
            status_updates,
        )
    }

    /// Where TLS finds the certificates.
    pub(super) fn resolver(&self) -> Arc<tls::Resolver> {
        Arc::clone(&self.resolver)
    }

    /// Publishes every snapshot of the feed; tells `first` when one is in force.
    ///
    /// Ends when the agent does; the last table stays.
    pub(super) async fn follow(
        &mut self,
        mut feed: Feed,
        kind: &'static str,
        first: oneshot::Sender<()>,
    ) {
        let mut first = Some(first);
        let mut published: Option<Arc<Snapshot>> = None;
        loop {
            let state = serde_json::to_value(&*feed.state.borrow_and_update()).unwrap_or_default();
            self.change_status(|status| status.source = SourceStatus { kind, state });
            let latest = feed.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = latest.filter(|latest| {
                published
                    .as_ref()
                    .is_none_or(|last| !Arc::ptr_eq(last, latest))
            }) {
                self.publish(Arc::clone(&snapshot));
                published = Some(snapshot);
                if let Some(first) = first.take() {
                    // Nobody waits any more when the process is about to stop.
                    let _ = first.send(());
                }
            }
            let gone = tokio::select! {
                changed = feed.snapshots.changed() => changed.is_err(),
                changed = feed.state.changed() => changed.is_err(),
            };
            if gone {
                tracing::error!("agent stopped; the last table stays in force");
                return;
            }
        }
    }

    /// Endpoints and certificates first, so that no route is in force before them.
    fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.upstreams.adopt(&snapshot.backends);
        let (certificates, tls_problems) =
            tls::Certificates::compile(&snapshot, self.certificates.as_deref());
        let expiries = certificates
            .expiries()
            .map(|(secret, expiry)| (secret.to_string(), expiry))
            .collect();
        let certificates = Arc::new(certificates);
        self.resolver.publish(Arc::clone(&certificates));
        self.certificates = Some(certificates);

        let mut problems = snapshot.problems.clone();
        problems.extend(tls_problems);
        problems.extend_from_slice(self.compile(&snapshot));
        problems.sort();
        problems.dedup();
        log_changes(&self.status.borrow().problems, &problems);
        let table = Arc::clone(&self.tables.borrow());
        let routes = table.entries().len();
        let denied = |entry: &&Arc<Entry>| entry.denied().is_some();
        let denied_routes = table.entries().iter().filter(denied).count();
        self.change_status(|status| {
            status.routes = routes;
            status.denied_routes = denied_routes;
            status.certificates = expiries;
            status.skipped.clone_from(&snapshot.skipped);
            status.problems = problems;
        });
    }

    /// Puts the routes of `snapshot` in force, unless they already are: other endpoints compile
    /// nothing. Gives what is wrong with the routes.
    fn compile(&mut self, snapshot: &Arc<Snapshot>) -> &[Problem] {
        let is_same = self.compiled.as_ref().is_some_and(|(last, _)| {
            last.routes == snapshot.routes
                && last.tls_hosts == snapshot.tls_hosts
                && last.backends.keys().eq(snapshot.backends.keys())
        });
        if is_same {
            tracing::debug!("new endpoints or certificates");
        } else {
            let (table, problems) = RouteTable::compile(snapshot, &self.upstreams, &self.metrics);
            tracing::info!(routes = table.entries().len(), "new table");
            self.tables.send_replace(Arc::new(table));
            self.change_status(|status| status.changed = Some(SystemTime::now()));
            self.compiled = Some((Arc::clone(snapshot), problems));
        }
        self.compiled.as_ref().map_or(&[], |(_, problems)| problems)
    }

    fn change_status(&self, change: impl FnOnce(&mut Status)) {
        self.status
            .send_modify(|status| change(Arc::make_mut(status)));
    }
}

/// Logs each problem once when it appears and once when it is gone. Both lists are sorted.
fn log_changes(before: &[Problem], now: &[Problem]) {
    for problem in now
        .iter()
        .filter(|problem| before.binary_search(problem).is_err())
    {
        let Problem {
            severity,
            object,
            field,
            file,
            message,
        } = problem;
        let file = file.as_deref().unwrap_or_default();
        tracing::warn!(
            ?severity,
            object,
            field,
            file,
            problem = message,
            "object has a problem"
        );
    }
    for problem in before
        .iter()
        .filter(|problem| now.binary_search(problem).is_err())
    {
        tracing::info!(%problem, "problem resolved");
    }
}

/// Shows the status in the metrics, too.
pub(super) fn expose(
    metrics: &Registry,
    status: watch::Receiver<Arc<Status>>,
    readiness: watch::Receiver<Readiness>,
) {
    metrics.collect_with(Box::new(move |exposition| {
        let status = status.borrow().clone();
        let mut gauge = |name: &str, help: &str, samples: &[Sample<'_>]| {
            exposition.family(name, Kind::Gauge, help);
            for (labels, value) in samples {
                exposition.sample(name, labels.as_slice(), value);
            }
        };
        gauge(
            "forebay_build_info",
            "Version of the binary; always 1.",
            &[(vec![("version", status.version)], 1)],
        );
        gauge(
            "forebay_ready",
            "1 while a whole table is in force and workers accept.",
            &[(vec![], readiness.borrow().is_ready().into())],
        );
        gauge(
            "forebay_routes",
            "Routes in force.",
            &[(vec![], count(status.routes))],
        );
        gauge(
            "forebay_denied_routes",
            "Routes in force that answer 503, because they ask for protection that cannot be given.",
            &[(vec![], count(status.denied_routes))],
        );
        let problems = |severity| {
            let of = |problem: &&Problem| problem.severity == severity;
            count(status.problems.iter().filter(of).count())
        };
        gauge(
            "forebay_object_problems",
            "Problems of objects, as /status lists them.",
            &[
                (vec![("severity", "warning")], problems(Severity::Warning)),
                (vec![("severity", "error")], problems(Severity::Error)),
            ],
        );
        let expiries: Vec<Sample<'_>> = status
            .certificates
            .iter()
            .map(|(secret, expiry)| (vec![("secret", secret.as_str())], *expiry))
            .collect();
        gauge(
            "forebay_certificate_expiry_timestamp_seconds",
            "When the certificate of a Secret expires.",
            &expiries,
        );
        let changed = status
            .changed
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .unwrap_or_default();
        gauge(
            "forebay_table_changed_timestamp_seconds",
            "When the table last changed.",
            &[(vec![], i64::try_from(changed.as_secs()).unwrap_or(i64::MAX))],
        );
        gauge(
            "forebay_data_plane_degraded",
            "1 when connections are not steered as asked.",
            &[(
                vec![("mode", &*status.data_plane.mode)],
                status.data_plane.degraded.is_some().into(),
            )],
        );
    }));
}

/// Labels and value.
type Sample<'a> = (Vec<(&'a str, &'a str)>, i64);

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use super::*;
    use ingress_model::{
        Backend, BackendKey, Endpoint, ObjectName, Origin, PathKind, PathPattern, Policy, Route,
        RouteAction, ServicePort,
    };

    fn key(service: &str) -> BackendKey {
        BackendKey {
            service: ObjectName::new("shop", service),
            port: ServicePort::Number(80),
        }
    }

    fn route(service: &str) -> Route {
        Route {
            ingress: ObjectName::new("shop", "web"),
            created: 0,
            origin: Origin::Rule,
            host: "a.test".parse().unwrap(),
            path: PathPattern::new(PathKind::Prefix, "/").unwrap(),
            backend: key(service),
            action: RouteAction::Forward,
            policy: Policy::default(),
        }
    }

    fn backends(ports: &[(&str, u16)]) -> BTreeMap<BackendKey, Backend> {
        let backend = |(service, port): &(&str, u16)| {
            let address = SocketAddr::from(([192, 0, 2, 1], *port));
            let endpoints = vec![Endpoint { address, pod: None }];
            let key = key(service);
            (key.clone(), Backend { key, endpoints })
        };
        ports.iter().map(backend).collect()
    }

    #[test]
    fn only_what_a_table_is_made_of_compiles_one_and_endpoints_reach_the_table_in_force() {
        let first = Snapshot {
            routes: vec![route("a")],
            backends: backends(&[("a", 1)]),
            ..Snapshot::default()
        };
        let denied = Route {
            action: RouteAction::Deny("no".into()),
            ..route("a")
        };
        for (what, next, compiles, port) in [
            ("nothing", first.clone(), false, 1),
            (
                "endpoints",
                Snapshot {
                    backends: backends(&[("a", 2)]),
                    ..first.clone()
                },
                false,
                2,
            ),
            (
                "problems",
                Snapshot {
                    skipped: [("v1/Pod".to_owned(), 1)].into(),
                    ..first.clone()
                },
                false,
                1,
            ),
            (
                "routes",
                Snapshot {
                    routes: vec![denied],
                    ..first.clone()
                },
                true,
                1,
            ),
            (
                "hosts with TLS",
                Snapshot {
                    tls_hosts: vec!["a.test".parse().unwrap()],
                    ..first.clone()
                },
                true,
                1,
            ),
            (
                "backends",
                Snapshot {
                    backends: backends(&[("a", 1), ("b", 1)]),
                    ..first.clone()
                },
                true,
                1,
            ),
        ] {
            let (mut publisher, mut tables, status) = Publisher::new(
                Status::default(),
                tls::Resolver::new().unwrap(),
                Arc::new(Registry::new(1)),
            );
            publisher.publish(Arc::new(first.clone()));
            tables.borrow_and_update();
            let changed = status.borrow().changed;
            assert!(changed.is_some());
            publisher.publish(Arc::new(next));
            assert_eq!(tables.has_changed().unwrap(), compiles, "{what}");
            assert_eq!(status.borrow().changed != changed, compiles, "{what}");
            let table = tables.borrow_and_update();
            let address = table.entries()[0].upstream.endpoints()[0].address;
            assert_eq!(address.port(), port, "{what}");
        }
    }

    #[test]
    fn denied_routes_are_counted_and_problems_outlive_a_change_of_endpoints() {
        let denied = Route {
            action: RouteAction::Deny("no".into()),
            ..route("a")
        };
        let first = Snapshot {
            // The second has host and path of the first.
            routes: vec![denied, route("a")],
            backends: backends(&[("a", 1)]),
            ..Snapshot::default()
        };
        let (mut publisher, _tables, status) = Publisher::new(
            Status::default(),
            tls::Resolver::new().unwrap(),
            Arc::new(Registry::new(1)),
        );
        for port in [1, 2] {
            publisher.publish(Arc::new(Snapshot {
                backends: backends(&[("a", port)]),
                ..first.clone()
            }));
            let status = status.borrow();
            assert_eq!((status.routes, status.denied_routes), (1, 1), "{port}");
            assert_eq!(status.problems.len(), 1, "{port}: {:?}", status.problems);
        }
    }
}
