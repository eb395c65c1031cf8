//! Bodies, buffers, times and retries.

use super::super::{
    reading::{self, BadValue},
    row::{Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["proxy-body-size"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::Read {
            read: reading::body_size,
            bad: BadValue::Default,
        },
        note: "Default 1m; 0 is no limit.",
    },
    Row {
        names: &["proxy-connect-timeout"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::connect_timeout,
            bad: BadValue::Default,
        },
        note: "Whole seconds, 1 to 3600; more counts as 3600.",
    },
    Row {
        names: &["proxy-read-timeout"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::read_timeout,
            bad: BadValue::Default,
        },
        note: "Whole seconds, 1 to 86400; more counts as 86400.",
    },
    Row {
        names: &["proxy-send-timeout"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::send_timeout,
            bad: BadValue::Default,
        },
        note: "Whole seconds, 1 to 86400; more counts as 86400.",
    },
    Row {
        names: &["proxy-next-upstream"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::Read {
            read: reading::next_upstream,
            bad: BadValue::Default,
        },
        note: "",
    },
    Row {
        names: &["proxy-next-upstream-tries"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::next_upstream_tries,
            bad: BadValue::Default,
        },
        note: "",
    },
    Row {
        names: &["proxy-next-upstream-timeout"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::Read {
            read: reading::next_upstream_timeout,
            bad: BadValue::Default,
        },
        note: "",
    },
    Row {
        names: &["proxy-buffering"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-request-buffering"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-buffer-size"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-buffers-number"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-busy-buffers-size"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-max-temp-file-size"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["client-body-buffer-size"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-http-version"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-cookie-domain"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-cookie-path"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-redirect-from"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-redirect-to"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["connection-proxy-header"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["http2-push-preload"],
        scope: Scope::Route,
        risk: Risk::Low,
        support: Support::NoEffect("no client takes pushes any more"),
        note: "",
    },
];
