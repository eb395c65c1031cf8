//! Paths, hosts and rewrites.

use super::super::{
    reading::{self, BadValue},
    row::{Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["rewrite-target"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::Read {
            read: reading::rewrite_target,
            bad: BadValue::KeepLastGood,
        },
        note: "Turns every path of the host into a regex. `$1` to `$9` are captures.",
    },
    Row {
        names: &["use-regex"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::use_regex,
            bad: BadValue::KeepLastGood,
        },
        note: "Turns every path of the host into a regex.",
    },
    Row {
        names: &["app-root"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["server-alias"],
        scope: Scope::Host,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["upstream-vhost"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["x-forwarded-prefix"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["enable-rewrite-log"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NoEffect("there is no nginx whose log it would fill"),
        note: "",
    },
];
