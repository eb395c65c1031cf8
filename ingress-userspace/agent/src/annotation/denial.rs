//! Why an Ingress cannot be served as it asks.

use super::registry::Scope;

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
