//! How much a client may ask for.

use super::super::row::{Risk, Row, Scope, Support};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["limit-rps"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-rpm"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-burst-multiplier"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-connections"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-allowlist", "limit-whitelist"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-rate"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["limit-rate-after"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
];
