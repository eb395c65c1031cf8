//! All rules of one host, in the order that decides between them.

use serde::{Deserialize, Serialize};

use super::{ObjectName, Rule};

/// The rules of one host and what holds for all of them.
///
/// The agent has settled who wins: no two rules claim the same thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Without regex mode the longest path wins, `Exact` before `Prefix`; among rules of one path
    /// the first whose conditions are met. In regex mode every rule has a regex, and the first that
    /// matches wins.
    pub rules: Vec<Rule>,
    /// For requests that no rule matches (`spec.defaultBackend`): the first that has an endpoint,
    /// else the first.
    pub fallbacks: Vec<Rule>,
    /// What holds for all rules.
    pub policy: HostPolicy,
}

/// What is set once per host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// The host, or the wildcard above it, has a TLS entry, with or without a usable Secret:
    /// `ssl-redirect` applies.
    pub tls: bool,
    /// The Secret whose certificate is served; without one that of the wildcard above, or the
    /// default certificate.
    pub certificate: Option<ObjectName>,
    /// The wildcard above came later and is another tenant's: its certificate is never served.
    pub ignores_wildcard: bool,
}
