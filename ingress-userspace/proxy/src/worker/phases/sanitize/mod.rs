//! Decides what of a request may go on, before any route is looked up.
//!
//! The grammar of the head has been checked by whoever read it; this is what remains (RFC 9110, RFC
//! 9112 and RFC 9113 where each rule stands). Everything after this file works on [`Sanitized`].

use http::Version;

use crate::{
    http1::{Fields, Framing, FramingError, FramingFields, Name, Named, is_keep_alive, options},
    table::{CanonicalHost, CanonicalPath},
};

/// Longest `X-Request-ID` that is taken over from a client.
const REQUEST_ID_LIMIT: usize = 128;

/// The head of a request, whatever protocol brought it.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct RequestHead<'h> {
    pub(in crate::worker) version: Version,
    pub(in crate::worker) method: &'h [u8],
    pub(in crate::worker) target: Result<Target<'h>, Rejection>,
    pub(in crate::worker) fields: Fields<'h>,
    /// What the protocol itself knows of the body, where that is not in the fields.
    pub(in crate::worker) has_body: Option<bool>,
}

/// The target of a request, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Target<'h> {
    pub(in crate::worker) authority: Option<&'h str>,
    /// As it was sent; `*` for the server as a whole, empty where a URI has none.
    pub(in crate::worker) path: &'h str,
    pub(in crate::worker) query: Option<&'h str>,
}

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
    /// `OPTIONS *`: about the server, not about a resource.
    pub(super) is_for_server: bool,
    /// OPTIONS for a URI without a path, which goes on as `OPTIONS *` (RFC 9112 section 3.2.4).
    pub(super) is_for_endpoint: bool,
    /// Fields that go no further because `Connection` names them.
    pub(super) named: Named<'r>,
    /// A WebSocket is asked for, in all the ways that RFC 6455 section 4.1 wants.
    pub(super) upgrade: bool,
    pub(super) framing: Framing,
    /// The client takes trailers (gRPC asks for them).
    pub(super) trailers: bool,
    pub(super) request_id: Option<&'r [u8]>,
    /// Forebays that it has passed, with this one: 1 to 10.
    pub(super) hops: u8,
}

/// A request that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::worker) enum Rejection {
    #[error("method is not allowed here")]
    Method,
    #[error("request target is not a path")]
    Target,
    #[error("host is missing, repeated or not a host")]
    Host,
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("connection names a field that must be forwarded")]
    Connection,
    #[error("field value starts or ends with a space")]
    Field,
    #[error("expectation is not 100-continue")]
    Expectation,
    #[error("request has passed {MOST_HOPS} Forebays: an endpoint of its route leads back here")]
    Loop,
}

/// A request that has passed this many Forebays goes round in a circle: somebody has made a listener
/// of Forebay an endpoint.
const MOST_HOPS: u8 = 10;

impl Rejection {
    /// What the client is answered.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Target | Self::Host | Self::Connection | Self::Field => 400,
            Self::Framing(FramingError::TransferEncoding) => 501,
            Self::Framing(_) => 400,
            Self::Expectation => 417,
            Self::Loop => 508,
        }
    }
}

/// Takes the target of an HTTP/1.1 request apart (RFC 9112 section 3.2).
///
/// # Errors
/// It is neither a path, nor a URI of http or https, nor `*`.
pub(in crate::worker) fn target(text: &[u8]) -> Result<Target<'_>, Rejection> {
    let text = std::str::from_utf8(text).map_err(|_| Rejection::Target)?;
    // Some readers cut a fragment off, others take it for a part of the path or the query.
    if memchr::memchr(b'#', text.as_bytes()).is_some() {
        return Err(Rejection::Target);
    }
    if text == "*" {
        return Ok(Target {
            authority: None,
            path: text,
            query: None,
        });
    }
    let (authority, rest) = if text.starts_with('/') {
        (None, text)
    } else {
        let (scheme, rest) = text.split_once("://").ok_or(Rejection::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Rejection::Target);
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || authority.starts_with(':') {
            return Err(Rejection::Host);
        }
        (Some(authority), rest)
    };
    let question = memchr::memchr(b'?', rest.as_bytes());
    let (path, query) = match question.and_then(|at| rest.split_at_checked(at)) {
        Some((path, query)) => (path, query.strip_prefix('?')),
        None => (rest, None),
    };
    Ok(Target {
        authority,
        path,
        query,
    })
}

/// Checks a request and takes from it what routing and forwarding need.
pub(super) fn sanitize<'r>(head: &RequestHead<'r>) -> Result<Sanitized<'r>, Rejection> {
    // TRACE echoes cookies to scripts; CONNECT makes an open proxy.
    if matches!(head.method, b"CONNECT" | b"TRACE") {
        return Err(Rejection::Method);
    }
    let target = head.target?;
    let mut fields = Read::of(head)?;
    let authority = authority(target, fields.host, head.version)?;
    let Target { path, query, .. } = target;
    let is_options = head.method == b"OPTIONS";
    let is_for_server = path == "*" && is_options;
    let is_for_endpoint = path.is_empty() && query.is_none() && is_options;
    let raw_path = if path.is_empty() { "/" } else { path };
    let framing = fields
        .framing
        .of_request(head.version == Version::HTTP_10)?;
    let framing = match (head.has_body, framing) {
        // HTTP/2 frames bodies itself: without a length they are chunked for the endpoint.
        (Some(true), Framing::Length(_)) if fields.framing.length.is_none() => Framing::Chunked,
        (_, framing) => framing,
    };
    let upgrade = fields.is_websocket(head, framing);
    Ok(Sanitized {
        authority,
        host: CanonicalHost::parse(authority).map_err(|_| Rejection::Host)?,
        path: CanonicalPath::parse(if is_for_server { "/" } else { raw_path })
            .map_err(|_| Rejection::Target)?,
        raw_path,
        query,
        is_for_server,
        is_for_endpoint,
        named: std::mem::take(&mut fields.named),
        upgrade,
        framing,
        trailers: fields.trailers,
        request_id: fields.request_id,
        hops: fields.hops + 1,
    })
}

