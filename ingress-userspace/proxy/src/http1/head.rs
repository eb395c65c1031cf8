//! Heads of requests and responses: found in what has arrived, then parsed once, in place.

use std::mem::MaybeUninit;

use http::Version;

use super::Name;
use crate::net::Outbound;

/// Most fields in a head.
const FIELD_LIMIT: usize = 100;

/// A part of a head, as offsets into its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` lies in `whole`, which it is a part of.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::at(start, part.len())
    }

    fn at(start: usize, length: usize) -> Self {
        // Heads are shorter than a buffer, so that the offsets fit.
        Self {
            start: start as u32,
            end: (start + length) as u32,
        }
    }

    /// The bytes.
    pub(crate) fn of_head(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) kind: Name,
    name: Span,
    value: Span,
}

impl Field {
    /// Appends a field to `head`, for heads that did not arrive as HTTP/1.1.
    pub(crate) fn write(head: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Self {
        let field = Self {
            kind: Name::of(name),
            name: Span::at(head.len(), name.len()),
            value: Span::at(head.len() + name.len(), value.len()),
        };
        head.extend_from_slice(name);
        head.extend_from_slice(value);
        field
    }
}

/// One field of a head, to be passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'h> {
    head: &'h [u8],
    field: &'h Field,
}

impl<'h> Line<'h> {
    pub(crate) fn name(self) -> &'h [u8] {
        self.field.name.of_head(self.head)
    }

    pub(crate) fn value(self) -> &'h [u8] {
        self.field.value.of_head(self.head)
    }

    /// All of the line, where it came just as HTTP/1.1 writes it here.
    fn whole(self) -> Option<&'h [u8]> {
        let Field { name, value, .. } = self.field;
        let (start, end) = (name.start as usize, value.end as usize);
        let whole = self.head.get(start..end + 2)?;
        let colon = whole.get(name.end as usize - start..)?.first_chunk()?;
        let is_plain = value.start == name.end + 2 && colon == b": " && whole.ends_with(b"\r\n");
        is_plain.then_some(whole)
    }

    /// Writes it as HTTP/1.1: by one copy instead of four where it can.
    pub(crate) fn write(self, out: &mut Outbound) {
        match self.whole() {
            Some(whole) => out.extend_from_slice(whole),
            None => out.put(&[self.name(), b": ", self.value(), b"\r\n"]),
        }
    }
}

/// The fields of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'h> {
    pub(crate) head: &'h [u8],
    pub(crate) fields: &'h [Field],
}

impl<'h> Fields<'h> {
    /// Kind, name and value of each field, in the order in which they came.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Name, &'h [u8], &'h [u8])> + Clone {
        let head = self.head;
        self.fields.iter().map(move |field| {
            (
                field.kind,
                field.name.of_head(head),
                field.value.of_head(head),
            )
        })
    }

    /// Kind and line of each field, in the order in which they came.
    pub(crate) fn lines(self) -> impl Iterator<Item = (Name, Line<'h>)> {
        let head = self.head;
        self.fields
            .iter()
            .map(move |field| (field.kind, Line { head, field }))
    }
}

/// Finds the end of a head in bytes that arrive little by little, in time linear to their number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadFinder {
    /// No head ends before this offset.
    scanned: usize,
    /// How many line ends have passed.
    lines: usize,
}

impl HeadFinder {
    /// Length of the head that `bytes` begin with, empty line included; `None` while it is open.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = self.scanned;
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let line_end = at + found;
            // An empty line: LF, or CR LF, right after a line end.
            match (bytes.get(line_end + 1), bytes.get(line_end + 2)) {
                (Some(b'\n'), _) => return Some(line_end + 2),
                (Some(b'\r'), Some(b'\n')) => return Some(line_end + 3),
                // Not told yet: this line end has to be looked at again.
                (None, _) | (Some(b'\r'), None) => {
                    self.scanned = line_end;
                    return None;
                }
                _ => {
                    self.lines += 1;
                    at = line_end + 1;
                }
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Whether it has not looked at anything.
    pub(crate) fn is_new(&self) -> bool {
        self.scanned == 0
    }

    /// Whether the start line is complete.
    pub(crate) fn has_line(&self) -> bool {
        self.lines > 0
    }
}

/// A head that breaks the grammar of RFC 9112.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Not the syntax.
    #[error("malformed head")]
    Syntax,
    /// More fields, or more bytes, than we read.
    #[error("head is too large")]
    TooLarge,
}

