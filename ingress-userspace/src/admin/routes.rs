//! `/routes`: the table in force, as JSON.

use std::net::SocketAddr;

use serde::Serialize;

use ingress_model::PathKind;
use ingress_proxy::table::RouteTable;

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

/// All routes of the table, in its order.
pub(super) fn list(table: &RouteTable) -> Vec<Row> {
    table
        .entries()
        .iter()
        .map(|entry| Row {
            host: entry.route.host.to_string(),
            path: entry.route.path.as_str().to_owned(),
            path_type: entry.route.path.kind(),
            ingress: entry.route.ingress.to_string(),
            backend: entry.route.backend.to_string(),
            endpoints: entry
                .upstream
                .endpoints()
                .iter()
                .map(|endpoint| EndpointRow {
                    address: endpoint.address,
                    pod: endpoint.pod.clone(),
                })
                .collect(),
            redirect_to_https: entry.redirect_to_https,
            denied: entry.denied().map(Into::into),
            rewrite_target: entry.route.policy.route.rewrite_target.clone(),
        })
        .collect()
}
