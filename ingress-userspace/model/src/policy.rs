//! Settings from annotations as typed values, for a route and for its upstream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All settings from the annotations of one Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How requests are matched and answered.
    pub route: RoutePolicy,
    /// How they are sent to an endpoint.
    pub upstream: UpstreamPolicy,
}

/// How requests of one route are handled. Defaults as in ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// `rewrite-target`: replaces the whole path if the rule's path matches as a regex; `$1` to
    /// `$9` are its captures.
    pub rewrite_target: Option<Box<str>>,
    /// `use-regex`: the rule's path is a regex.
    pub use_regex: bool,
    /// `ssl-redirect` and `force-ssl-redirect`: whether plain HTTP is answered with 308.
    pub tls_redirect: TlsRedirect,
    /// `proxy-body-size`, in bytes; `None` means no limit. Default: 1 MiB.
    pub body_limit: Option<u64>,
}

/// When plain HTTP is redirected to https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TlsRedirect {
    /// Never.
    Never,
    /// If the host has a TLS entry.
    #[default]
    WithTls,
    /// Always: something in front of Forebay terminates TLS.
    Always,
}

/// How requests are sent to the endpoints of an upstream. Defaults as in ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamPolicy {
    /// `proxy-connect-timeout`: for one endpoint to accept a connection. 1 s to 1 h.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`: between two reads from the endpoint. 1 s to 24 h.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`: between two writes to the endpoint. 1 s to 24 h.
    pub send_timeout: Duration,
    /// When a request is retried.
    pub retry: RetryPolicy,
}

/// When a request that may be sent twice is retried on another endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// `proxy-next-upstream-tries`: the most endpoints that one request is sent to; 255 for `0`,
    /// which means no limit.
    pub tries: u8,
    /// `proxy-next-upstream-timeout`: no retry starts later than this after the request arrived;
    /// `None` means no limit.
    pub within: Option<Duration>,
    /// `proxy-next-upstream`: the causes of a retry.
    pub causes: RetryCauses,
}

/// The causes in `proxy-next-upstream`; `off` means none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryCauses {
    /// `error`: the connection failed before the end of the response head.
    pub error: bool,
    /// `timeout`: connecting, sending or waiting for the response took too long.
    pub timeout: bool,
    /// `invalid_header`: the response is not HTTP.
    pub invalid_header: bool,
    /// `non_idempotent`: also POST and PATCH, which the endpoint may already have executed.
    pub non_idempotent: bool,
    /// `http_500` and the like: statuses whose response is discarded. Sorted.
    pub statuses: Box<[u16]>,
}

impl Default for RoutePolicy {
    fn default() -> Self {
        Self {
            rewrite_target: None,
            use_regex: false,
            tls_redirect: TlsRedirect::default(),
            body_limit: Some(1 << 20),
        }
    }
}

impl Default for UpstreamPolicy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 3,
            within: None,
            causes: RetryCauses::default(),
        }
    }
}

impl Default for RetryCauses {
    /// `error timeout`, and `invalid_header`: an endpoint that does not speak HTTP is as good as
    /// dead.
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: true,
            non_idempotent: false,
            statuses: Box::default(),
        }
    }
}

impl RetryCauses {
    /// `off`.
    pub fn none() -> Self {
        Self {
            error: false,
            timeout: false,
            invalid_header: false,
            non_idempotent: false,
            statuses: Box::default(),
        }
    }
}

impl From<RoutePolicy> for Policy {
    fn from(route: RoutePolicy) -> Self {
        Self {
            route,
            ..Self::default()
        }
    }
}

impl From<UpstreamPolicy> for Policy {
    fn from(upstream: UpstreamPolicy) -> Self {
        Self {
            upstream,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_one_part_has_the_defaults_of_the_other() {
        let route = RoutePolicy {
            use_regex: true,
            ..RoutePolicy::default()
        };
        let upstream = UpstreamPolicy {
            read_timeout: Duration::from_secs(1),
            ..UpstreamPolicy::default()
        };
        for (policy, use_regex, seconds) in [
            (Policy::from(route), true, 60),
            (Policy::from(upstream), false, 1),
        ] {
            let parts = (policy.route.use_regex, policy.upstream.read_timeout);
            assert_eq!(parts, (use_regex, Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn off_names_no_cause_of_another_try_and_the_default_three() {
        let named = |causes: &RetryCauses| {
            let RetryCauses {
                error,
                timeout,
                invalid_header,
                non_idempotent,
                statuses,
            } = causes;
            let flags = [*error, *timeout, *invalid_header, *non_idempotent];
            (flags, statuses.len())
        };
        assert_eq!(named(&RetryCauses::none()), ([false; 4], 0));
        let default = RetryCauses::default();
        assert_eq!(named(&default), ([true, true, true, false], 0));
    }
}
