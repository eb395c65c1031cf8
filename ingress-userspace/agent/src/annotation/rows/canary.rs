//! A second Ingress that takes a share of the requests of another.

use super::super::row::{Risk, Row, Scope, Support};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["canary"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::Canary,
        note: "The Ingress serves nothing of its own; the main Ingress keeps all requests.",
    },
    Row {
        names: &["canary-by-header"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
    Row {
        names: &["canary-by-header-value"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
    Row {
        names: &["canary-by-header-pattern"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
    Row {
        names: &["canary-by-cookie"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
    Row {
        names: &["canary-weight"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
    Row {
        names: &["canary-weight-total"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "Without effect unless `canary` is on.",
    },
];