/// Host of the request: exactly one for HTTP/1.1 (RFC 9112 section 3.2), and where the target names
/// one too, the target's for HTTP/1 and no other for HTTP/2 (RFC 9113 section 8.3.1).
fn authority<'r>(
    target: Target<'r>,
    host: Option<&'r [u8]>,
    version: Version,
) -> Result<&'r str, Rejection> {
    let host = host
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| Rejection::Host)?;
    match (target.authority, host, version) {
        (Some(target), Some(host), Version::HTTP_2) if !target.eq_ignore_ascii_case(host) => {
            Err(Rejection::Host)
        }
        (Some(_), None, Version::HTTP_11) | (None, None, Version::HTTP_11 | Version::HTTP_2) => {
            Err(Rejection::Host)
        }
        // The field is overruled, but it has to be one.
        (Some(target), Some(host), _) => CanonicalHost::parse(host)
            .map(|_| target)
            .map_err(|_| Rejection::Host),
        (Some(target), None, _) => Ok(target),
        // RFC 9112 allows an empty one for a URI without an authority; no such URI comes to us, and
        // nginx refuses it too.
        (None, Some(""), _) => Err(Rejection::Host),
        (None, Some(host), _) => Ok(host),
        (None, None, _) => Ok(""),
    }
}

/// What the fields say, read in one pass.
#[derive(Default)]
struct Read<'r> {
    host: Option<&'r [u8]>,
    framing: FramingFields,
    named: Named<'r>,
    upgrades: bool,
    websocket: bool,
    websocket_version: bool,
    trailers: bool,
    request_id: Option<&'r [u8]>,
    hops: u8,
}

impl<'r> Read<'r> {
    fn of(head: &RequestHead<'r>) -> Result<Self, Rejection> {
        let mut read = Self::default();
        let is_http2 = head.version == Version::HTTP_2;
        for (kind, _, value) in head.fields.iter() {
            // HTTP/1.1 cuts this space off, so that an endpoint would see another value (RFC 9113
            // section 8.2.1).
            if is_http2 && value != value.trim_ascii() {
                return Err(Rejection::Field);
            }
            match kind {
                // An empty one says that the target has no authority, which none here can be without.
                Name::Host if read.host.is_some() || value.is_empty() => {
                    return Err(Rejection::Host);
                }
                Name::Host => read.host = Some(value),
                Name::Hops => read.hops(value)?,
                Name::ContentLength => read.framing.take_length(value)?,
                Name::TransferEncoding if head.version == Version::HTTP_10 => {
                    return Err(FramingError::OldVersion.into());
                }
                Name::TransferEncoding => read.framing.take_coding(value)?,
                Name::Connection if is_keep_alive(value) => {}
                Name::Connection => read.connection(value)?,
                Name::Upgrade => read.websocket = value.eq_ignore_ascii_case(b"websocket"),
                Name::WebSocketVersion => read.websocket_version = value == b"13",
                Name::Te => {
                    read.trailers |=
                        options(value).any(|option| option.eq_ignore_ascii_case(b"trailers"));
                }
                Name::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(Rejection::Expectation);
                }
                Name::RequestId => {
                    let fits = (1..=REQUEST_ID_LIMIT).contains(&value.len());
                    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
                    read.request_id = Some(value).filter(|_| fits && is_text);
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// What is no number does not come from a Forebay, and counts as none.
    fn hops(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let hops = text.parse::<u8>().unwrap_or_default();
        self.hops = self.hops.max(hops);
        if self.hops >= MOST_HOPS {
            return Err(Rejection::Loop);
        }
        Ok(())
    }

    fn connection(&mut self, value: &'r [u8]) -> Result<(), Rejection> {
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if is_protected(option) {
                return Err(Rejection::Connection);
            } else if !option.eq_ignore_ascii_case(b"keep-alive")
                && !option.eq_ignore_ascii_case(b"close")
            {
                self.named.add(option);
            }
        }
        Ok(())
    }

    fn is_websocket(&self, head: &RequestHead<'_>, framing: Framing) -> bool {
        self.websocket
            && self.upgrades
            && self.websocket_version
            && head.method == b"GET"
            && head.version == Version::HTTP_11
            && framing == Framing::Length(0)
    }
}

/// Fields that a client may not have removed by naming them in `Connection`: an endpoint decides by
/// them.
fn is_protected(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    matches!(
        Name::of(name),
        Name::Host | Name::ContentLength | Name::TransferEncoding | Name::Cookie
    ) || name.eq_ignore_ascii_case(b"authorization")
        || name
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

#[cfg(test)]
mod tests;
