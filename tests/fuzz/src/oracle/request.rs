//! Requests.

use super::{Body, End, Framing, Head, Manner, Read, head, is_token};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it was sent.
    pub method: Vec<u8>,
    /// As it was sent.
    pub target: Vec<u8>,
    /// The version is HTTP/1.0.
    pub http10: bool,
    /// Line and fields.
    pub head: Head,
    /// How its body ends.
    pub framing: Framing,
    /// Its body.
    pub body: Body,
    /// How many bytes it took, with what was skipped before it, if its body is whole.
    pub length: usize,
}

/// Reads the request that `bytes` begin with.
pub fn request(bytes: &[u8], manner: Manner) -> Read<Request> {
    let skipped = match manner {
        Manner::Forgiving => empty_lines(bytes),
        Manner::Strict => 0,
    };
    let bytes = &bytes[skipped..];
    let head = match head(bytes, manner) {
        Read::Done(head) => head,
        Read::Open => return Read::Open,
        Read::Bad(reason) => return Read::Bad(reason),
    };
    let parts: Vec<&[u8]> = head.start.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Read::Bad("not method, target and version with one space between them");
    };
    let http10 = match *version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" if manner == Manner::Forgiving => true,
        _ => return Read::Bad("another version"),
    };
    if !is_token(method) {
        return Read::Bad("a method that is no token");
    }
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Read::Bad("a target with a control character, or none");
    }
    let hosts: Vec<&[u8]> = head.values("host").collect();
    match hosts.as_slice() {
        [host] if is_host(host) => {}
        [] if http10 => {}
        _ => return Read::Bad("not one host"),
    }
    let framing = match Framing::of(&head, http10) {
        Ok(framing) => framing,
        Err(reason) => return Read::Bad(reason),
    };
    let body = framing.read(&bytes[head.length..], false, manner);
    Read::Done(Request {
        method: method.to_vec(),
        target: target.to_vec(),
        http10,
        framing,
        length: skipped + head.length + body.length,
        body,
        head,
    })
}

/// All requests in `bytes`, up to what is none. The last may lack a part of its body.
///
/// # Panics
/// A strict reader finds what is no request.
pub fn requests(bytes: &[u8], manner: Manner) -> Vec<Request> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    loop {
        match request(rest, manner) {
            Read::Done(request) => {
                let is_whole = request.body.end == End::Whole;
                rest = rest.get(request.length..).unwrap_or_default();
                found.push(request);
                if !is_whole {
                    return found;
                }
            }
            Read::Bad(reason) => {
                assert!(
                    manner == Manner::Forgiving,
                    "no request, {reason}: {}",
                    rest.escape_ascii()
                );
                return found;
            }
            Read::Open => return found,
        }
    }
}

/// How many bytes of empty lines `bytes` begin with (RFC 9112 section 2.2).
fn empty_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\n', ..] => at += 1,
            _ => return at,
        }
    }
}

/// Whether this is a host and perhaps a port (RFC 9110 section 7.2): nothing that another reader
/// could take for user information, a path or a second host.
fn is_host(text: &[u8]) -> bool {
    let (name, rest) = if text.starts_with(b"[") {
        let Some(end) = text.iter().position(|byte| *byte == b']') else {
            return false;
        };
        text.split_at(end + 1)
    } else {
        let end = text.iter().position(|byte| *byte == b':');
        text.split_at(end.unwrap_or(text.len()))
    };
    let is_name = match name {
        [b'[', inner @ .., b']'] => inner
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')),
        name => name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')),
    };
    let is_port = match rest {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}
