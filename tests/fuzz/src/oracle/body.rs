//! Bodies: where they end, and what is in them.

use super::{
    Field, Head, Manner, Read,
    head::{field, line},
};

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing says that there is one.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// What is behind the data that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end.
    Whole,
    /// Nothing yet.
    Open,
    /// No body of this framing.
    Broken(&'static str),
}

/// A body, as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its data.
    pub data: Vec<u8>,
    /// Its trailers, once it is whole.
    pub trailers: Vec<Field>,
    /// What is behind the data.
    pub end: End,
    /// How many bytes it took, framing and all, if it is whole.
    pub length: usize,
}

/// What the values of all Content-Length fields say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// There is no such field.
    None,
    /// One number, said once or more often.
    One(u64),
    /// Something else.
    Bad,
}

/// Reads the values of Content-Length fields: digits alone, and all alike.
pub fn number<'v>(values: impl Iterator<Item = &'v [u8]>) -> Numbers {
    let mut all = Numbers::None;
    for value in values {
        let own = if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            None
        } else {
            value.iter().try_fold(0_u64, |number, digit| {
                number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
            })
        };
        all = match (all, own) {
            (Numbers::None, Some(own)) => Numbers::One(own),
            (Numbers::One(before), Some(own)) if before == own => all,
            _ => return Numbers::Bad,
        };
    }
    all
}

impl Framing {
    /// What the fields of `head` say.
    ///
    /// # Errors
    /// Two readers could disagree on it.
    pub(super) fn of(head: &Head, http10: bool) -> Result<Self, &'static str> {
        let codings: Vec<&[u8]> = head.values("transfer-encoding").collect();
        match (codings.as_slice(), number(head.values("content-length"))) {
            (_, Numbers::Bad) => Err("Content-Length is not one number"),
            ([], Numbers::None) => Ok(Self::None),
            ([], Numbers::One(length)) => Ok(Self::Length(length)),
            (_, Numbers::One(_)) => Err("Content-Length beside Transfer-Encoding"),
            (_, Numbers::None) if http10 => Err("Transfer-Encoding in HTTP/1.0"),
            ([coding], Numbers::None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Self::Chunked)
            }
            (_, Numbers::None) => Err("another transfer coding than chunked"),
        }
    }

    /// Reads a body of this framing; `closed` says that nothing comes after `bytes`.
    pub(super) fn read(self, bytes: &[u8], closed: bool, manner: Manner) -> Body {
        match self {
            Self::None => whole(&[]),
            Self::Chunked => chunked(bytes, manner),
            Self::Close if closed => whole(bytes),
            Self::Close => open(bytes),
            Self::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= bytes.len() => whole(&bytes[..length]),
                _ => open(bytes),
            },
        }
    }
}

fn whole(data: &[u8]) -> Body {
    Body {
        length: data.len(),
        end: End::Whole,
        ..open(data)
    }
}

fn open(data: &[u8]) -> Body {
    Body {
        data: data.to_vec(),
        trailers: Vec::new(),
        end: End::Open,
        length: 0,
    }
}

/// Takes the chunked coding off (RFC 9112 section 7.1). Lines end in CR LF in either manner: there
/// is no use in overlooking what only an attacker sends.
pub fn chunked(bytes: &[u8], manner: Manner) -> Body {
    let (mut data, mut at) = (Vec::new(), 0);
    let end = loop {
        let size = match size(&bytes[at..], manner, &mut at) {
            Read::Done(size) => size,
            Read::Open => break End::Open,
            Read::Bad(reason) => break End::Broken(reason),
        };
        if size == 0 {
            return trailers(bytes, at, data);
        }
        let rest = &bytes[at..];
        let there = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        data.extend_from_slice(&rest[..there]);
        at += there;
        match &bytes[at..] {
            _ if (there as u64) < size => break End::Open,
            [] | [b'\r'] => break End::Open,
            [b'\r', b'\n', ..] => at += 2,
            _ => break End::Broken("a chunk goes on behind its size"),
        }
    };
    Body { end, ..open(&data) }
}

/// Reads the line with a chunk's size and moves `at` behind it.
fn size(bytes: &[u8], manner: Manner, at: &mut usize) -> Read<u64> {
    let (text, length) = match line(bytes, Manner::Strict) {
        Read::Done(line) => line,
        Read::Open => return Read::Open,
        Read::Bad(reason) => return Read::Bad(reason),
    };
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, rest) = text.split_at(digits.count());
    let extension: Vec<u8> = rest
        .iter()
        .copied()
        .skip_while(|byte| matches!(byte, b' ' | b'\t'))
        .collect();
    if manner == Manner::Strict && !rest.is_empty() {
        return Read::Bad("something behind a chunk's size");
    }
    // White space only comes before an extension (RFC 9112 section 7.1.1).
    if !rest.is_empty() && extension.first() != Some(&b';') {
        return Read::Bad("something behind a chunk's size that is no extension");
    }
    if extension
        .iter()
        .any(|byte| *byte != b'\t' && byte.is_ascii_control())
    {
        return Read::Bad("a control character in an extension");
    }
    let size = digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        size.checked_mul(16)?.checked_add(u64::from(digit))
    });
    match size {
        _ if digits.is_empty() => Read::Bad("a chunk without a size"),
        _ if digits.len() > 16 => Read::Bad("a chunk's size has more digits than 64 bits"),
        None => Read::Bad("a chunk's size is too great"),
        Some(size) => {
            *at += length;
            Read::Done(size)
        }
    }
}

fn trailers(bytes: &[u8], mut at: usize, data: Vec<u8>) -> Body {
    let (mut trailers, mut fault) = (Vec::new(), None);
    let end = loop {
        let (text, length) = match line(&bytes[at..], Manner::Strict) {
            Read::Done(line) => line,
            Read::Open => break End::Open,
            Read::Bad(reason) => break End::Broken(reason),
        };
        at += length;
        if text.is_empty() {
            break fault.map_or(End::Whole, End::Broken);
        }
        match field(text) {
            Ok(field) => trailers.push(field),
            Err(reason) => fault = Some(reason),
        }
    };
    Body {
        data,
        trailers,
        end,
        length: at,
    }
}
