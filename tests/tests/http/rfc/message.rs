//! A strict reader of HTTP/1.1 messages: the judge of what the proxy sends to either side.
//!
//! It shares no code with the proxy and forgives nothing: what another reader could take in another
//! way is an error here.

use std::fmt;

/// Which messages a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
    /// The response to HEAD, which has no body.
    ResponseToHead,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(usize),
    Chunked,
    /// With the connection.
    Close,
}

/// A field: its name as it was spelled, and its value without the space around it.
pub(super) type Field = (String, Vec<u8>);

/// One message, or as much of it as has come after its head.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Method and target, or the status.
    pub(super) start: String,
    pub(super) fields: Vec<Field>,
    pub(super) framing: Framing,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<Field>,
    /// Whether the body has come to its end.
    pub(super) whole: bool,
}

/// The message at the start of `bytes` and how many of them it takes; `None` until its head is
/// complete.
pub(super) fn read(bytes: &[u8], kind: Kind) -> Result<Option<(Message, usize)>, String> {
    let Some((head, mut used)) = section(bytes)? else {
        return Ok(None);
    };
    let mut lines = head.into_iter();
    let first = lines.next().unwrap_or_default();
    let start = match kind {
        Kind::Request => request_line(first)?,
        Kind::Response | Kind::ResponseToHead => status_line(first)?,
    };
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let mut message = Message {
        framing: framing(&start, &fields, kind)?,
        start,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        whole: false,
    };
    if kind == Kind::Request && message.values("host").count() != 1 {
        return Err(format!("not one Host in {message}"));
    }
    let rest = &bytes[used..];
    used += match message.framing {
        Framing::None => {
            message.whole = true;
            0
        }
        Framing::Length(length) => {
            message.whole = rest.len() >= length;
            message.body = rest[..length.min(rest.len())].to_vec();
            message.body.len()
        }
        Framing::Chunked => chunks(&mut message, rest)?,
        Framing::Close => {
            message.body = rest.to_vec();
            rest.len()
        }
    };
    Ok(Some((message, used)))
}

/// The lines before an empty one, and how many bytes they take with it.
type Lines<'a> = (Vec<&'a [u8]>, usize);

/// Reads up to an empty line; `None` until that has come.
fn section(bytes: &[u8]) -> Result<Option<Lines<'_>>, String> {
    let (mut lines, mut at) = (Vec::new(), 0);
    while let Some(line) = line(&bytes[at..])? {
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((lines, at)));
        }
        lines.push(line);
    }
    Ok(None)
}

/// The line at the start of `bytes`, without its CR LF; `None` until that has come.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    for (at, byte) in bytes.iter().enumerate() {
        match (byte, bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some(&bytes[..at])),
            (b'\r', None) => return Ok(None),
            (b'\r' | b'\n' | 0, _) => {
                return Err(format!("a bare {byte:#04x} after {}", text(&bytes[..at])));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn request_line(line: &[u8]) -> Result<String, String> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    match parts[..] {
        [method, target, b"HTTP/1.1"]
            if is_token(method) && !target.is_empty() && target.iter().all(|byte| *byte > b' ') =>
        {
            Ok(format!("{} {}", text(method), text(target)))
        }
        _ => Err(format!("request line {:?}", text(line))),
    }
}

fn status_line(line: &[u8]) -> Result<String, String> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.0 "));
    match rest.and_then(|rest| rest.split_at_checked(3)) {
        Some((code, reason)) if code.iter().all(u8::is_ascii_digit) && reason.starts_with(b" ") => {
            Ok(text(code))
        }
        _ => Err(format!("status line {:?}", text(line))),
    }
}

fn field(line: &[u8]) -> Result<Field, String> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.unwrap_or(0));
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if !is_token(name)
        || value
            .iter()
            .any(|byte| *byte != b'\t' && byte.is_ascii_control())
    {
        return Err(format!("field {:?}", text(line)));
    }
    Ok((text(name), value.to_vec()))
}

