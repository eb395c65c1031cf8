//! The request path in the canonical form that rules match.
//!
//! Matching uses this form; what goes upstream is the raw path, unless a rule rewrites it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Path of a request: percent-decoded, `//` merged, dot segments removed, starting with `/`.
///
/// Bytes, not text: an endpoint may name its files in any encoding. `%2F` counts as `/`, as in
/// nginx, so encoding a slash cannot bypass a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a>(Cow<'a, [u8]>);

/// An invalid path; the response is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not start with `/`.
    #[error("path does not start with /")]
    Relative,
    /// `%` without two hexadecimal digits after it (RFC 3986 section 2.1).
    #[error("percent sign without two hexadecimal digits")]
    Escape,
    /// A control character, raw or escaped, or a raw space, `\` or `#`.
    #[error("path has a character that is not allowed in a path")]
    Character,
    /// `..` goes above the root.
    #[error("dot segments climb above the root")]
    AboveRoot,
}

impl<'a> CanonicalPath<'a> {
    /// Reads the path of a request target, without its query.
    ///
    /// # Errors
    /// The path is relative, has a bad escape or a forbidden character, or climbs above the root.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::Relative);
        }
        let (mut plain, mut previous) = (true, 0);
        for &byte in raw.as_bytes() {
            match byte {
                0..=b' ' | 0x7f | b'\\' | b'#' => return Err(PathError::Character),
                b'%' | 0x80.. => plain = false,
                // A dot segment or an empty one can only follow a slash.
                b'.' | b'/' if previous == b'/' => plain = false,
                _ => {}
            }
            previous = byte;
        }
        if plain {
            return Ok(Self(Cow::Borrowed(raw.as_bytes())));
        }
        Ok(Self(Cow::Owned(resolve(&decode(raw)?)?)))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn decode(raw: &str) -> Result<Cow<'_, [u8]>, PathError> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(PathError::Escape),
        }
    }
    let decoded: Cow<'_, [u8]> = percent_decode_str(raw).into();
    if decoded.iter().any(u8::is_ascii_control) {
        Err(PathError::Character)
    } else {
        Ok(decoded)
    }
}

/// Merges slashes and removes dot segments (RFC 3986 section 5.2.4), keeping a final slash.
fn resolve(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut directory = true;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop().ok_or(PathError::AboveRoot)?),
            _ => segments.push(segment),
        }
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in &segments {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if directory || segments.is_empty() {
        resolved.push(b'/');
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_paths_have_one_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/x/../b", "/a/b"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/%61%2Fb", "/a/b"),
            ("/a%2F%2e%2E/b", "/b"),
            ("/a%20b", "/a b"),
            ("/caf%C3%A9", "/café"),
            ("/café", "/café"),
            ("/a.b/..c", "/a.b/..c"),
        ] {
            assert_eq!(
                CanonicalPath::parse(raw).unwrap().as_bytes(),
                canonical.as_bytes(),
                "{raw}"
            );
        }
        let latin1 = CanonicalPath::parse("/caf%E9").unwrap();
        assert_eq!(latin1.as_bytes(), b"/caf\xe9", "no byte is replaced");
    }

    #[test]
    fn paths_on_which_an_endpoint_could_disagree_are_refused() {
        for (raw, error) in [
            ("a", PathError::Relative),
            ("", PathError::Relative),
            ("*", PathError::Relative),
            ("/%", PathError::Escape),
            ("/%2", PathError::Escape),
            ("/%zz", PathError::Escape),
            ("/%4z", PathError::Escape),
            ("/long%2", PathError::Escape),
            ("/%41%41%zz", PathError::Escape),
            ("/long/%41%zz/%41", PathError::Escape),
            ("/%00", PathError::Character),
            ("/a%0ab", PathError::Character),
            ("/a\\b", PathError::Character),
            ("/a b", PathError::Character),
            ("/..", PathError::AboveRoot),
            ("/a/%2e%2e/..", PathError::AboveRoot),
        ] {
            assert_eq!(CanonicalPath::parse(raw), Err(error), "{raw:?}");
        }
    }

    #[test]
    fn a_path_that_is_in_its_form_already_is_not_copied() {
        for (raw, borrowed) in [
            ("/", true),
            ("/a/b.c/d..e/", true),
            ("/a/.b", false),
            ("/a//b", false),
            ("/%61", false),
        ] {
            let path = CanonicalPath::parse(raw).unwrap();
            assert_eq!(matches!(path.0, Cow::Borrowed(_)), borrowed, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn canonical_form_has_no_dot_segment_and_no_empty_one(raw in "/[a-b./%2eE5F]{0,24}") {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                let inner = path.as_bytes().strip_prefix(b"/").unwrap();
                let inner = inner.strip_suffix(b"/").unwrap_or(inner);
                let whole = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
                prop_assert!(inner.is_empty() || inner.split(|&byte| byte == b'/').all(whole), "{raw} -> {path:?}");
            }
        }
    }
}
