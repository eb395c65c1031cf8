//! Redirects.

use super::super::{
    reading::{self, BadValue},
    row::{Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["ssl-redirect"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::ssl_redirect,
            bad: BadValue::Default,
        },
        note: "308, where the host has a TLS entry.",
    },
    Row {
        names: &["force-ssl-redirect"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::Read {
            read: reading::force_ssl_redirect,
            bad: BadValue::Default,
        },
        note: "308, with or without a TLS entry.",
    },
    Row {
        names: &["preserve-trailing-slash"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["permanent-redirect"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["permanent-redirect-code"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["temporal-redirect"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["temporal-redirect-code"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["from-to-www-redirect"],
        scope: Scope::Host,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["relative-redirects"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["use-port-in-redirects"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
];
