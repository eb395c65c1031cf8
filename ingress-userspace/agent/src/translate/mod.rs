//! Index → snapshot. Pure: the same index gives the same snapshot, and each object stands alone.
//!
//! `class` (whose is it?) → `claim` → `routes` → `denial` → `backends` and `certificates`.

mod backends;
mod certificates;
mod claim;
mod class;
mod denial;
mod routes;

use std::collections::BTreeMap;

use self::claim::Claim;
use super::{index::Index, settings::Settings};
use ingress_model::{Backend, Snapshot};

/// Translates everything known.
pub(super) fn snapshot(index: &Index, settings: &Settings) -> Snapshot {
    let mut skipped = index.skipped.clone();
    let mut problems = index.problems.clone();
    let mut ours = Vec::new();
    for (name, item) in index.objects.ingresses.iter() {
        if class::serves(&item.object, index, settings) {
            ours.push(Claim::new(name, item));
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
    let mut nameless = Vec::new();
    for (claim, translated) in translated {
        for (route, field) in translated.routes {
            match field {
                Some(field) => {
                    named
                        .entry(route.backend.clone())
                        .or_insert_with(|| (claim.subject(), field));
                }
                None => nameless.push(route.backend.clone()),
            }
            routes.push(route);
        }
    }
    let mut backends = backends::resolve(index, settings, named, &mut problems);
    backends.extend(nameless.into_iter().map(|key| {
        let endpoints = Vec::new();
        (key.clone(), Backend { key, endpoints })
    }));
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

#[cfg(test)]
mod tests;
