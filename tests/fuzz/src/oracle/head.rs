//! Heads: lines, then fields.

use std::fmt;

use super::{Manner, Read};

/// A field.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case.
    pub name: Vec<u8>,
    /// Without the space around it.
    pub value: Vec<u8>,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value } = self;
        write!(f, "{}: {}", name.escape_ascii(), value.escape_ascii())
    }
}

/// A head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first line, without its end.
    pub start: Vec<u8>,
    /// The others.
    pub fields: Vec<Field>,
    /// In bytes, with the empty line.
    pub length: usize,
}

impl Head {
    /// The values of all fields called `name`, which is in lower case.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.fields
            .iter()
            .filter(move |field| field.name == name.as_bytes())
            .map(|field| field.value.as_slice())
    }

    /// The members of all lists called `name`, in lower case.
    pub fn members(&self, name: &str) -> Vec<Vec<u8>> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(|member| trim(member).to_ascii_lowercase())
            .filter(|member| !member.is_empty())
            .collect()
    }
}

/// Reads the head that `bytes` begin with.
pub fn head(bytes: &[u8], manner: Manner) -> Read<Head> {
    let Some((start, mut at)) = (match line(bytes, manner) {
        Read::Done(line) => Some(line),
        Read::Open => return Read::Open,
        Read::Bad(reason) => return Read::Bad(reason),
    }) else {
        return Read::Open;
    };
    let mut fields = Vec::new();
    // A head is judged when it is whole: until then nobody acts on it.
    let mut fault = None;
    loop {
        let rest = &bytes[at..];
        let (text, length) = match line(rest, manner) {
            Read::Done(line) => line,
            Read::Open => return Read::Open,
            Read::Bad(reason) => {
                fault.get_or_insert(reason);
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
                continue;
            }
        };
        at += length;
        if text.is_empty() {
            break;
        }
        match field(text) {
            Ok(field) => fields.push(field),
            Err(reason) => {
                fault.get_or_insert(reason);
            }
        }
    }
    match fault {
        Some(reason) => Read::Bad(reason),
        None => Read::Done(Head {
            start: start.to_vec(),
            fields,
            length: at,
        }),
    }
}

/// The first line of `bytes` without its end, and its length with it.
pub(super) fn line(bytes: &[u8], manner: Manner) -> Read<(&[u8], usize)> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Read::Open;
    };
    let text = match (bytes[..end].strip_suffix(b"\r"), manner) {
        (Some(text), _) => text,
        (None, Manner::Forgiving) => &bytes[..end],
        (None, Manner::Strict) => return Read::Bad("a line ends in a bare LF"),
    };
    if text.contains(&b'\r') {
        return Read::Bad("CR inside a line");
    }
    Read::Done((text, end + 1))
}

/// Reads a field line (RFC 9112 section 5): no space before the colon, no folding, no control
/// characters.
pub(super) fn field(line: &[u8]) -> Result<Field, &'static str> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or("a field without a colon")?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if !is_token(name) {
        return Err("a field's name is no token");
    }
    if value.iter().any(|byte| is_control(*byte)) {
        return Err("a field's value has a control character");
    }
    Ok(Field {
        name: name.to_ascii_lowercase(),
        value: value.to_vec(),
    })
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_control(byte: u8) -> bool {
    byte != b'\t' && (byte < b' ' || byte == 0x7f)
}

fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte));
    let end = text.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => b"",
    }
}
