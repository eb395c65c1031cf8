//! What fuzz targets call: the parsers one by one, and a whole worker between connections in memory.
//! Compiled for them alone.

use crate::{
    http1::{self, Body, Fields, FramingFields, Next},
    net::Inbound,
    table::{CanonicalHost, CanonicalPath, Request, RouteTable},
    upstream::{Context, read_head},
};

pub use crate::net::{End, Far};
pub use crate::worker::fuzz::{Serving, Site, Target, target};

/// Name and value of fields, in their order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Where the body of a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

impl From<http1::Framing> for Framing {
    fn from(framing: http1::Framing) -> Self {
        match framing {
            http1::Framing::Length(length) => Self::Length(length),
            http1::Framing::Chunked => Self::Chunked,
            http1::Framing::Close => Self::Close,
        }
    }
}

/// Finds the end of a head in bytes that arrive little by little.
#[derive(Default)]
pub struct HeadFinder(http1::HeadFinder);

impl HeadFinder {
    /// Length of the head that `bytes` begin with; they begin with those of the last call.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        self.0.find(bytes)
    }
}

/// The framing of a request with these values of Content-Length and Transfer-Encoding; `None` where
/// it is refused.
pub fn framing(lengths: &[&[u8]], codings: &[&[u8]], http10: bool) -> Option<Framing> {
    let mut fields = FramingFields::default();
    for length in lengths {
        fields.take_length(length).ok()?;
    }
    for coding in codings {
        fields.take_coding(coding).ok()?;
    }
    fields.of_request(http10).ok().map(Framing::from)
}

/// A body with its chunked coding taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The data, as far as it goes.
    pub data: Vec<u8>,
    /// What is behind it.
    pub end: DecodedEnd,
}

/// How a chunked body ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodedEnd {
    /// There is more to come.
    Open,
    /// The coding is broken.
    Broken,
    /// With trailers that may go on, and this many bytes behind them.
    Whole(Pairs, usize),
}

/// Takes the coding off a body that arrives in `pieces`; at most `most` bytes of data are taken at a
/// time.
pub fn decode_chunked<'p>(pieces: impl Iterator<Item = &'p [u8]>, most: usize) -> Decoded {
    let (mut body, mut inbound) = (Body::new(http1::Framing::Chunked), Inbound::default());
    let (mut data, mut unread) = (Vec::new(), 0);
    let mut ended = false;
    for piece in pieces {
        if ended {
            unread += piece.len();
            continue;
        }
        inbound.extend(piece);
        loop {
            match body.next(&mut inbound) {
                Ok(Next::Starved) => break,
                Ok(Next::Data(count)) => {
                    let count = count.min(most);
                    data.extend_from_slice(inbound.data().get(..count).unwrap_or_default());
                    body.take(&mut inbound, count);
                }
                Ok(Next::End) => {
                    ended = true;
                    break;
                }
                Err(_) => {
                    let end = DecodedEnd::Broken;
                    return Decoded { data, end };
                }
            }
        }
    }
    if !ended {
        let end = DecodedEnd::Open;
        return Decoded { data, end };
    }
    let mut trailers = Vec::new();
    let checked = http1::each_trailer(body.trailers(), |name, value| {
        trailers.push((name.to_vec(), value.to_vec()));
    });
    assert!(checked.is_ok(), "trailers that were checked are none");
    let end = DecodedEnd::Whole(trailers, unread + inbound.data().len());
    Decoded { data, end }
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The endpoint's words for it.
    pub reason: Vec<u8>,
    /// Where its body ends.
    pub framing: Framing,
    /// In bytes.
    pub length: usize,
    /// All its fields.
    pub fields: Pairs,
}

/// Reads the head of a response that arrives in `pieces`: the answer to a HEAD, or to an upgrade.
/// `None` where it is not whole.
///
/// # Errors
/// It is no head.
pub fn read_response<'p>(
    pieces: impl Iterator<Item = &'p [u8]>,
    head: bool,
    upgrade: bool,
) -> Result<Option<ResponseHead>, String> {
    let (mut bytes, mut fields) = (Vec::new(), Vec::new());
    let mut finder = http1::HeadFinder::default();
    for piece in pieces {
        bytes.extend_from_slice(piece);
        let read = read_head(&bytes, &mut finder, &mut fields, Context { head, upgrade })
            .map_err(|error| error.to_string())?;
        let Some(head) = read else { continue };
        let text = bytes.get(..head.length).unwrap_or_default();
        let fields = Fields {
            head: text,
            fields: &fields,
        };
        return Ok(Some(ResponseHead {
            status: head.status,
            reason: head.reason.of_head(text).to_vec(),
            framing: head.framing.into(),
            length: head.length,
            fields: fields
                .iter()
                .map(|(_, name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        }));
    }
    Ok(None)
}

/// The path that goes upstream for a request; `None` where no route answers, or the host or the path
/// is none.
pub fn upstream_path(table: &RouteTable, host: &str, path: &str) -> Option<String> {
    let canonical = CanonicalPath::parse(path).ok()?;
    let host = CanonicalHost::parse(host).ok()?;
    let entry = table.lookup(&host, &canonical, &Plain)?;
    Some(entry.upstream_path(path, &canonical).into_owned())
}

/// A request of which only the host and the path count.
struct Plain;

impl Request for Plain {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn has_header(&self, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn query(&self) -> Option<&str> {
        None
    }
}
