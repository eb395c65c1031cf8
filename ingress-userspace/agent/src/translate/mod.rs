//! Index → snapshot. Pure: the same index gives the same snapshot, and each object stands alone.
//!
//! `class` (whose is it?) → `routes` → `denial` → `backends` and `certificates`.

mod backends;
mod certificates;
mod class;
mod denial;
mod routes;

use std::collections::BTreeMap;

use k8s_openapi::{api::networking::v1::Ingress, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use self::routes::Translated;
use super::{
    Settings,
    index::{Index, Item},
};
use ingress_model::{ObjectName, Problem, Seniority, Severity, Snapshot};

/// Translates everything known.
pub(super) fn snapshot(index: &Index, settings: &Settings) -> Snapshot {
    let mut skipped = index.skipped.clone();
    let mut problems = index.problems.clone();
    let mut ours = Vec::new();
    for (name, item) in index.ingresses.iter() {
        if class::serves(&item.object, index, settings) {
            ours.push(Claim {
                name,
                created: created(&item.object.metadata),
                item,
            });
        } else {
            *skipped
                .entry("networking.k8s.io/v1/Ingress of another class".to_owned())
                .or_default() += 1;
        }
    }
    ours.sort_by_cached_key(Claim::seniority);

    let mut translated: Vec<_> = ours
        .iter()
        .map(|claim| (claim, routes::translate(claim, &mut problems)))
        .collect();
    denial::spread(&mut translated, &mut problems);
    let mut routes = Vec::new();
    let mut named = BTreeMap::new();
    for (claim, translated) in translated {
        for (route, field) in translated.routes {
            named
                .entry(route.backend.clone())
                .or_insert_with(|| (claim.report(), field));
            routes.push(route);
        }
    }
    let backends = backends::resolve(index, settings, named, &mut problems);
    let (certificates, tls_hosts) = certificates::collect(index, &ours, &mut problems);
    problems.sort();
    problems.dedup();
    Snapshot {
        routes,
        backends,
        certificates,
        tls_hosts,
        problems,
        skipped,
    }
}

/// An Ingress that is ours to serve.
struct Claim<'a> {
    name: &'a ObjectName,
    /// Seconds since the Unix epoch; 0 where a manifest does not say.
    created: i64,
    item: &'a Item<Ingress>,
}

impl Claim<'_> {
    fn seniority(&self) -> Seniority {
        Seniority::new(self.created, self.name.clone())
    }

    fn report(&self) -> Report {
        Report::of("Ingress", self.name, self.item)
    }
}

/// Whose problem it is.
#[derive(Clone, Debug)]
struct Report {
    object: String,
    file: Option<String>,
}

impl Report {
    fn of<T>(kind: &str, name: &ObjectName, item: &Item<T>) -> Self {
        Self {
            object: format!("{kind} {name}"),
            file: item.file.as_deref().map(str::to_owned),
        }
    }

    fn problem(
        &self,
        severity: Severity,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            severity,
            object: self.object.clone(),
            field: field.into(),
            file: self.file.clone(),
            message: message.into(),
        }
    }

    fn warning(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        self.problem(Severity::Warning, field, message)
    }

    fn error(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        self.problem(Severity::Error, field, message)
    }
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second())
}

#[cfg(test)]
mod tests;
