//! Why an Ingress cannot be served as it asks.

use super::row::Scope;

/// Why an Ingress cannot be served as it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The whole key.
    pub(crate) key: String,
    /// Which rules are denied: those of the Ingress, or all of its hosts.
    pub(crate) scope: Scope,
    /// Lower case, no full stop.
    pub(crate) reason: &'static str,
}

impl Denial {
    /// Every rule is denied while nobody knows what the controller's ConfigMap restricts.
    pub(crate) fn of_unread_globals() -> Self {
        Self {
            key: "ConfigMap".to_owned(),
            scope: Scope::Route,
            reason: "the controller's ConfigMap cannot be read, and may restrict access",
        }
    }

    /// Every rule that does not opt out is denied for a key of the controller's ConfigMap.
    pub(crate) fn of_all(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            scope: Scope::Route,
            reason: "the controller's ConfigMap restricts access in a way that is not supported",
        }
    }
}
