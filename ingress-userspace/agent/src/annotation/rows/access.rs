//! Who may pass, by address.

use super::super::{
    restrictions::{self, ADDRESSES},
    row::{Otherwise, Risk, Row, Scope, Support},
};

/// The rows.
pub(in super::super) const ROWS: &[Row] = &[
    Row {
        names: &["allowlist-source-range", "whitelist-source-range"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::Denies {
            restricts: restrictions::leaves_someone_out,
            reason: ADDRESSES,
            otherwise: Otherwise::Nothing,
        },
        note: "`0.0.0.0/0,::/0`, which cert-manager writes, asks for nothing.",
    },
    Row {
        names: &["denylist-source-range"],
        scope: Scope::Route,
        risk: Risk::Medium,
        support: Support::Denies {
            restricts: restrictions::always,
            reason: ADDRESSES,
            otherwise: Otherwise::Nothing,
        },
        note: "",
    },
];
