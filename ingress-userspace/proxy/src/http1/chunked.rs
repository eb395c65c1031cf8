//! The chunked coding (RFC 9112 section 7.1).

use std::io::Write as _;

use super::is_barred_from_trailers;
use crate::net::Inbound;

/// Longest line of a chunk's size and its extensions.
const LINE_LIMIT: usize = 4096;
/// Most digits of a chunk's size, leading zeros included: those of 64 bits.
const SIZE_DIGITS: usize = 16;
/// Longest trailer section.
const TRAILER_LIMIT: usize = 16 * 1024;
/// All that a body may spend on extensions, so that they are no way to send for free.
const EXTENSION_LIMIT: usize = 16 * 1024;

/// A chunk that breaks the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk")]
pub(crate) struct ChunkError;

/// Takes the coding off.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// How much of an unfinished line has been looked at.
    scanned: usize,
    /// Bytes of extensions so far.
    extensions: usize,
    /// The lines of the trailer section.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The line end after a chunk's data.
    End,
    Trailers,
    Ended,
}

impl Chunked {
    /// How many bytes at the start of `inbound` are data; `Some(0)` where more must arrive, `None` at
    /// the end of the body. What frames the data is consumed.
    ///
    /// # Errors
    /// A size is no hexadecimal number, a line does not end in CR LF, or a limit is passed.
    pub(crate) fn next(&mut self, inbound: &mut Inbound) -> Result<Option<u64>, ChunkError> {
        loop {
            match self.state {
                State::Size => match self.line(inbound, LINE_LIMIT)? {
                    None => return Ok(Some(0)),
                    Some(length) => {
                        let size = self.size(inbound.data().get(..length).unwrap_or_default())?;
                        inbound.consume(length + 2);
                        self.state = if size == 0 {
                            State::Trailers
                        } else {
                            State::Data(size)
                        };
                    }
                },
                State::Data(left) => return Ok(Some(left.min(inbound.data().len() as u64))),
                State::End => match inbound.data() {
                    [b'\r', b'\n', ..] => {
                        inbound.consume(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Some(0)),
                    _ => return Err(ChunkError),
                },
                State::Trailers => {
                    let Some(length) = self.line(inbound, TRAILER_LIMIT)? else {
                        return Ok(Some(0));
                    };
                    if length > 0 {
                        self.trailers.extend_from_slice(
                            inbound.data().get(..length + 2).unwrap_or_default(),
                        );
                        if self.trailers.len() > TRAILER_LIMIT {
                            return Err(ChunkError);
                        }
                    } else {
                        self.check_trailers()?;
                        self.state = State::Ended;
                    }
                    inbound.consume(length + 2);
                }
                State::Ended => return Ok(None),
            }
        }
    }

    /// Notes that `count` bytes of data were taken.
    pub(crate) fn took(&mut self, count: u64) {
        if let State::Data(left) = self.state {
            self.state = if count >= left {
                State::End
            } else {
                State::Data(left - count)
            };
        }
    }

    /// The trailer section without its last line end, once the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Length of the first line, without its CR LF; `None` until it is complete.
    fn line(&mut self, inbound: &Inbound, limit: usize) -> Result<Option<usize>, ChunkError> {
        let bytes = inbound.data();
        let Some(found) = bytes
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        else {
            self.scanned = bytes.len();
            // The last byte may be the CR of a line that is as long as it may be.
            return if bytes.len() > limit + 1 {
                Err(ChunkError)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + found;
        self.scanned = 0;
        match end.checked_sub(1) {
            // A bare LF ends no line here: other readers would see another chunk.
            Some(length) if bytes.get(length) == Some(&b'\r') && length <= limit => {
                Ok(Some(length))
            }
            _ => Err(ChunkError),
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<u64, ChunkError> {
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (digits, rest) = line.split_at(digits);
        // Extensions are dropped; what could end a line for another reader is refused. White space
        // only comes before an extension (RFC 9112 section 7.1.1), and zeros without end are one
        // more way to send for free.
        let is_extension = rest.is_empty() || rest.trim_ascii_start().first() == Some(&b';');
        if !is_extension
            || digits.len() > SIZE_DIGITS
            || rest
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(ChunkError);
        }
        self.extensions += rest.len();
        if self.extensions > EXTENSION_LIMIT {
            return Err(ChunkError);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| ChunkError)?;
        // An empty number is an error too.
        u64::from_str_radix(digits, 16).map_err(|_| ChunkError)
    }

    fn check_trailers(&self) -> Result<(), ChunkError> {
        if self.trailers.is_empty() {
            return Ok(());
        }
        each_trailer(&self.trailers, |_, _| {})
    }
}

/// Calls `take` with name and value of each trailer that may go on.
///
/// # Errors
/// The section is malformed.
pub(crate) fn each_trailer(
    section: &[u8],
    mut take: impl FnMut(&[u8], &[u8]),
) -> Result<(), ChunkError> {
    if section.is_empty() {
        return Ok(());
    }
    let whole = [section, b"\r\n"].concat();
    let mut fields = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(&whole, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            for field in fields
                .iter()
                .filter(|field| !is_barred_from_trailers(field.name.as_bytes()))
            {
                take(field.name.as_bytes(), field.value);
            }
            Ok(())
        }
        Ok(httparse::Status::Partial) | Err(_) => Err(ChunkError),
    }
}

/// Writes the line that comes before a chunk of `size` bytes.
pub(crate) fn chunk_line(out: &mut Vec<u8>, size: usize) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), ChunkError> {
        let (mut chunked, mut inbound, mut body) =
            (Chunked::default(), Inbound::default(), Vec::new());
        for piece in pieces {
            assert!(inbound.extend(piece));
            loop {
                match chunked.next(&mut inbound)? {
                    Some(0) => break,
                    Some(count) => {
                        body.extend_from_slice(&inbound.data()[..count as usize]);
                        inbound.consume(count as usize);
                        chunked.took(count);
                    }
                    None => return Ok((body, true, chunked.trailers().to_vec())),
                }
            }
        }
        Ok((body, false, Vec::new()))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let coded = b"5;name=value\r\nhello\r\n1\r\n,\r\n00006 ; x\r\n world\r\n0\r\nGrpc-Status: 0\r\nHost: x\r\n\r\n";
        for cut in 0..=coded.len() {
            let (head, tail) = coded.split_at(cut);
            let (body, ended, trailers) = decode(&[head, tail]).unwrap();
            assert_eq!(
                (body.as_slice(), ended),
                (&b"hello, world"[..], true),
                "cut at {cut}"
            );
            let mut names = Vec::new();
            each_trailer(&trailers, |name, _| names.push(name.to_vec())).unwrap();
            assert_eq!(
                names,
                [b"Grpc-Status"],
                "a routing field passed as a trailer"
            );
        }
        let bytes: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(decode(&bytes).unwrap().0, b"hello, world");
    }

    #[test]
    fn bad_framing_is_an_error() {
        let long_extension = [&b"1;"[..], &[b'x'; 5000], b"\r\n"].concat();
        let many_extensions = [&b"1;"[..], &[b'x'; 4000], b"\r\na\r\n"].concat().repeat(6);
        let long_trailers = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(4000)].concat();
        for coded in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"0x1\r\n",
            b"1_0\r\n",
            b"1 1\r\n",
            b"1 \r\n",
            b"1\t\r\n",
            b"00000000000000001\r\n",
            b"10000000000000000\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n\n",
            b"1\rx\r\n",
            b"1;\x00\r\n",
            b"0\r\nname\r\n\r\n",
            b"0\r\nname : x\r\n\r\n",
            b"0\r\nname: x\n\r\n",
            &[b'1'; 5000],
            &long_extension,
            &many_extensions,
            &long_trailers,
        ] {
            assert!(
                decode(&[coded]).is_err(),
                "{:?}",
                String::from_utf8_lossy(&coded[..coded.len().min(40)])
            );
        }
    }

    /// Whether a coded body, cut in two at `cut`, is taken to its end.
    fn ends(coded: &[u8], cut: usize) -> bool {
        let (head, tail) = coded.split_at(cut);
        decode(&[head, tail]).is_ok_and(|(_, ended, _)| ended)
    }

    #[test]
    fn a_size_may_have_sixteen_digits_zeros_included() {
        let coded = b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n";
        assert_eq!(decode(&[coded]), Ok((b"a".to_vec(), true, Vec::new())));
        // All that 64 bits can say: it goes on and on.
        let coded = b"ffffffffffffffff\r\na";
        assert_eq!(decode(&[coded]), Ok((b"a".to_vec(), false, Vec::new())));
    }

    #[test]
    fn a_line_as_long_as_it_may_be_is_taken_however_it_is_cut() {
        for (length, taken) in [(4096, true), (4097, false)] {
            let line = [&b"1;"[..], &vec![b'x'; length - 2]].concat();
            let coded = [&line[..], b"\r\na\r\n0\r\n\r\n"].concat();
            for cut in [0, 1, length - 1, length, length + 1, length + 2] {
                assert_eq!(ends(&coded, cut), taken, "{length} bytes cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_may_spend_16_kib_on_extensions_and_as_much_on_trailers() {
        let extensions = |total: usize| {
            let lines = [4095, 4095, 4095, 4095, total - 4 * 4095]
                .map(|extension| [&b"1;"[..], &vec![b'x'; extension - 1], b"\r\na\r\n"].concat());
            [lines.concat(), b"0\r\n\r\n".to_vec()].concat()
        };
        let trailers = |total: usize| {
            let long = vec![b'x'; total - b"a: \r\nb: y\r\n".len()];
            [&b"0\r\na: "[..], &long, b"\r\nb: y\r\n\r\n"].concat()
        };
        for (total, taken) in [(16_384, true), (16_385, false)] {
            assert_eq!(ends(&extensions(total), 0), taken, "{total} of extensions");
            assert_eq!(ends(&trailers(total), 0), taken, "{total} of trailers");
        }
    }
}
