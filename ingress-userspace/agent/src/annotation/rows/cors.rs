//! Cross-origin requests.

use super::super::row::{Risk, Row, Scope, Support};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["enable-cors"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-allow-origin"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-allow-methods"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-allow-headers"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-allow-credentials"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-expose-headers"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["cors-max-age"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
];
