//! What annotations ask for, as typed values: of a route, and of the way to its upstream.

use std::time::Duration;

/// All that the annotations of one Ingress ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How a request is understood and answered.
    pub route: RoutePolicy,
    /// How it is sent to an endpoint.
    pub upstream: UpstreamPolicy,
}

/// How requests of one route are treated. The defaults are those of ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePolicy {
    /// `rewrite-target`: replaces the whole path where the rule's path matches as a regex; `$1` to
    /// `$9` are its captures.
    pub rewrite_target: Option<Box<str>>,
    /// `use-regex`: the rule's path is a regex.
    pub use_regex: bool,
    /// `ssl-redirect` and `force-ssl-redirect`: whether plain HTTP is answered with 308.
    pub tls_redirect: TlsRedirect,
    /// `proxy-body-size`, in bytes; `None` is without a limit. 1 MiB unless an annotation says
    /// otherwise.
    pub body_limit: Option<u64>,
}

/// When plain HTTP is sent to https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsRedirect {
    /// It is served.
    Never,
    /// Where the host has a TLS entry.
    #[default]
    WithTls,
    /// In any case: something in front of us ends TLS.
    Always,
}

/// How requests are sent to the endpoints of an upstream. The defaults are those of ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamPolicy {
    /// `proxy-connect-timeout`: for one endpoint to accept a connection. 1 s to 1 h.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`: between two reads from the endpoint. 1 s to 24 h.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`: between two writes to the endpoint. 1 s to 24 h.
    pub send_timeout: Duration,
    /// When another endpoint is tried.
    pub retry: RetryPolicy,
}

/// When another endpoint is tried, of those requests that may be sent twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// `proxy-next-upstream-tries`: endpoints that one request is sent to at most; 255 for `0`, which
    /// is without a limit.
    pub tries: u8,
    /// `proxy-next-upstream-timeout`: no other try begins later than this after the request; `None` is
    /// without a limit.
    pub within: Option<Duration>,
    /// `proxy-next-upstream`: after what.
    pub causes: RetryCauses,
}

/// Each is a word of `proxy-next-upstream`; `off` is none of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryCauses {
    /// `error`: no connection, or none that lasted to the end of the response's head.
    pub error: bool,
    /// `timeout`: of the connection, of sending or of the response.
    pub timeout: bool,
    /// `invalid_header`: what came is not HTTP.
    pub invalid_header: bool,
    /// `non_idempotent`: POST and PATCH too, which the endpoint may have carried out.
    pub non_idempotent: bool,
    /// `http_500` and the like: statuses after which the response is thrown away. Sorted.
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
    /// `error timeout`, and `invalid_header`: an endpoint that does not speak HTTP is as good as dead.
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
