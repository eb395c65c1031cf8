//! What happens to requests for a host and a path.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ObjectRef, PathPattern, PathRegex, RoutePolicy, UpstreamKey};

/// One rule of a host, from one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The Ingress that defines it.
    pub source: Arc<ObjectRef>,
    /// Which paths, as written.
    pub path: PathPattern,
    /// The path as a regex; set for every rule of a host in regex mode, and for no other.
    pub regex: Option<PathRegex>,
    /// What else a request must have.
    pub conditions: Conditions,
    /// How requests are handled.
    pub policy: Arc<RoutePolicy>,
    /// What happens to them.
    pub action: Action,
}

/// What a request must have beside its host and path; all of it. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// One of these methods; any if empty.
    pub methods: Box<[Box<str>]>,
    /// Each of these headers; names in lower case.
    pub headers: Box<[Condition]>,
    /// Each of these query parameters, as they are written, without decoding.
    pub query: Box<[Condition]>,
}

impl Conditions {
    /// Whether every request meets them.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }
}

/// A header or query parameter that must have a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name.
    pub name: Box<str>,
    /// The whole value, byte by byte.
    pub value: Box<str>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It goes to one of these upstreams.
    Forward(Split),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The client gets this status, without a body.
    Respond(u16),
    /// The client gets 503: the rule needs protection that Forebay does not support. Holds the
    /// reason, in one line.
    Deny(Box<str>),
}

/// Upstreams by weight; never empty, and never all of weight 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Box<[Target]>")]
pub struct Split(Box<[Target]>);

/// One upstream of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The upstream.
    pub upstream: Arc<UpstreamKey>,
    /// Its share, out of the sum of all.
    pub weight: u32,
}

/// A list of targets that no request could be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a split needs a target whose weight is not 0, and a sum of weights below 2^32")]
pub struct SplitError;

impl Split {
    /// All requests to one upstream.
    pub fn all(upstream: Arc<UpstreamKey>) -> Self {
        Self(
            [Target {
                upstream,
                weight: 1,
            }]
            .into(),
        )
    }

    /// Requests to several upstreams.
    ///
    /// # Errors
    /// There is no target, or none has a weight, or the sum of weights is too large.
    pub fn new(targets: impl Into<Box<[Target]>>) -> Result<Self, SplitError> {
        let targets = targets.into();
        let total = targets
            .iter()
            .try_fold(0_u32, |sum, target| sum.checked_add(target.weight));
        match total {
            Some(1..) => Ok(Self(targets)),
            _ => Err(SplitError),
        }
    }

    /// The targets in the order in which they are written.
    pub fn targets(&self) -> &[Target] {
        &self.0
    }
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, Box<str>)")]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The value of `Location`: a URL or an absolute path, in visible ASCII.
    pub location: Box<str>,
}

/// A redirect that no client would follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Not a status that redirects.
    #[error("{0} is not one of 301, 302, 303, 307, 308")]
    Status(u16),
    /// Empty, or not visible ASCII.
    #[error("the location has a character that a header value may not have, or none at all")]
    Location,
}

impl Redirect {
    /// Checks both parts.
    ///
    /// # Errors
    /// One of them cannot be part of a response that redirects.
    pub fn new(status: u16, location: impl Into<Box<str>>) -> Result<Self, RedirectError> {
        let location = location.into();
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(RedirectError::Status(status));
        }
        if location.is_empty() || !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RedirectError::Location);
        }
        Ok(Self { status, location })
    }
}

impl TryFrom<Box<[Target]>> for Split {
    type Error = SplitError;

    fn try_from(targets: Box<[Target]>) -> Result<Self, SplitError> {
        Self::new(targets)
    }
}

impl TryFrom<(u16, Box<str>)> for Redirect {
    type Error = RedirectError;

    fn try_from((status, location): (u16, Box<str>)) -> Result<Self, RedirectError> {
        Self::new(status, location)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{BackendKey, ObjectName, ServicePort, UpstreamPolicy},
        *,
    };

    fn target(weight: u32) -> Target {
        let backend = BackendKey {
            service: ObjectName::new("shop", "web"),
            port: ServicePort::Number(80),
        };
        let policy = UpstreamPolicy::default();
        Target {
            upstream: Arc::new(UpstreamKey { backend, policy }),
            weight,
        }
    }

    #[test]
    fn conditions_are_empty_only_where_there_is_none_of_any_kind() {
        let none = Conditions::default();
        assert!(none.is_empty());
        let condition = || {
            let (name, value) = ("a".into(), "b".into());
            [Condition { name, value }].into()
        };
        for conditions in [
            Conditions {
                methods: ["GET".into()].into(),
                ..none.clone()
            },
            Conditions {
                headers: condition(),
                ..none.clone()
            },
            Conditions {
                query: condition(),
                ..none
            },
        ] {
            assert!(!conditions.is_empty(), "{conditions:?}");
        }
    }

    #[test]
    fn a_split_keeps_its_targets_as_they_were_given() {
        let targets = [target(2), target(0), target(1)];
        let split = Split::new(targets.clone()).unwrap();
        assert_eq!(*split.targets(), targets);
        let one = target(1);
        assert_eq!(*Split::all(Arc::clone(&one.upstream)).targets(), [one]);
    }

    #[test]
    fn a_split_has_a_target_that_can_be_chosen() {
        for (weights, fits) in [
            (&[][..], false),
            (&[0], false),
            (&[0, 0], false),
            (&[u32::MAX, 1], false),
            (&[0, 1], true),
            (&[u32::MAX], true),
        ] {
            let targets: Vec<_> = weights.iter().map(|weight| target(*weight)).collect();
            assert_eq!(Split::new(targets).is_ok(), fits, "{weights:?}");
        }
    }

    #[test]
    fn a_redirect_has_a_status_and_a_location_that_clients_follow() {
        for (status, location, fits) in [
            (301, "/a", true),
            (308, "https://example.com/", true),
            (300, "/a", false),
            (200, "/a", false),
            (302, "", false),
            (302, "/a b", false),
            (302, "/a\r\nX: y", false),
            (302, "/é", false),
        ] {
            assert_eq!(
                Redirect::new(status, location).is_ok(),
                fits,
                "{status} {location:?}"
            );
        }
    }
}