/// The first line of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) version: Version,
}

/// The first line of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusLine {
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) version: Version,
}

/// Parses the head that `bytes` begin with, and puts its fields into `fields`, whose old content is
/// lost. Also gives its length, empty line included; `None` while it is open.
///
/// # Errors
/// It breaks the grammar, or it has more than 100 fields.
pub(crate) fn parse_request(
    bytes: &[u8],
    fields: &mut Vec<Field>,
) -> Result<Option<(RequestLine, usize)>, HeadError> {
    let mut parsed = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut parsed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    take_fields(bytes, request.headers, fields);
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(HeadError::Syntax);
    };
    let (method, target) = (
        Span::of(method.as_bytes(), bytes),
        Span::of(target.as_bytes(), bytes),
    );
    let line = RequestLine {
        method,
        target,
        version: version(minor),
    };
    Ok(Some((line, length)))
}

/// Whether `start`, which ends in the middle of a head, can still become a request.
///
/// # Errors
/// No: there is no use in waiting for the rest.
pub(crate) fn check_request_start(start: &[u8]) -> Result<(), HeadError> {
    let mut parsed = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    httparse::Request::new(&mut []).parse_with_uninit_headers(start, &mut parsed)?;
    Ok(())
}

/// Parses the head that `bytes` begin with, and puts its fields into `fields`, whose old content is
/// lost. Also gives its length, empty line included; `None` while it is open.
///
/// # Errors
/// It breaks the grammar, or it has more than 100 fields.
pub(crate) fn parse_response(
    bytes: &[u8],
    fields: &mut Vec<Field>,
) -> Result<Option<(StatusLine, usize)>, HeadError> {
    // httparse skips empty lines here too; only a request may begin with them (RFC 9112 section 2.2).
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Syntax);
    }
    let mut parsed = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut response, bytes, &mut parsed)?;
    let httparse::Status::Complete(length) = status else {
        return Ok(None);
    };
    take_fields(bytes, response.headers, fields);
    let (Some(status @ 100..=999), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Syntax);
    };
    let reason = Span::of(response.reason.unwrap_or_default().as_bytes(), bytes);
    // A reason with bytes beyond ASCII is given as an empty text that lies elsewhere.
    let reason = if reason.end as usize <= length {
        reason
    } else {
        Span::default()
    };
    let line = StatusLine {
        status,
        reason,
        version: version(minor),
    };
    Ok(Some((line, length)))
}

