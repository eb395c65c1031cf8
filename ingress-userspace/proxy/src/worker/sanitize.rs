//! Decides what of a request may go on, before any route is looked up.
//!
//! hyper has parsed the head and refused what breaks RFC 9112's grammar; this is what it leaves to
//! us. Everything after this file works on [`Sanitized`].

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts,
};

use crate::table::{CanonicalHost, CanonicalPath};

/// Where a client, or a proxy before us, says whose request it is.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Longest `X-Request-ID` that is taken over from a client.
const REQUEST_ID_LIMIT: usize = 128;

/// A request that is safe to route.
#[derive(Debug)]
pub(super) struct Sanitized<'r> {
    /// Host and port as the client wrote them; empty where an HTTP/1.0 request had none.
    pub(super) authority: &'r str,
    pub(super) host: CanonicalHost<'r>,
    /// What rules are compared with.
    pub(super) path: CanonicalPath<'r>,
    /// What goes upstream where nothing rewrites it.
    pub(super) raw_path: &'r str,
    pub(super) query: Option<&'r str>,
    /// Fields that `Connection` names besides the usual ones; they go no further.
    pub(super) named: Vec<&'r [u8]>,
    /// A WebSocket is asked for, in all the ways that RFC 6455 section 4.1 wants.
    pub(super) upgrade: bool,
    pub(super) content_length: Option<u64>,
    /// The client takes trailers (gRPC asks for them).
    pub(super) trailers: bool,
    pub(super) request_id: Option<&'r HeaderValue>,
}

/// A request that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    #[error("method is not allowed here")]
    Method,
    #[error("request target is not a path")]
    Target,
    #[error("host is missing, repeated or not a host")]
    Host,
    #[error("transfer coding is not chunked")]
    TransferCoding,
    #[error("connection names a field that must go on")]
    Connection,
    #[error("content-length is not one number")]
    ContentLength,
    #[error("expectation is not 100-continue")]
    Expectation,
}

impl Rejection {
    /// What the client is answered.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target | Self::Host | Self::Connection | Self::ContentLength => {
                StatusCode::BAD_REQUEST
            }
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
        }
    }
}

/// Checks a request and takes from it what routing and forwarding need.
pub(super) fn sanitize(parts: &Parts) -> Result<Sanitized<'_>, Rejection> {
    // TRACE echoes cookies to scripts; CONNECT makes an open proxy.
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Rejection::Method);
    }
    let fields = Fields::read(&parts.headers)?;
    let authority = authority(parts, &fields)?;
    let raw_path = parts.uri.path();
    // The target `foo` parses as an authority without a scheme, `*` as a path.
    if parts.uri.scheme().is_none() && parts.uri.authority().is_some() {
        return Err(Rejection::Target);
    }
    Ok(Sanitized {
        authority,
        host: CanonicalHost::parse(authority).map_err(|_| Rejection::Host)?,
        path: CanonicalPath::parse(raw_path).map_err(|_| Rejection::Target)?,
        raw_path,
        query: parts.uri.query(),
        upgrade: fields.is_websocket(parts),
        named: fields.named,
        content_length: fields.content_length,
        trailers: fields.trailers,
        request_id: fields.request_id,
    })
}

/// Host of the request: exactly one for HTTP/1.1 (RFC 9112 section 3.2), and where the target names
/// one too, the target's for HTTP/1 and no other for HTTP/2 (RFC 9113 section 8.3.1).
fn authority<'r>(parts: &'r Parts, fields: &Fields<'r>) -> Result<&'r str, Rejection> {
    let host = match fields.host {
        Some(host) => Some(host.to_str().map_err(|_| Rejection::Host)?),
        None => None,
    };
    match (parts.uri.authority(), host, parts.version) {
        (Some(target), Some(host), Version::HTTP_2)
            if !target.as_str().eq_ignore_ascii_case(host) =>
        {
            Err(Rejection::Host)
        }
        (Some(_), None, Version::HTTP_11) | (None, None, Version::HTTP_11 | Version::HTTP_2) => {
            Err(Rejection::Host)
        }
        (Some(target), ..) => Ok(target.as_str()),
        (None, Some(host), _) => Ok(host),
        (None, None, _) => Ok(""),
    }
}

