//! Reads the head of a response (RFC 9112 sections 4 to 6).

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{ResponseError, chunked::Chunked};

/// Most fields in a head.
const FIELD_LIMIT: usize = 100;
/// Largest head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;

/// Where a field stands in the bytes of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    name: (usize, usize),
    value: (usize, usize),
}

/// What the request was, as far as the meaning of its response depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// HEAD: the response has no body whatever its head says.
    pub(super) head: bool,
    /// An upgrade was asked for: 101 is allowed.
    pub(super) upgrade: bool,
}

/// How the body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// A head, apart from its fields.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) framing: Framing,
    /// Whether the connection may carry another request once the body has ended.
    pub(super) keep_alive: bool,
}

/// Takes the final head from `inbound` and puts its end-to-end fields into `headers`, whose old
/// content is lost; `None` until the head is complete.
///
/// Informational responses are passed over: HTTP/1 clients that sent `Expect` have had their 100
/// from us.
///
/// # Errors
/// The head breaks RFC 9112, or it is over a limit.
pub(super) fn take_head(
    inbound: &mut BytesMut,
    spans: &mut Vec<Span>,
    headers: &mut HeaderMap,
    context: Context,
) -> Result<Option<Head>, ResponseError> {
    loop {
        let Some((length, status, http11)) = parse(inbound, spans)? else {
            return Ok(None);
        };
        let head = inbound.split_to(length).freeze();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        if status == StatusCode::SWITCHING_PROTOCOLS && !context.upgrade {
            return Err(ResponseError::Unasked);
        }
        headers.clear();
        headers.reserve(spans.len() + 2);
        let mut fields = Fields {
            keep_alive: http11,
            ..Fields::default()
        };
        for span in spans.iter() {
            let name = head
                .get(span.name.0..span.name.1)
                .ok_or(ResponseError::Head)?;
            let name = HeaderName::from_bytes(name).map_err(|_| ResponseError::Head)?;
            let value = HeaderValue::from_maybe_shared(head.slice(span.value.0..span.value.1))
                .map_err(|_| ResponseError::Head)?;
            fields.take(name, value, headers)?;
        }
        fields.strip(headers);
        return fields.finish(status, headers, context).map(Some);
    }
}

/// Length of the head, its status, and whether it is HTTP/1.1.
fn parse(
    inbound: &[u8],
    spans: &mut Vec<Span>,
) -> Result<Option<(usize, StatusCode, bool)>, ResponseError> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length =
        match config.parse_response_with_uninit_headers(&mut response, inbound, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => length,
            Ok(httparse::Status::Partial) if inbound.len() < HEAD_LIMIT => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::TooLarge),
            Err(_) => return Err(ResponseError::Head),
        };
    let base = inbound.as_ptr() as usize;
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        (start, start + part.len())
    };
    spans.clear();
    spans.extend(response.headers.iter().map(|field| Span {
        name: place(field.name.as_bytes()),
        value: place(field.value),
    }));
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(ResponseError::Head)?;
    Ok(Some((length, status, response.version == Some(1))))
}

/// What the fields say about the message itself.
#[derive(Default)]
struct Fields {
    keep_alive: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: Option<HeaderValue>,
    /// Fields named by `Connection`, which go no further (RFC 9110 section 7.6.1).
    named: Vec<HeaderName>,
}

