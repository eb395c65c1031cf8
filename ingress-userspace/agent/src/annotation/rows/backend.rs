//! How backends are chosen and spoken to.

use super::super::{
    restrictions::{self, BACKEND_PROTOCOL},
    row::{Otherwise, Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["backend-protocol"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Denies {
            restricts: restrictions::is_not_plain_http,
            reason: BACKEND_PROTOCOL,
            otherwise: Otherwise::Nothing,
        },
        note: "`HTTP` asks for what every route has.",
    },
    Row {
        names: &["service-upstream"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["load-balance"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["upstream-hash-by"],
        scope: Scope::Upstream,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["upstream-hash-by-subset"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["upstream-hash-by-subset-size"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["fastcgi-index"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["fastcgi-params-configmap"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
];