/// What the fields say, read in one pass.
#[derive(Default)]
struct Fields<'r> {
    host: Option<&'r HeaderValue>,
    content_length: Option<u64>,
    chunked: bool,
    named: Vec<&'r [u8]>,
    upgrades: bool,
    websocket: bool,
    trailers: bool,
    request_id: Option<&'r HeaderValue>,
}

impl<'r> Fields<'r> {
    fn read(headers: &'r HeaderMap) -> Result<Self, Rejection> {
        let mut fields = Self::default();
        for (name, value) in headers {
            match *name {
                header::HOST => fields.host(value)?,
                header::TRANSFER_ENCODING => {
                    if fields.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                        return Err(Rejection::TransferCoding);
                    }
                    fields.chunked = true;
                }
                header::CONTENT_LENGTH => fields.content_length(value)?,
                header::CONNECTION => fields.connection(value)?,
                header::UPGRADE => {
                    fields.websocket = value.as_bytes().eq_ignore_ascii_case(b"websocket")
                }
                header::TE => {
                    fields.trailers |=
                        options(value).any(|option| option.eq_ignore_ascii_case(b"trailers"))
                }
                header::EXPECT if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                    return Err(Rejection::Expectation);
                }
                _ if name == "x-request-id" => {
                    let fits = (1..=REQUEST_ID_LIMIT).contains(&value.len());
                    fields.request_id = Some(value).filter(|value| fits && value.to_str().is_ok());
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn host(&mut self, value: &'r HeaderValue) -> Result<(), Rejection> {
        self.host
            .replace(value)
            .map_or(Ok(()), |_| Err(Rejection::Host))
    }

    fn content_length(&mut self, value: &HeaderValue) -> Result<(), Rejection> {
        let length = value.to_str().ok().and_then(|digits| digits.parse().ok());
        // hyper refuses these for HTTP/1; HTTP/2 has its own way here.
        match (length, self.content_length) {
            (Some(length), None) => self.content_length = Some(length),
            (Some(length), Some(first)) if length == first => {}
            _ => return Err(Rejection::ContentLength),
        }
        Ok(())
    }

    fn connection(&mut self, value: &'r HeaderValue) -> Result<(), Rejection> {
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if is_protected(option) {
                return Err(Rejection::Connection);
            } else if !option.eq_ignore_ascii_case(b"keep-alive")
                && !option.eq_ignore_ascii_case(b"close")
            {
                self.named.push(option);
            }
        }
        Ok(())
    }

    fn is_websocket(&self, parts: &Parts) -> bool {
        self.websocket
            && self.upgrades
            && parts.method == Method::GET
            && parts.version == Version::HTTP_11
            && !self.chunked
            && self.content_length.unwrap_or(0) == 0
            && parts
                .headers
                .get(header::SEC_WEBSOCKET_VERSION)
                .is_some_and(|version| version == "13")
    }
}

fn options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// Fields that a client may not have removed by naming them in `Connection`: an endpoint decides by
/// them.
fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"cookie",
        b"authorization",
    ];
    const PREFIX: &[u8] = b"x-forwarded-";
    NAMES
        .iter()
        .any(|protected| name.eq_ignore_ascii_case(protected))
        || name
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

impl Sanitized<'_> {
    /// Whether a field of the client goes upstream as it is. The others are hop-by-hop, or written
    /// by us, or of a kind that endpoints read in different ways.
    pub(super) fn passes(&self, name: &HeaderName) -> bool {
        match *name {
            header::HOST
            | header::CONNECTION
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::TE
            | header::TRAILER
            | header::UPGRADE
            | header::EXPECT
            | header::COOKIE
            | header::FORWARDED => false,
            _ => {
                !is_ours(name.as_str())
                    && !self
                        .named
                        .iter()
                        .any(|own| own.eq_ignore_ascii_case(name.as_str().as_bytes()))
            }
        }
    }
}

