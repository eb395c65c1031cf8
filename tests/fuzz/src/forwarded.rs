//! What an endpoint may receive for a request: the rules of a proxy, written down a second time.

use crate::{
    oracle::{End, Field, Framing, Request},
    site::PEER,
};

/// A request as its client means it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The method.
    pub method: Vec<u8>,
    /// Path and query.
    pub target: Vec<u8>,
    /// Host and port.
    pub host: Vec<u8>,
    /// All fields but the host.
    pub fields: Vec<Field>,
    /// How the body ends.
    pub framing: Framing,
    /// The body.
    pub body: Vec<u8>,
    /// How far the body goes.
    pub end: End,
    /// The trailers.
    pub trailers: Vec<Field>,
}

/// Fields that the proxy writes itself, or leaves out: of one hop, or said by nobody but a proxy.
const OWN: [&str; 26] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forebay-hops",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-original-forwarded-for",
    "x-original-forwarded-host",
    "x-real-ip",
    "x-request-id",
    "x-scheme",
    "x-forwarded-client-cert",
];

/// What no trailer may be: it would count as a field that was there from the beginning.
const NO_TRAILER: [&str; 8] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "transfer-encoding",
    "x-forwarded-for",
    "x-real-ip",
];

impl Wanted {
    /// What the client means that sent `request` by HTTP/1; `None` where its target is no path.
    pub fn of(request: &Request) -> Option<Self> {
        let (authority, mut target) = target(&request.target)?;
        if target.is_empty() && request.method == b"OPTIONS" {
            target = b"*".to_vec();
        } else if !target.starts_with(b"/") && target != b"*" {
            target.insert(0, b'/');
        }
        let host = request.head.values("host").next().unwrap_or_default();
        Some(Self {
            method: request.method.clone(),
            target,
            host: authority.unwrap_or_else(|| host.to_vec()),
            fields: request.head.fields.clone(),
            framing: request.framing,
            body: request.body.data.clone(),
            end: request.body.end,
            trailers: request.body.trailers.clone(),
        })
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields
            .iter()
            .filter(|field| field.name == name.as_bytes())
            .map(|field| field.value.as_slice())
            .collect()
    }

    fn has_member(&self, name: &str, member: &[u8]) -> bool {
        self.members(name).any(|own| own == member)
    }

    fn members(&self, name: &str) -> impl Iterator<Item = Vec<u8>> {
        self.values(name)
            .into_iter()
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(|member| member.trim_ascii().to_ascii_lowercase())
    }

    /// Checks that `got` is this request and nothing else.
    ///
    /// # Panics
    /// It is not.
    pub fn check(&self, got: &Request) {
        assert_eq!(got.method, self.method, "method");
        assert_eq!(got.target, self.target, "target");
        self.check_fields(got);
        self.check_own_fields(got);
        self.check_framing(got);
        assert_eq!(
            self.body.get(..got.body.data.len()),
            Some(got.body.data.as_slice()),
            "the body is not what was sent"
        );
        if got.body.end == End::Whole {
            assert_eq!(self.end, End::Whole, "a body that is not whole was ended");
            assert_eq!(got.body.data.len(), self.body.len(), "the body is cut");
        }
        self.check_trailers(got);
    }

    /// What goes from end to end arrives as it was sent, in its order.
    fn check_fields(&self, got: &Request) {
        let named: Vec<Vec<u8>> = self.members("connection").collect();
        let goes_on = |field: &&Field| {
            !OWN.iter().any(|own| field.name == own.as_bytes())
                && !field.name.starts_with(b"x-original-forwarded-")
                && !field.name.contains(&b'_')
                && !named.contains(&field.name)
        };
        let wanted: Vec<&Field> = self
            .fields
            .iter()
            .filter(|field| field.name != b"x-forwarded-client-cert")
            .filter(goes_on)
            .collect();
        let passed: Vec<&Field> = got
            .head
            .fields
            .iter()
            .filter(|field| !OWN.iter().any(|own| field.name == own.as_bytes()))
            .collect();
        assert_eq!(passed, wanted, "fields that go from end to end");
    }

