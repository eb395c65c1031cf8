//! Clients that stay with an endpoint.

use super::super::row::{Risk, Row, Scope, Support};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["affinity"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["affinity-mode"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["affinity-canary-behavior"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-name"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-path"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-max-age"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-expires"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-samesite"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-conditional-samesite-none"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-secure"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-domain"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["session-cookie-change-on-failure"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
];
