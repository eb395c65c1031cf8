//! Responses.

use super::{Body, End, Framing, Head, Manner, Read, head};

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Three digits.
    pub status: u16,
    /// What stands behind them.
    pub reason: Vec<u8>,
    /// The version is HTTP/1.0.
    pub http10: bool,
    /// Line and fields.
    pub head: Head,
    /// How its body ends.
    pub framing: Framing,
    /// Its body; of 101, all that follows.
    pub body: Body,
    /// How many bytes it took, if its body is whole.
    pub length: usize,
}

impl Response {
    /// Whether another response to the same request follows.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Reads the response to a request with `method` that `bytes` begin with; `closed` says that nothing
/// comes after them.
pub fn response(bytes: &[u8], method: &[u8], closed: bool, manner: Manner) -> Read<Response> {
    let head = match head(bytes, manner) {
        Read::Done(head) => head,
        Read::Open => return Read::Open,
        Read::Bad(reason) => return Read::Bad(reason),
    };
    let (http10, rest) = match head.start.split_at_checked(8) {
        Some((b"HTTP/1.1", rest)) => (false, rest),
        Some((b"HTTP/1.0", rest)) if manner == Manner::Forgiving => (true, rest),
        _ => return Read::Bad("another version"),
    };
    let (status, reason) = match rest {
        [b' ', status @ ..] => status.split_at(status.len().min(3)),
        _ => return Read::Bad("no space behind the version"),
    };
    let reason = match (reason, manner) {
        ([b' ', reason @ ..], _) => reason,
        ([], Manner::Forgiving) => b"",
        _ => return Read::Bad("no space behind the status"),
    };
    if reason
        .iter()
        .any(|byte| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f))
    {
        return Read::Bad("a control character in the reason");
    }
    let status = match status {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => status
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
        _ => return Read::Bad("a status that is not three digits"),
    };
    let framing = if status == 101 {
        Framing::Close
    } else if method == b"HEAD" || matches!(status, 100..200 | 204 | 304) {
        // The fields say what would be, and have to make sense all the same.
        match of_response(&head) {
            Ok(_) => Framing::None,
            Err(reason) => return Read::Bad(reason),
        }
    } else {
        match of_response(&head) {
            Ok(Framing::None) => Framing::Close,
            Ok(framing) => framing,
            Err(reason) => return Read::Bad(reason),
        }
    };
    let body = framing.read(&bytes[head.length..], closed, manner);
    Read::Done(Response {
        status,
        reason: reason.to_vec(),
        http10,
        length: head.length + body.length,
        framing,
        body,
        head,
    })
}

/// Chunks beside a length win here (RFC 9112 section 6.3, rule 3), and are read in HTTP/1.0.
fn of_response(head: &Head) -> Result<Framing, &'static str> {
    let both = head.values("transfer-encoding").next().is_some();
    let mut own = head.clone();
    if both {
        Framing::of(
            &Head {
                fields: head
                    .fields
                    .iter()
                    .filter(|field| field.name != b"transfer-encoding")
                    .cloned()
                    .collect(),
                ..own.clone()
            },
            false,
        )?;
        own.fields.retain(|field| field.name != b"content-length");
    }
    Framing::of(&own, false)
}

/// Reads responses up to the final one: the interim ones, then it.
pub fn final_response(
    bytes: &[u8],
    method: &[u8],
    closed: bool,
    manner: Manner,
) -> (Vec<Response>, Read<Response>) {
    let (mut interim, mut at) = (Vec::new(), 0);
    loop {
        match response(&bytes[at..], method, closed, manner) {
            Read::Done(response) if response.is_interim() => {
                at += response.length;
                interim.push(response);
            }
            Read::Done(mut response) => {
                response.length += at;
                if closed && response.body.end == End::Open {
                    response.body.end = End::Broken("the connection ends before the body does");
                }
                return (interim, Read::Done(response));
            }
            other => return (interim, other.map(|response| response)),
        }
    }
}