    fn check_own_fields(&self, got: &Request) {
        let joined = |name: &str, between: &[u8]| {
            let values = self.values(name);
            (!values.is_empty()).then(|| values.join(between))
        };
        let is_websocket = self.is_websocket();
        for (name, value) in [
            ("host", Some(self.host.clone())),
            ("x-forwarded-host", Some(self.host.clone())),
            ("x-forebay-hops", Some(self.hops())),
            ("x-forwarded-for", Some(PEER.into())),
            ("x-real-ip", Some(PEER.into())),
            ("x-forwarded-port", Some(b"80".to_vec())),
            ("x-forwarded-proto", Some(b"http".to_vec())),
            ("x-forwarded-scheme", Some(b"http".to_vec())),
            ("x-scheme", Some(b"http".to_vec())),
            ("cookie", joined("cookie", b"; ")),
            ("x-original-forwarded-for", joined("x-forwarded-for", b", ")),
            (
                "x-original-forwarded-host",
                joined("x-forwarded-host", b", "),
            ),
            (
                "te",
                self.has_member("te", b"trailers")
                    .then(|| b"trailers".to_vec()),
            ),
            ("connection", is_websocket.then(|| b"upgrade".to_vec())),
            ("upgrade", is_websocket.then(|| b"websocket".to_vec())),
            ("expect", None),
            ("forwarded", None),
            ("http2-settings", None),
            ("keep-alive", None),
            ("proxy", None),
            ("proxy-connection", None),
            ("trailer", None),
        ] {
            let value = value.map(|value| trimmed(&value).to_vec());
            let values: Vec<&[u8]> = got.head.values(name).collect();
            match (values.as_slice(), &value) {
                ([], None) => {}
                ([own], Some(value)) if own == value => {}
                // An upgrade may be left out, but not made up.
                ([], Some(_)) if matches!(name, "connection" | "upgrade") => {}
                _ => panic!("{name}: {values:?}, not {value:?}"),
            }
        }
        assert_eq!(got.head.values("x-request-id").count(), 1, "x-request-id");
        assert_eq!(
            got.head.values("connection").count(),
            got.head.values("upgrade").count(),
            "half an upgrade"
        );
    }

    /// One more than the most that the client has said; what is no number counts as none.
    fn hops(&self) -> Vec<u8> {
        let number = |value: &[u8]| {
            let text = std::str::from_utf8(trimmed(value)).ok()?;
            text.parse::<u8>().ok()
        };
        let values = self.values("x-forebay-hops");
        let most = values.iter().filter_map(|value| number(value)).max();
        let hops = most.unwrap_or_default();
        assert!(hops < 10, "a request went on after {hops} rounds");
        (hops + 1).to_string().into_bytes()
    }

    fn is_websocket(&self) -> bool {
        let upgrades = self.values("upgrade");
        self.method == b"GET"
            && self.has_member("connection", b"upgrade")
            && upgrades
                .iter()
                .any(|value| value.eq_ignore_ascii_case(b"websocket"))
    }

    fn check_framing(&self, got: &Request) {
        match (self.framing, got.framing) {
            (Framing::None, Framing::None) | (Framing::Chunked, Framing::Chunked) => {}
            (Framing::Length(wanted), Framing::Length(got)) if wanted == got => {}
            (wanted, got) => panic!("{wanted:?} became {got:?}"),
        }
    }

    fn check_trailers(&self, got: &Request) {
        let mut sent = self.trailers.iter();
        for trailer in &got.body.trailers {
            assert!(
                self.has_member("te", b"trailers"),
                "trailers go on that nobody asked for"
            );
            assert!(
                sent.any(|own| own == trailer),
                "a trailer that was not sent, or not in this place: {trailer:?}"
            );
            assert!(
                !NO_TRAILER
                    .iter()
                    .any(|name| trailer.name == name.as_bytes())
                    && !trailer.name.contains(&b'_'),
                "no trailer: {trailer:?}"
            );
        }
    }
}

/// Joining values of which the first or last is empty leaves a space at the edge, which no reader
/// counts.
fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Authority, and path with query, of a target (RFC 9112 section 3.2); `None` where it has a part
/// that no server may be sent, or none that it may.
pub fn target(text: &[u8]) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
    if text.contains(&b'#') {
        return None;
    }
    if text.starts_with(b"/") || text == b"*" {
        return Some((None, text.to_vec()));
    }
    let lower = text.to_ascii_lowercase();
    let start = ["http://", "https://"]
        .iter()
        .find(|scheme| lower.starts_with(scheme.as_bytes()))?
        .len();
    let rest = &text[start..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    Some((Some(authority.to_vec()), path.to_vec()))
}
