//! Everything the cluster (or the folder) says at one moment.

use std::collections::BTreeMap;

use super::{Backend, BackendKey, Certificate, HostPattern, Problem, Route};

/// One complete, immutable state: what crosses from the agent to the workers.
///
/// Whole or absent: none exists before the first lists are complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// In no particular order; the table ranks them.
    pub routes: Vec<Route>,
    /// One for each key that a route names, also where the Service is missing (then without
    /// endpoints).
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Oldest Ingress first: the first that names a host wins it.
    pub certificates: Vec<Certificate>,
    /// Hosts with a `spec.tls` entry, with or without a usable Secret: what `ssl-redirect` asks.
    pub tls_hosts: Vec<HostPattern>,
    /// What is wrong with which object, sorted.
    pub problems: Vec<Problem>,
    /// Objects of kinds that Forebay does not read, by `apiVersion/kind`.
    pub skipped: BTreeMap<String, u64>,
}
