//! One path of one rule of one Ingress.

use std::cmp::Reverse;

use super::{BackendKey, HostPattern, ObjectName, PathPattern, Policy};

/// The part of an Ingress that a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// `spec.defaultBackend`: every rule of the same host takes precedence.
    DefaultBackend,
    /// `spec.rules[].http.paths[]`.
    Rule,
}

/// What happens to requests that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// They go to the backend.
    Forward,
    /// They get 503: the route needs protection that Forebay does not support. Holds the reason, in
    /// one line.
    Deny(Box<str>),
}

/// What happens to requests for a host and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The Ingress that defines it.
    pub ingress: ObjectName,
    /// Creation time of that Ingress, in seconds since the Unix epoch; older wins.
    pub created: i64,
    /// Rule or default backend.
    pub origin: Origin,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// The target. Always a key of [`Snapshot::backends`](super::Snapshot::backends).
    pub backend: BackendKey,
    /// Forward or deny.
    pub action: RouteAction,
    /// How.
    pub policy: Policy,
}

/// Precedence if two Ingresses claim the same thing; the lowest wins.
///
/// Older by creation time; on a tie the greater `namespace/name`, as ingress-nginx has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seniority {
    created: i64,
    name: Reverse<ObjectName>,
}

impl Seniority {
    /// Seniority of the Ingress `name`, created at this many seconds since the Unix epoch.
    pub fn new(created: i64, name: ObjectName) -> Self {
        Self {
            created,
            name: Reverse(name),
        }
    }
}

impl Route {
    /// Seniority of the Ingress that defines this route.
    pub fn seniority(&self) -> Seniority {
        Seniority::new(self.created, self.ingress.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_goes_first_and_on_a_tie_the_greater_name() {
        let seniority = |created, namespace: &str, name: &str| {
            Seniority::new(created, ObjectName::new(namespace, name))
        };
        for (first, second) in [
            (seniority(1, "a", "a"), seniority(2, "z", "z")),
            (seniority(1, "a", "b"), seniority(1, "a", "a")),
            (seniority(1, "b", "a"), seniority(1, "a", "b")),
        ] {
            assert!(first < second, "{first:?} {second:?}");
        }
    }
}
