//! What is known of one annotation: what it is for, how it reads, and what happens where it cannot be
//! honoured.

use super::reading::{BadValue, Read};

/// What a setting applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The rules of the Ingress.
    Route,
    /// All rules of its hosts: nginx has the setting once per server.
    Host,
    /// How the backends of the Ingress are spoken to.
    Upstream,
}

/// How much harm whoever may write the annotation can do with it, as ingress-nginx rates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Risk {
    Low,
    Medium,
    High,
    Critical,
}

/// What becomes of an annotation.
pub(super) enum Support {
    /// It is part of a policy.
    Read {
        /// Sets it from a value.
        read: Read,
        /// What a value that cannot be read does.
        bad: BadValue,
    },
    /// It says who may pass, or how a backend must be spoken to, and that cannot be done: where it
    /// asks for something, requests get 503.
    Denies {
        /// Whether a value that is not empty asks for something.
        restricts: fn(&str) -> bool,
        /// Lower case, no full stop.
        reason: &'static str,
        /// What becomes of a value that asks for nothing.
        otherwise: Otherwise,
    },
    /// It makes the Ingress a canary of another one.
    Canary,
    /// It has no effect here, with a warning.
    NotYet,
    /// It asks for nothing that a proxy without nginx could lack: why.
    NoEffect(&'static str),
    /// Not at all, with a warning: why.
    Never(&'static str),
}

/// What becomes of a value that does not restrict.
pub(super) enum Otherwise {
    /// It asks for nothing, or for what every route has.
    Nothing,
    /// It is ignored, with a warning: why.
    Never(&'static str),
}

/// One annotation.
pub(super) struct Row {
    /// Its name without a prefix, and its other names. Of several, the first counts.
    pub(super) names: &'static [&'static str],
    pub(super) scope: Scope,
    pub(super) risk: Risk,
    pub(super) support: Support,
    /// For the reference page.
    pub(super) note: &'static str,
}
