//! The head of a response: what it says about the message itself (RFC 9112 sections 4 to 6).

use std::time::Duration;

use http::Version;

use super::{error::ResponseError, pool::IDLE_TIME};
use crate::http1::{
    Field, Fields, Framing, FramingFields, HeadError, HeadFinder, Name, Span, StatusLine,
    is_keep_alive, options, parse_response,
};
use crate::net::INBOUND_SIZE;

/// Largest head of a response, in bytes.
const HEAD_LIMIT: usize = INBOUND_SIZE;

/// What the request was, as far as the meaning of its response depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// HEAD: the response has no body whatever its head says.
    pub(crate) head: bool,
    /// An upgrade was asked for: 101 is allowed.
    pub(crate) upgrade: bool,
}

/// A head that has arrived; its bytes are at the front of its connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// 100 to 999.
    pub(crate) status: u16,
    /// The endpoint's own words for it.
    pub(crate) reason: Span,
    /// In bytes.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
    /// `Content-Length` as it came, for responses whose body is not sent.
    pub(crate) declared: Option<u64>,
    /// `Connection` names fields, which go no further.
    pub(crate) names_fields: bool,
    /// How long the connection may be kept once the body has ended; zero: not at all.
    pub(super) idle_time: Duration,
}

impl Head {
    /// Whether more heads follow.
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Takes the head apart that `bytes` begin with, and puts its fields into `fields`; `None` until it
/// is complete. `finder` has looked at no other head.
///
/// # Errors
/// The head breaks RFC 9112, or it is over a limit.
pub(crate) fn read_head(
    bytes: &[u8],
    finder: &mut HeadFinder,
    fields: &mut Vec<Field>,
    context: Context,
) -> Result<Option<Head>, ResponseError> {
    // Nearly always all of it comes at once. Where it does not, or is none, its end is looked for in
    // what is new each time, and it is parsed once more.
    let at_once = if finder.is_new() {
        parse_response(bytes, fields).ok().flatten()
    } else {
        None
    };
    let (line, length) = match at_once {
        Some(parsed) => parsed,
        None => {
            let Some(length) = finder.find(bytes) else {
                return if bytes.len() >= HEAD_LIMIT {
                    Err(HeadError::TooLarge.into())
                } else {
                    Ok(None)
                };
            };
            *finder = HeadFinder::default();
            let head = bytes.get(..length).unwrap_or_default();
            parse_response(head, fields)?.ok_or(HeadError::Syntax)?
        }
    };
    let head = bytes.get(..length).unwrap_or_default();
    interpret(line, length, Fields { head, fields }, context).map(Some)
}

fn interpret(
    line: StatusLine,
    length: usize,
    fields: Fields<'_>,
    context: Context,
) -> Result<Head, ResponseError> {
    let mut framing_fields = FramingFields::default();
    let mut keep_alive = line.version == Version::HTTP_11;
    let mut idle_time = IDLE_TIME;
    let (mut names_fields, mut websocket) = (false, false);
    for (kind, _, value) in fields.iter() {
        match kind {
            Name::ContentLength => framing_fields.take_length(value)?,
            Name::TransferEncoding => framing_fields.take_coding(value)?,
            Name::Connection if is_keep_alive(value) => {}
            Name::Connection => {
                for option in options(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if !option.eq_ignore_ascii_case(b"keep-alive")
                        && !option.eq_ignore_ascii_case(b"upgrade")
                    {
                        names_fields = true;
                    }
                }
            }
            Name::KeepAlive => idle_time = idle_time.min(promised(value)),
            Name::Upgrade => websocket = value.eq_ignore_ascii_case(b"websocket"),
            _ => {}
        }
    }
    if line.status == 101 && !(context.upgrade && websocket) {
        return Err(ResponseError::Unasked);
    }
    if framing_fields.chunked && framing_fields.length.is_some() {
        // RFC 9112 section 6.3: the coding wins, and the sender is not to be trusted further.
        keep_alive = false;
    }
    let declared = framing_fields.length.filter(|_| !framing_fields.chunked);
    let bodiless = context.head || matches!(line.status, 100..200 | 204 | 304);
    let framing = match (bodiless, framing_fields.chunked, declared) {
        (true, ..) => Framing::Length(0),
        (false, true, _) => Framing::Chunked,
        (false, false, Some(length)) => Framing::Length(length),
        (false, false, None) => Framing::Close,
    };
    // No body by the rules, and one by its own words: it may still come.
    let is_doubtful =
        line.status == 204 && (framing_fields.chunked || declared.is_some_and(|length| length > 0));
    if framing == Framing::Close || !keep_alive || is_doubtful {
        idle_time = Duration::ZERO;
    }
    let StatusLine { status, reason, .. } = line;
    Ok(Head {
        status,
        reason,
        length,
        framing,
        declared,
        names_fields,
        idle_time,
    })
}

/// How long an endpoint that says `Keep-Alive: timeout=N` can be relied on: a second less, so that
/// no request crosses its close.
fn promised(value: &[u8]) -> Duration {
    let seconds = options(value).find_map(|option| {
        let (name, value) = option.split_at_checked(b"timeout=".len())?;
        let value = std::str::from_utf8(value).ok()?;
        value
            .parse::<u64>()
            .ok()
            .filter(|_| name.eq_ignore_ascii_case(b"timeout="))
    });
    seconds.map_or(IDLE_TIME, |seconds| {
        Duration::from_secs(seconds.saturating_sub(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Context = Context {
        head: false,
        upgrade: false,
    };

    fn head(text: &str, context: Context) -> Result<Head, ResponseError> {
        let mut fields = Vec::new();
        let (line, _) = parse_response(text.as_bytes(), &mut fields)?.unwrap();
        interpret(
            line,
            text.len(),
            Fields {
                head: text.as_bytes(),
                fields: &fields,
            },
            context,
        )
    }

    #[test]
    fn framing_follows_the_precedence_of_rfc_9112() {
        use Framing::{Chunked, Close, Length};
        let head_request = Context {
            head: true,
            ..PLAIN
        };
        for (context, text, framing, kept) in [
            (PLAIN, "200 OK\r\nContent-Length: 5\r\n", Length(5), true),
            (
                PLAIN,
                "200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
                Length(5),
                true,
            ),
            (
                PLAIN,
                "200 OK\r\nTransfer-Encoding: Chunked\r\n",
                Chunked,
                true,
            ),
            (
                PLAIN,
                "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                Chunked,
                false,
            ),
            (
                PLAIN,
                "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Chunked,
                false,
            ),
            (PLAIN, "200 OK\r\n", Close, false),
            (PLAIN, "204 No Content\r\n", Length(0), true),
            (
                PLAIN,
                "204 No Content\r\nContent-Length: 0\r\n",
                Length(0),
                true,
            ),
            // Where the endpoint means it, the body comes when another request is on its way.
            (
                PLAIN,
                "204 No Content\r\nContent-Length: 5\r\n",
                Length(0),
                false,
            ),
            (
                PLAIN,
                "204 No Content\r\nTransfer-Encoding: chunked\r\n",
                Length(0),
                false,
            ),
            (
                PLAIN,
                "304 Not Modified\r\nContent-Length: 7\r\n",
                Length(0),
                true,
            ),
            (
                PLAIN,
                "200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n",
                Length(5),
                false,
            ),
            (
                head_request,
                "200 OK\r\nContent-Length: 5\r\n",
                Length(0),
                true,
            ),
        ] {
            let head = head(&format!("HTTP/1.1 {text}\r\n"), context).unwrap();
            assert_eq!(
                (head.framing, !head.idle_time.is_zero()),
                (framing, kept),
                "{text:?}"
            );
        }
        assert!(
            head("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", PLAIN)
                .unwrap()
                .idle_time
                .is_zero()
        );
    }

    #[test]
    fn invalid_responses_are_refused() {
        for text in [
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            "200 OK\r\nContent-Length: +5\r\n",
            "200 OK\r\nContent-Length: 5, 5\r\n",
            "200 OK\r\nContent-Length:\r\n",
            "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "101 Switching Protocols\r\nUpgrade: websocket\r\n",
            "200 OK\r\nname : value\r\n",
            "200 OK\r\nname: a\r\n b\r\n",
        ] {
            assert!(
                head(&format!("HTTP/1.1 {text}\r\n"), PLAIN).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_switch_is_to_what_was_asked_for() {
        let asked = Context {
            upgrade: true,
            head: false,
        };
        for (text, fine) in [("WebSocket", true), ("h2c", false)] {
            let text = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {text}\r\nConnection: Upgrade\r\n\r\n"
            );
            assert_eq!(head(&text, asked).is_ok(), fine, "{text:?}");
        }
    }

    #[test]
    fn what_connection_names_beside_the_usual_options_are_fields() {
        for (value, names) in [
            ("keep-alive", false),
            ("Keep-Alive, Upgrade", false),
            ("close", false),
            ("", false),
            ("x-secret", true),
            ("close, X-Secret", true),
            ("keep-alive, keep-alives", true),
        ] {
            let text =
                format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: {value}\r\n\r\n");
            assert_eq!(head(&text, PLAIN).unwrap().names_fields, names, "{value:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_for_less_than_its_endpoint_promises() {
        for (value, seconds) in [
            ("timeout=5", 4),
            ("max=3, Timeout=5", 4),
            ("timeout=900", 60),
            ("timeout=1", 0),
            ("x", 60),
        ] {
            let text =
                format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: {value}\r\n\r\n");
            assert_eq!(
                head(&text, PLAIN).unwrap().idle_time.as_secs(),
                seconds,
                "{value}"
            );
        }
    }
}
