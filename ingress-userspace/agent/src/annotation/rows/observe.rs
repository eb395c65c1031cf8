//! Responses, mirrors, logs, and snippets.

use super::super::{
    restrictions::{MODSECURITY, SNIPPET, TEMPLATES},
    row::{Otherwise, Risk, Row, Scope, Support},
    snippet,
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["configuration-snippet"],
        scope: Scope::Route,
        risk: Risk::Critical,
        support: Support::Denies {
            restricts: snippet::may_restrict,
            reason: SNIPPET,
            otherwise: Otherwise::Never(TEMPLATES),
        },
        note: "Denies unless it only sets headers of responses and the like.",
    },
    Row {
        names: &["server-snippet"],
        scope: Scope::Host,
        risk: Risk::Critical,
        support: Support::Denies {
            restricts: snippet::may_restrict,
            reason: SNIPPET,
            otherwise: Otherwise::Never(TEMPLATES),
        },
        note: "Denies unless it only sets headers of responses and the like.",
    },
    Row {
        names: &["modsecurity-snippet"],
        scope: Scope::Route,
        risk: Risk::Critical,
        support: Support::Denies {
            restricts: snippet::turns_modsecurity_on,
            reason: MODSECURITY,
            otherwise: Otherwise::Never(TEMPLATES),
        },
        note: "Denies if it turns the engine on.",
    },
    Row {
        names: &["stream-snippet"],
        scope: Scope::Host,
        risk: Risk::Critical,
        support: Support::Never(TEMPLATES),
        note: "",
    },
    Row {
        names: &["custom-headers"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["custom-http-errors"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["default-backend"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["disable-proxy-intercept-errors"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["mirror-target"],
        scope: Scope::Route,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["mirror-request-body"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["mirror-host"],
        scope: Scope::Route,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["enable-access-log"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["enable-opentelemetry"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["opentelemetry-trust-incoming-span"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["opentelemetry-operation-name"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["enable-modsecurity"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["enable-owasp-core-rules"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["modsecurity-transaction-id"],
        scope: Scope::Route,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
];
