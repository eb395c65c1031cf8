//! The request host in the canonical form that rules match.

use std::borrow::Cow;

/// Host of a request: lower case, no port, no trailing dot. Empty if an HTTP/1.0 request has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalHost<'a>(Cow<'a, str>);

/// A Host field that is not a host. Answered with 400 (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Longer than 253 bytes.
    #[error("host is longer than 253 bytes")]
    TooLong,
    /// A byte outside `[A-Za-z0-9._-]`, an empty label, or user information.
    #[error("host has a character that is not allowed in a host name")]
    Character,
    /// What follows the colon is not a port.
    #[error("port is not a number below 65536")]
    Port,
}

/// Classes of bytes in a host: `[a-z0-9_-]` is none of them.
const UPPER: u8 = 1;
const DOT: u8 = 2;
const COLON: u8 = 4;
const OTHER: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let mut byte = 0;
    while byte < classes.len() {
        match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => classes[byte] = 0,
            b'A'..=b'Z' => classes[byte] = UPPER,
            b'.' => classes[byte] = DOT,
            b':' => classes[byte] = COLON,
            _ => {}
        }
        byte += 1;
    }
    classes
};

/// What a name is made of, found in one pass.
struct Contents {
    classes: u8,
    /// Two dots in a row, or one at the start.
    has_empty_label: bool,
}

impl Contents {
    fn of(name: &str) -> Self {
        let (mut classes, mut empty_label, mut previous) = (0, 0, DOT);
        for &byte in name.as_bytes() {
            let class = CLASSES[usize::from(byte)];
            classes |= class;
            empty_label |= class & previous & DOT;
            previous = class;
        }
        Self {
            classes,
            has_empty_label: empty_label != 0,
        }
    }
}

impl<'a> CanonicalHost<'a> {
    /// Reads the value of a Host field or the authority of a request target.
    ///
    /// IP literals are kept as they are, IPv6 in its brackets: no rule can name them, so only rules
    /// without a host match them.
    ///
    /// # Errors
    /// The value is not `host [":" port]` (RFC 9110 section 7.2).
    pub fn parse(authority: &'a str) -> Result<Self, HostError> {
        if authority.starts_with('[') {
            return Self::literal(authority);
        }
        let (mut name, mut port) = (authority, "");
        let mut made_of = Contents::of(name);
        if made_of.classes & COLON != 0 {
            (name, port) = authority.split_once(':').unwrap_or((authority, ""));
            made_of = Contents::of(name);
        }
        check_port(port)?;
        // One dot at the end is no empty label, unless there is nothing before it.
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > 253 {
            return Err(HostError::TooLong);
        }
        if !name.is_empty() && (made_of.classes & OTHER != 0 || made_of.has_empty_label) {
            return Err(HostError::Character);
        }
        Ok(Self(if made_of.classes & UPPER != 0 {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        }))
    }

    fn literal(authority: &'a str) -> Result<Self, HostError> {
        let end = authority.find(']').ok_or(HostError::Character)?;
        let (literal, rest) = authority.split_at(end + 1);
        let inner = &literal[1..end];
        if inner.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(HostError::Character);
        }
        match rest.strip_prefix(':') {
            Some(port) => check_port(port)?,
            None if rest.is_empty() => {}
            None => return Err(HostError::Character),
        }
        Ok(Self(lower(literal)))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_port(port: &str) -> Result<(), HostError> {
    let fits = port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok();
    if port.is_empty() || fits {
        Ok(())
    } else {
        Err(HostError::Port)
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_are_ignored() {
        for (raw, canonical) in [
            ("foo.bar.com", "foo.bar.com"),
            ("FOO.bar.com:8080", "foo.bar.com"),
            ("foo.bar.com.", "foo.bar.com"),
            ("foo.bar.com.:80", "foo.bar.com"),
            ("foo.bar.com:", "foo.bar.com"),
            ("198.51.100.10:80", "198.51.100.10"),
            ("[2001:DB8::1]:443", "[2001:db8::1]"),
            ("", ""),
            (".", ""),
            (".:80", ""),
        ] {
            assert_eq!(
                CanonicalHost::parse(raw).unwrap().as_str(),
                canonical,
                "{raw}"
            );
        }
    }

    #[test]
    fn a_name_that_is_in_its_form_already_is_not_copied() {
        for (raw, borrowed) in [
            ("a-b_c.example", true),
            ("a.example.:80", true),
            ("[::1]:80", true),
            ("A.example", false),
            ("[::A]", false),
        ] {
            let host = CanonicalHost::parse(raw).unwrap();
            assert_eq!(matches!(host.0, Cow::Borrowed(_)), borrowed, "{raw}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for raw in [
            "a b", "a,b", "a/b", "user@a", "a:b", "a:99999", "a:+80", "[::1", "[x]", "[::1]x",
            "a..b", ".a", "a..", "é", "a:80:80", "%61", "a\0b", "*.a", "[::1]:8a",
        ] {
            assert!(CanonicalHost::parse(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn names_and_ports_are_taken_up_to_their_limits() {
        let (longest, longer) = ("a".repeat(253), "a".repeat(254));
        for (raw, expected) in [
            (longest.clone(), Ok(&*longest)),
            (format!("{longest}.:65535"), Ok(&longest)),
            (longer.clone(), Err(HostError::TooLong)),
            (format!("{longer}."), Err(HostError::TooLong)),
            ("a:0".to_owned(), Ok("a")),
            ("a:00080".to_owned(), Ok("a")),
            ("a:000080".to_owned(), Err(HostError::Port)),
            ("a:65535".to_owned(), Ok("a")),
            ("a:65536".to_owned(), Err(HostError::Port)),
        ] {
            let host = CanonicalHost::parse(&raw);
            assert_eq!(
                host.as_ref().map(CanonicalHost::as_str),
                expected.as_ref().copied(),
                "{raw}"
            );
        }
    }
}
