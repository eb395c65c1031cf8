//! `/routes`: the table in force, as JSON.

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use ingress_model::{Action, Endpoint, HostPattern, PathKind};
use ingress_proxy::table::{Entry, RouteTable};

/// One row of `/routes`.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    host: String,
    path: String,
    path_type: PathKind,
    ingress: String,
    backend: String,
    endpoints: Vec<EndpointRow>,
    redirect_to_https: bool,
    /// Why its requests get 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrite_target: Option<Box<str>>,
}

#[derive(Debug, Serialize)]
struct EndpointRow {
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Box<str>>,
}

/// All rules of the table: hosts as they are sorted, rules by precedence.
pub(super) fn list(table: &RouteTable) -> Vec<Row> {
    let row = |(host, entry): (HostPattern, Arc<Entry>)| {
        let targets = match &entry.rule.action {
            Action::Forward(split) => split.targets(),
            Action::Redirect(_) | Action::Respond(_) | Action::Deny(_) => &[],
        };
        let backends: Vec<_> = targets
            .iter()
            .map(|target| target.upstream.backend.to_string())
            .collect();
        let endpoints = entry.upstreams().iter().flat_map(|upstream| {
            let endpoints = upstream.endpoints();
            let row = |endpoint: &Endpoint| EndpointRow {
                address: endpoint.address,
                pod: endpoint.pod.clone(),
            };
            endpoints.iter().map(row).collect::<Vec<_>>()
        });
        Row {
            host: host.to_string(),
            path: entry.rule.path.as_str().to_owned(),
            path_type: entry.rule.path.kind(),
            ingress: entry.rule.source.name.to_string(),
            backend: backends.join(","),
            endpoints: endpoints.collect(),
            redirect_to_https: entry.redirects_to_https(),
            denied: entry.denied().map(Into::into),
            rewrite_target: entry.rule.policy.rewrite_target.clone(),
        }
    };
    table.entries().into_iter().map(row).collect()
}