fn take_fields(bytes: &[u8], parsed: &[httparse::Header<'_>], fields: &mut Vec<Field>) {
    fields.clear();
    fields.extend(parsed.iter().map(|field| Field {
        kind: Name::of(field.name.as_bytes()),
        name: Span::of(field.name.as_bytes(), bytes),
        value: Span::of(field.value, bytes),
    }));
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooLarge,
            _ => Self::Syntax,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_however_it_arrives() {
        for (bytes, length) in [
            (&b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\n\n"[..], 24),
            (b"GET / HTTP/1.1\nA: b\n\nbody", 21),
            (b"GET / HTTP/1.1\r\nA: b\n\r\nbody", 23),
            (b"GET / HTTP/1.1\r\n\r\n", 18),
        ] {
            let mut finder = HeadFinder::default();
            let found = (0..=bytes.len()).find_map(|end| finder.find(&bytes[..end]));
            assert_eq!(found, Some(length), "{:?}", String::from_utf8_lossy(bytes));
            assert_eq!(HeadFinder::default().find(bytes), found);
        }
        assert_eq!(
            HeadFinder::default().find(b"GET / HTTP/1.1\r\nA: b\r\n"),
            None
        );
    }

    #[test]
    fn the_parser_and_the_finder_see_the_same_end() {
        for (start, rest) in [
            ("", "\r\n\r\nbody"),
            ("", "\n\nbody"),
            ("", "\r\n\nbody"),
            ("", "\n\r\n\r\n"),
            ("\r\nA: b", "\r\n\r\nA: b\r\n\r\n"),
            ("\r\nA:", "\r\n\r\n"),
            ("\nA: b\r\nC: d", "\n\nGET / HTTP/1.1\r\n\r\n"),
            ("\nA: b\r", "\n\r\n\n"),
        ] {
            let text = format!("GET / HTTP/1.1{start}{rest}");
            let found = HeadFinder::default().find(text.as_bytes());
            let parsed = parse_request(text.as_bytes(), &mut Vec::new());
            assert_eq!(parsed.unwrap().map(|(_, length)| length), found, "{text:?}");
            let text = format!("HTTP/1.1 200 OK{start}{rest}");
            let found = HeadFinder::default().find(text.as_bytes());
            let parsed = parse_response(text.as_bytes(), &mut Vec::new());
            assert_eq!(parsed.unwrap().map(|(_, length)| length), found, "{text:?}");
            let open = text.len() - rest.len();
            let parsed = parse_response(&text.as_bytes()[..open], &mut Vec::new());
            assert!(parsed.unwrap().is_none(), "{:?}", &text[..open]);
        }
    }

    #[test]
    fn a_dripped_head_is_scanned_once() {
        let head = vec![b'a'; 30_000];
        let mut finder = HeadFinder::default();
        assert!(finder.is_new(), "it may be parsed at once");
        for end in 0..head.len() {
            let before = finder.scanned;
            finder.find(&head[..end]);
            assert_eq!(finder.is_new(), end == 0, "{end}: it is parsed each time");
            assert!(
                end - before <= 1,
                "{end}: {} bytes were scanned again",
                end - before
            );
        }
    }

    #[test]
    fn a_request_is_taken_apart_in_place() {
        let head = b"POST /a?b HTTP/1.0\r\nHost: x\r\nX-Y:  z \r\n\r\n";
        let mut fields = Vec::new();
        let (line, length) = parse_request(head, &mut fields).unwrap().unwrap();
        assert_eq!(length, head.len());
        assert_eq!(
            (line.method.of_head(head), line.target.of_head(head)),
            (&b"POST"[..], &b"/a?b"[..])
        );
        assert_eq!(line.version, Version::HTTP_10);
        let fields: Vec<_> = Fields {
            head,
            fields: &fields,
        }
        .iter()
        .collect();
        assert_eq!(
            fields,
            [
                (Name::Host, &b"Host"[..], &b"x"[..]),
                (Name::Other, b"X-Y", b"z")
            ]
        );
    }

    #[test]
    fn a_line_is_whole_where_it_came_as_it_is_written() {
        for (line, whole) in [
            ("A: b\r\n", true),
            ("Abc: b c: d é\r\n", true),
            ("A:b\r\n", false),
            ("A:\tb\r\n", false),
            ("A:  b\r\n", false),
            ("A: b \r\n", false),
            ("A: b\n", false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n");
            let mut fields = Vec::new();
            parse_request(text.as_bytes(), &mut fields).unwrap();
            let head = text.as_bytes();
            let fields = Fields {
                head,
                fields: &fields,
            };
            let (_, last) = fields.lines().last().unwrap();
            assert_eq!(last.whole(), whole.then_some(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn a_line_is_written_in_one_way_however_it_came() {
        for (line, written) in [
            ("A: b\r\n", "A: b\r\n"),
            ("A:b\n", "A: b\r\n"),
            ("A:\t b \r\n", "A: b\r\n"),
            ("A: \r\n", "A: \r\n"),
            ("A:\r\n", "A: \r\n"),
            ("A:  \n", "A: \r\n"),
            ("A:\n", "A: \r\n"),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{line}B: c\r\n\r\n");
            let (head, mut fields) = (head.as_bytes(), Vec::new());
            parse_request(head, &mut fields).unwrap();
            let fields = Fields {
                head,
                fields: &fields,
            };
            let mut out = Outbound::new();
            let (_, first) = fields.lines().next().unwrap();
            first.write(&mut out);
            assert_eq!(*out, written.as_bytes(), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_known_by_its_first_line() {
        for (start, fine) in [
            (&b"GET / HTTP/1.1\r\n"[..], true),
            (b"\x16\x03\x01\x02\n", false),
            (b"GET  / HTTP/1.1\r\n", false),
            (b"GET / HTTP/2.0\r\n", false),
            (b"GET /\r\n", false),
        ] {
            assert_eq!(
                check_request_start(start).is_ok(),
                fine,
                "{:?}",
                String::from_utf8_lossy(start)
            );
        }
    }

    #[test]
    fn a_reason_is_optional_and_may_be_anything() {
        for (head, reason) in [
            (&b"HTTP/1.1 404 Not There\r\n\r\n"[..], &b"Not There"[..]),
            (b"HTTP/1.1 200\r\n\r\n", b""),
            (b"HTTP/1.1 200 \xc3\xa9\r\n\r\n", b""),
        ] {
            let (line, _) = parse_response(head, &mut Vec::new()).unwrap().unwrap();
            assert_eq!(
                line.reason.of_head(head),
                reason,
                "{:?}",
                String::from_utf8_lossy(head)
            );
        }
        for bad in [
            &b"HTTP/1.1 99 x\r\n\r\n"[..],
            b"HTTP/2 200\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 20x\r\n\r\n",
            b"\nHTTP/1.1 200 OK\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(
                parse_response(bad, &mut Vec::new()).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn a_start_line_is_known_to_be_complete_once_the_next_line_has_begun() {
        for (bytes, complete) in [
            (&b""[..], false),
            (b"GET / HTTP/1.1", false),
            (b"GET / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\r\nA", true),
            (b"GET / HTTP/1.1\r\nA: b\r\nC", true),
        ] {
            let mut finder = HeadFinder::default();
            assert_eq!(finder.find(bytes), None);
            assert_eq!(
                finder.has_line(),
                complete,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_hundred_fields_are_read_and_one_more_is_too_large() {
        for (count, error) in [(100, None), (101, Some(HeadError::TooLarge))] {
            let fields = "A: b\r\n".repeat(count);
            let request = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let mut read = Vec::new();
            assert_eq!(
                parse_request(request.as_bytes(), &mut read).err(),
                error,
                "{count} fields of a request"
            );
            assert_eq!(
                parse_response(response.as_bytes(), &mut read).err(),
                error,
                "{count} fields of a response"
            );
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_no_matter_of_size() {
        for head in ["GET / HTTP/1.1\r\nA b\r\n\r\n", "GET / HTTP/3.0\r\n\r\n"] {
            let read = parse_request(head.as_bytes(), &mut Vec::new());
            assert_eq!(read.err(), Some(HeadError::Syntax), "{head:?}");
        }
    }

    #[test]
    fn fields_of_another_protocol_are_kept_like_those_of_a_head() {
        let mut head = b"before".to_vec();
        let fields = [("host", "a.b"), ("x-y", ""), ("cookie", "c=d")]
            .map(|(name, value)| Field::write(&mut head, name.as_bytes(), value.as_bytes()));
        let read: Vec<_> = Fields {
            head: &head,
            fields: &fields,
        }
        .iter()
        .collect();
        assert_eq!(
            read,
            [
                (Name::Host, &b"host"[..], &b"a.b"[..]),
                (Name::Other, b"x-y", b""),
                (Name::Cookie, b"cookie", b"c=d"),
            ]
        );
    }
}
