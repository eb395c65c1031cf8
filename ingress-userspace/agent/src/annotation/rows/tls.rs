//! TLS in front of the proxy and to backends.

use super::super::{
    restrictions::{self, PASSTHROUGH},
    row::{Otherwise, Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["ssl-passthrough"],
        scope: Scope::Host,
        risk: Risk::Low,
        support: Support::Denies {
            restricts: restrictions::unless_off,
            reason: PASSTHROUGH,
            otherwise: Otherwise::Nothing,
        },
        note: "",
    },
    Row {
        names: &["ssl-ciphers"],
        scope: Scope::Host,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["ssl-prefer-server-ciphers"],
        scope: Scope::Host,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-secret"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-verify"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-name"],
        scope: Scope::Upstream,
        risk: Risk::High,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-server-name"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-verify-depth"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-protocols"],
        scope: Scope::Upstream,
        risk: Risk::Low,
        support: Support::NotYet,
        note: "",
    },
    Row {
        names: &["proxy-ssl-ciphers"],
        scope: Scope::Upstream,
        risk: Risk::Medium,
        support: Support::NotYet,
        note: "",
    },
];