impl Fields {
    /// Takes a hop-by-hop field for itself and puts any other into `headers`.
    fn take(
        &mut self,
        name: HeaderName,
        value: HeaderValue,
        headers: &mut HeaderMap,
    ) -> Result<(), ResponseError> {
        match name {
            header::CONTENT_LENGTH => {
                let length = length(&value).ok_or(ResponseError::ContentLength)?;
                match self.length.replace(length) {
                    None => drop(headers.append(name, value)),
                    Some(first) if first == length => {}
                    Some(_) => return Err(ResponseError::ContentLength),
                }
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(ResponseError::TransferEncoding);
                }
                self.chunked = true;
            }
            header::CONNECTION => self.connection(&value),
            header::UPGRADE => self.upgrade = Some(value),
            header::TE => {}
            _ if matches!(name.as_str(), "keep-alive" | "proxy-connection") => {}
            _ => drop(headers.append(name, value)),
        }
        Ok(())
    }

    fn connection(&mut self, value: &HeaderValue) {
        for option in value
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            if option.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            } else if !option.eq_ignore_ascii_case(b"keep-alive")
                && !option.eq_ignore_ascii_case(b"upgrade")
            {
                self.named.extend(HeaderName::from_bytes(option));
            }
        }
    }

    fn strip(&mut self, headers: &mut HeaderMap) {
        for name in self
            .named
            .drain(..)
            .filter(|name| *name != header::CONTENT_LENGTH)
        {
            headers.remove(name);
        }
    }

    fn finish(
        mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
        context: Context,
    ) -> Result<Head, ResponseError> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let websocket =
                |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
            let upgrade = self
                .upgrade
                .take()
                .filter(websocket)
                .ok_or(ResponseError::Unasked)?;
            headers.insert(header::UPGRADE, upgrade);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            return Ok(Head {
                status,
                framing: Framing::Close,
                keep_alive: false,
            });
        }
        if self.chunked && self.length.is_some() {
            // RFC 9112 section 6.3: the coding wins, and the sender is not to be trusted further.
            headers.remove(header::CONTENT_LENGTH);
            self.keep_alive = false;
        }
        let bodiless =
            context.head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = match (bodiless, self.chunked, self.length) {
            (true, ..) => Framing::Length(0),
            (false, true, _) => Framing::Chunked(Chunked::default()),
            (false, false, Some(length)) => Framing::Length(length),
            (false, false, None) => Framing::Close,
        };
        let keep_alive = self.keep_alive && !matches!(framing, Framing::Close);
        Ok(Head {
            status,
            framing,
            keep_alive,
        })
    }
}

fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    // `parse` would take a sign.
    if digits.first().is_none_or(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Context = Context {
        head: false,
        upgrade: false,
    };

    fn head(
        bytes: &str,
        context: Context,
    ) -> Result<Option<(Head, HeaderMap, BytesMut)>, ResponseError> {
        let mut headers = HeaderMap::new();
        headers.insert("x-of-the-request", HeaderValue::from_static("1"));
        let mut inbound = BytesMut::from(bytes);
        let head = take_head(&mut inbound, &mut Vec::new(), &mut headers, context)?;
        Ok(head.map(|head| (head, headers, inbound)))
    }

    #[test]
    fn framing_follows_the_precedence_of_rfc_9112() {
        for (context, bytes, framing, keep_alive) in [
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "Length(5)",
                true,
            ),
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                "Length(5)",
                true,
            ),
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                "Chunked",
                true,
            ),
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                "Chunked",
                false,
            ),
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Chunked",
                false,
            ),
            (PLAIN, "HTTP/1.1 200 OK\r\n\r\n", "Close", false),
            (PLAIN, "HTTP/1.1 204 No Content\r\n\r\n", "Length(0)", true),
            (
                PLAIN,
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                "Length(0)",
                true,
            ),
            (
                PLAIN,
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                "Length(5)",
                false,
            ),
            (
                PLAIN,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n",
                "Length(5)",
                false,
            ),
            (
                Context {
                    head: true,
                    ..PLAIN
                },
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "Length(0)",
                true,
            ),
        ] {
            let (head, headers, _) = head(bytes, context).unwrap().unwrap();
            assert!(
                format!("{:?}", head.framing).starts_with(framing),
                "{bytes:?} gave {:?}",
                head.framing
            );
            assert_eq!(head.keep_alive, keep_alive, "{bytes:?}");
            assert!(
                !headers.contains_key("transfer-encoding")
                    && !headers.contains_key("x-of-the-request")
            );
            assert!(
                !(framing == "Chunked" && headers.contains_key("content-length")),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn invalid_responses_are_refused() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert!(head(bytes, PLAIN).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn informational_responses_are_passed_over() {
        let bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (head, headers, rest) = head(bytes, PLAIN).unwrap().unwrap();
        assert_eq!(
            (head.status, headers.len(), &rest[..]),
            (StatusCode::OK, 1, &b"ok"[..])
        );
    }

    #[test]
    fn a_head_is_the_same_however_it_is_cut() {
        let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nA: b\r\n\r\n";
        for cut in 0..bytes.len() {
            assert!(
                head(&bytes[..cut], PLAIN).unwrap().is_none(),
                "complete at {cut}"
            );
        }
        let (_, headers, _) = head(bytes, PLAIN).unwrap().unwrap();
        assert_eq!(headers.len(), 2, "{headers:?}");
    }

    #[test]
    fn a_switch_that_was_asked_for_keeps_its_upgrade() {
        let context = Context {
            upgrade: true,
            head: false,
        };
        let bytes =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n";
        let (_, headers, _) = head(bytes, context).unwrap().unwrap();
        assert_eq!(headers["upgrade"], "WebSocket");
        assert!(head(&bytes.replace("WebSocket", "h2c"), context).is_err());
    }
}