/// Names that only we write, hop-by-hop names without a constant, `Proxy` (CVE-2016-5385), and
/// names with `_`, which CGI-like endpoints confuse with `-`.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "x-request-id"
            | "x-real-ip"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-proto"
            | "x-forwarded-scheme"
            | "x-scheme"
            | "x-original-forwarded-for"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "proxy"
    ) || name.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder()
            .version(version)
            .method(method)
            .uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_has_exactly_one_valid_host() {
        use Version as V;
        for (version, target, fields, expected) in [
            (V::HTTP_11, "/", &[("host", "a.b:80")][..], Ok("a.b")),
            (V::HTTP_11, "/", &[], Err(Rejection::Host)),
            (
                V::HTTP_11,
                "/",
                &[("host", "a"), ("host", "a")],
                Err(Rejection::Host),
            ),
            (V::HTTP_11, "/", &[("host", "a b")], Err(Rejection::Host)),
            (V::HTTP_11, "/", &[("host", "u@a")], Err(Rejection::Host)),
            (V::HTTP_11, "http://x.y/", &[("host", "a")], Ok("x.y")),
            (V::HTTP_11, "http://x.y/", &[], Err(Rejection::Host)),
            (V::HTTP_10, "/", &[], Ok("")),
            (V::HTTP_2, "http://x.y/", &[], Ok("x.y")),
            (V::HTTP_2, "http://x.y/", &[("host", "X.y")], Ok("x.y")),
            (
                V::HTTP_2,
                "http://x.y/",
                &[("host", "other")],
                Err(Rejection::Host),
            ),
            (V::HTTP_2, "/", &[], Err(Rejection::Host)),
        ] {
            let parts = parts(version, "GET", target, fields);
            let host = sanitize(&parts).map(|sanitized| sanitized.host.as_str().to_owned());
            assert_eq!(
                host.as_deref().map_err(|error| *error),
                expected,
                "{version:?} {target} {fields:?}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (method, target, field, rejection) in [
            ("CONNECT", "a:80", ("x", "y"), Rejection::Method),
            ("TRACE", "/", ("x", "y"), Rejection::Method),
            ("GET", "*", ("x", "y"), Rejection::Target),
            ("GET", "foo", ("x", "y"), Rejection::Target),
            ("GET", "/a/../../b", ("x", "y"), Rejection::Target),
            ("GET", "/%00", ("x", "y"), Rejection::Target),
            (
                "POST",
                "/",
                ("transfer-encoding", "gzip, chunked"),
                Rejection::TransferCoding,
            ),
            (
                "POST",
                "/",
                ("transfer-encoding", "chunked, chunked"),
                Rejection::TransferCoding,
            ),
            (
                "POST",
                "/",
                ("transfer-encoding", "x"),
                Rejection::TransferCoding,
            ),
            ("POST", "/", ("expect", "200-ok"), Rejection::Expectation),
            (
                "GET",
                "/",
                ("connection", "close, X-Forwarded-For"),
                Rejection::Connection,
            ),
            ("GET", "/", ("connection", "Host"), Rejection::Connection),
        ] {
            let parts = parts(Version::HTTP_11, method, target, &[("host", "a"), field]);
            assert_eq!(
                sanitize(&parts).map(drop),
                Err(rejection),
                "{method} {target} {field:?}"
            );
        }
    }

    #[test]
    fn fields_of_one_hop_and_forged_ones_go_no_further() {
        let fields = [
            ("host", "a"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
        ];
        let parts = parts(Version::HTTP_11, "GET", "/", &fields);
        let sanitized = sanitize(&parts).unwrap();
        for (name, passes) in [
            ("accept", true),
            ("authorization", true),
            ("x-powered", true),
            ("x-secret", false),
            ("connection", false),
            ("keep-alive", false),
            ("proxy", false),
            ("x_real_ip", false),
            ("x-forwarded-for", false),
            ("forwarded", false),
            ("te", false),
        ] {
            assert_eq!(
                sanitized.passes(&HeaderName::from_static(name)),
                passes,
                "{name}"
            );
        }
    }

    #[test]
    fn only_a_whole_websocket_request_upgrades() {
        let whole = [
            ("host", "a"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
        ];
        let upgrade = |method: &str, fields: &[(&str, &str)]| {
            sanitize(&parts(Version::HTTP_11, method, "/", fields))
                .unwrap()
                .upgrade
        };
        assert!(upgrade("GET", &whole));
        assert!(!upgrade("POST", &whole));
        for missing in 1..whole.len() {
            let mut fields = whole.to_vec();
            let (name, _) = fields.remove(missing);
            assert!(!upgrade("GET", &fields), "without {name}");
        }
        assert!(!upgrade(
            "GET",
            &[&whole[..2], &[("upgrade", "h2c")], &whole[3..]].concat()
        ));
        assert!(!upgrade(
            "GET",
            &[&whole[..], &[("content-length", "1")]].concat()
        ));
    }
}
