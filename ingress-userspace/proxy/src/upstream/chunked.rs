//! Takes the chunked coding off a response body (RFC 9112 section 7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::ResponseError;

/// Longest line of a chunk's size and its extensions.
const LINE_LIMIT: usize = 4096;
/// Longest trailer section.
const TRAILER_LIMIT: usize = 16 * 1024;

/// Where in the coding the decoder is.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The line end after a chunk's data.
    End,
    Trailers,
}

/// What one step of decoding gave.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Some data.
    Data(Bytes),
    /// The last chunk has passed; what came after it.
    Last(HeaderMap),
    /// Nothing before more bytes arrive.
    Starved,
}

impl Chunked {
    /// Takes as much as it can from `inbound`.
    ///
    /// # Errors
    /// A size is no hexadecimal number, a line end is not CR LF, or a limit is passed.
    pub(super) fn decode(&mut self, inbound: &mut BytesMut) -> Result<Decoded, ResponseError> {
        loop {
            match &mut self.state {
                State::Size => match size(inbound)? {
                    None => return Ok(Decoded::Starved),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(left) => {
                    if inbound.is_empty() {
                        return Ok(Decoded::Starved);
                    }
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(inbound.len());
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::End;
                    }
                    return Ok(Decoded::Data(inbound.split_to(take).freeze()));
                }
                State::End => {
                    match inbound.get(..2) {
                        None => return Ok(Decoded::Starved),
                        Some(b"\r\n") => inbound.advance(2),
                        Some(_) => return Err(ResponseError::Chunk),
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    return trailers(inbound)
                        .map(|last| last.map_or(Decoded::Starved, Decoded::Last));
                }
            }
        }
    }
}

fn size(inbound: &mut BytesMut) -> Result<Option<u64>, ResponseError> {
    let Some(end) = inbound
        .iter()
        .take(LINE_LIMIT)
        .position(|&byte| byte == b'\n')
    else {
        return if inbound.len() >= LINE_LIMIT {
            Err(ResponseError::Chunk)
        } else {
            Ok(None)
        };
    };
    let line = inbound
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(ResponseError::Chunk)?;
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, rest) = line.split_at(digits);
    if !matches!(rest.first(), None | Some(b';' | b' ' | b'\t')) || rest.contains(&b'\r') {
        return Err(ResponseError::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| ResponseError::Chunk)?;
    // An empty or too long number is an error too.
    let size = u64::from_str_radix(digits, 16).map_err(|_| ResponseError::Chunk)?;
    inbound.advance(end + 1);
    Ok(Some(size))
}

fn trailers(inbound: &mut BytesMut) -> Result<Option<HeaderMap>, ResponseError> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let (length, fields) = match httparse::parse_headers(inbound, &mut fields) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if inbound.len() < TRAILER_LIMIT => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ResponseError::Chunk),
    };
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ResponseError::Chunk)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| ResponseError::Chunk)?;
        // RFC 9110 section 6.5.1: what frames or routes a message has no place here.
        if !matches!(
            name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::HOST | header::CONNECTION
        ) {
            trailers.append(name, value);
        }
    }
    inbound.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<HeaderMap>), ResponseError> {
        let (mut decoder, mut inbound, mut body) =
            (Chunked::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            inbound.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut inbound)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Last(trailers) => return Ok((body, Some(trailers))),
                    Decoded::Starved => break,
                }
            }
        }
        Ok((body, None))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let coded = b"5;name=value\r\nhello\r\n1 \r\n,\r\n6\r\n world\r\n0\r\nGrpc-Status: 0\r\nHost: x\r\n\r\n";
        for cut in 0..=coded.len() {
            let (head, tail) = coded.split_at(cut);
            let (body, trailers) = decode(&[head, tail]).unwrap();
            assert_eq!(body, b"hello, world", "cut at {cut}");
            let trailers = trailers.unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), "0");
            assert_eq!(trailers.len(), 1, "a framing field passed as a trailer");
        }
    }

    #[test]
    fn bad_framing_is_an_error() {
        for coded in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"1_0\r\n",
            b"10000000000000000\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n\n",
            b"1\rx\r\n",
            &[b'1'; 5000],
        ] {
            assert!(
                decode(&[coded]).is_err(),
                "{:?}",
                String::from_utf8_lossy(coded)
            );
        }
    }
}
