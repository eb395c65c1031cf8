//! The state of the cluster or folder at one moment.

use std::collections::BTreeMap;

use super::{Backend, BackendKey, Certificate, HostPattern, Problem, Route};

/// One complete, immutable state, which the agent passes to the workers.
///
/// None exists before the first lists are complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// In no particular order; the table ranks them.
    pub routes: Vec<Route>,
    /// One per key in a route, even if the Service is missing (then without endpoints).
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Oldest Ingress first: the first that names a host wins it.
    pub certificates: Vec<Certificate>,
    /// Hosts with a `spec.tls` entry, with or without a usable Secret; `ssl-redirect` depends on
    /// it.
    pub tls_hosts: Vec<HostPattern>,
    /// Problems with objects, sorted.
    pub problems: Vec<Problem>,
    /// Objects of kinds that Forebay does not read, by `apiVersion/kind`.
    pub skipped: BTreeMap<String, u64>,
}
