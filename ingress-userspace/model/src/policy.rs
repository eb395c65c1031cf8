//! What annotations ask of a route, as typed values.

use std::time::Duration;

/// How requests of one route are treated. The defaults are those of ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// `rewrite-target`: replaces the whole path where the rule's path matches as a regex; `$1` to
    /// `$9` are its captures.
    pub rewrite_target: Option<Box<str>>,
    /// `use-regex`: the rule's path is a regex.
    pub use_regex: bool,
    /// `ssl-redirect`: plain HTTP is answered with 308 when the host has a TLS entry.
    pub ssl_redirect: bool,
    /// `force-ssl-redirect`: the same without a TLS entry.
    pub force_ssl_redirect: bool,
    /// `proxy-connect-timeout`: for one endpoint to accept a connection. 1 s to 1 h.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`: between two reads from the endpoint. 1 s to 24 h.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`: between two writes to the endpoint. 1 s to 24 h.
    pub send_timeout: Duration,
    /// `proxy-body-size`, in bytes; `None` is without a limit. 1 MiB unless an annotation says
    /// otherwise.
    pub body_limit: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rewrite_target: None,
            use_regex: false,
            ssl_redirect: true,
            force_ssl_redirect: false,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            body_limit: Some(1 << 20),
        }
    }
}