fn is_token(name: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_tchar)
}

/// RFC 9112 section 6.3, where both framings at once are an error.
fn framing(start: &str, fields: &[Field], kind: Kind) -> Result<Framing, String> {
    let of = |own: &str| {
        let same = |(name, _): &&Field| name.eq_ignore_ascii_case(own);
        fields
            .iter()
            .filter(same)
            .map(|(_, value)| &value[..])
            .collect::<Vec<_>>()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) if kind == Kind::Request => Framing::None,
        ([], []) => Framing::Close,
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            let length = text(length).parse();
            Framing::Length(length.map_err(|error| format!("Content-Length: {error}"))?)
        }
        ([], [b"chunked"]) => Framing::Chunked,
        _ => {
            return Err(format!(
                "{start}: length {lengths:?} and coding {codings:?}"
            ));
        }
    };
    let bodiless = kind == Kind::ResponseToHead
        || kind == Kind::Response && (start.starts_with('1') || start == "204" || start == "304");
    Ok(if bodiless { Framing::None } else { framing })
}

/// Reads a chunked body (RFC 9112 section 7.1), without extensions, into `message`.
fn chunks(message: &mut Message, bytes: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    while let Some(size) = line(&bytes[at..])? {
        let digits = size.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(&text(size), 16)
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| format!("chunk size {:?}", text(size)))?;
        if size == 0 {
            let after = at + line(&bytes[at..])?.map_or(0, |line| line.len() + 2);
            if let Some((trailers, used)) = section(&bytes[after..])? {
                message.trailers = trailers.into_iter().map(field).collect::<Result<_, _>>()?;
                message.whole = true;
                return Ok(after + used);
            }
            return Ok(bytes.len());
        }
        at += line(&bytes[at..])?.map_or(0, |line| line.len() + 2);
        let data = &bytes[at..bytes.len().min(at + size)];
        message.body.extend_from_slice(data);
        at += data.len();
        match &bytes[at..] {
            [] | [b'\r'] => return Ok(bytes.len()),
            [b'\r', b'\n', ..] => at += 2,
            other => return Err(format!("{:?} after a chunk", text(&other[..1]))),
        }
    }
    Ok(bytes.len())
}

/// Bytes as ASCII, with escapes for all else.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

impl Message {
    /// The values of a name in their order.
    pub(super) fn values<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let same = move |(name, _): &&Field| name.eq_ignore_ascii_case(own);
        self.fields.iter().filter(same).map(|(_, value)| &value[..])
    }
}

/// `GET /a none -`, `POST /a length body`, `200 chunked bo cut`, `200 chunked body + name: value`.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let framing = match self.framing {
            Framing::None => "none",
            Framing::Length(_) => "length",
            Framing::Chunked => "chunked",
            Framing::Close => "close",
        };
        let body = match &self.body[..] {
            [] => "-".to_owned(),
            body => text(body),
        };
        write!(f, "{} {framing} {body}", self.start)?;
        for (name, value) in &self.trailers {
            write!(f, " + {}: {}", name.to_ascii_lowercase(), text(value))?;
        }
        f.write_str(if self.whole { "" } else { " cut" })
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_an_error() {
    let bad = [
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy",
    ];
    for bytes in bad {
        assert!(read(bytes.as_bytes(), Kind::Request).is_err(), "{bytes:?}");
    }
    let good = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: u\r\n\r\n";
    for end in 0..good.len() {
        let read = read(&good.as_bytes()[..end], Kind::Request).unwrap();
        assert!(
            read.is_none_or(|(message, _)| !message.whole),
            "cut at {end}"
        );
    }
    let (message, used) = read(good.as_bytes(), Kind::Request).unwrap().unwrap();
    assert_eq!(
        (message.to_string().as_str(), used),
        ("POST /a chunked ok + t: u", good.len())
    );
}
