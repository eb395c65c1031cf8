//! Why a request to the API server failed, for the next try and for a person.

use std::error::Error;

use kube::{Resource, core::Status};

use super::pace::Class;

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// The server no longer knows the version that was asked for, or not yet.
    pub(super) forgotten: bool,
    /// The server does not know the parameters.
    pub(super) unsupported: bool,
    /// One line.
    pub(super) reason: String,
}

impl Failure {
    /// The server did not say what was due.
    pub(super) fn unanswered(reason: impl Into<String>) -> Self {
        Self {
            class: Class::Unanswered,
            forgotten: false,
            unsupported: false,
            reason: reason.into(),
        }
    }

    /// A request for `K` that was to `verb` failed.
    pub(super) fn of<K: Resource<DynamicType = ()>>(verb: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::refused::<K>(verb, status),
            error => Self::unanswered(causes(error)),
        }
    }

    /// The server refused to `verb` objects of kind `K`.
    pub(super) fn refused<K: Resource<DynamicType = ()>>(verb: &str, status: &Status) -> Self {
        let said = match status.message.trim() {
            "" => format!("status {}", status.code),
            message => message.to_owned(),
        };
        let reason = if status.code == 403 {
            let resource = resource::<K>();
            format!(
                "may not {verb} {resource}: grant list and watch on {resource} in the ClusterRole \
                 of Forebay's ServiceAccount ({said})"
            )
        } else {
            said
        };
        let too_new = status.details.as_ref().is_some_and(|details| {
            let too_large = |cause: &kube::core::response::StatusCause| {
                cause.reason == "ResourceVersionTooLarge"
            };
            details.causes.iter().any(too_large)
        });
        Self {
            class: Class::Refused,
            forgotten: status.code == 410 || too_new,
            unsupported: matches!(status.code, 400 | 422),
            // A status may have several lines.
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// As RBAC names it: `ingresses.networking.k8s.io`, or `secrets` of the core group.
fn resource<K: Resource<DynamicType = ()>>() -> String {
    match (K::plural(&()), K::group(&())) {
        (plural, group) if group.is_empty() => plural.into_owned(),
        (plural, group) => format!("{plural}.{group}"),
    }
}

/// The error and its causes; kube's own errors print some of them themselves.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
