//! Any fields, body and trailers of an HTTP/2 request: if anything arrives at the endpoint, it is one
//! request of HTTP/1.1 that says the same.
//!
//! The input is four parts with a line `--` between them: in which pieces bytes move (see `Pace`), the
//! fields line by line, each a name, a colon, a space and a value, the body, the trailers like fields.
#![no_main]

use forebay_fuzz::{
    forwarded::Wanted,
    frames::{Frames, Line, lines},
    oracle::{End, Field, Framing, Manner, Numbers, number, requests},
    pace::{Pace, parts},
    site::{Agreeing, Site},
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SITE: Site = Site::default();
}

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let sizes = parts.next().unwrap_or_default();
    let fields = lines(parts.next().unwrap_or_default());
    let body = parts.next();
    let trailers = parts.next().map(lines);
    let mut frames = Frames::begin();
    frames.fields(&fields, body.is_none() && trailers.is_none());
    if let Some(body) = body {
        let mut pieces = Pace::of(sizes).pieces(body).peekable();
        if pieces.peek().is_none() {
            frames.data(b"", trailers.is_none());
        }
        while let Some(piece) = pieces.next() {
            frames.data(piece, pieces.peek().is_none() && trailers.is_none());
        }
    }
    if let Some(trailers) = &trailers {
        frames.fields(trailers, true);
    }
    let has_body = body.is_some() || trailers.is_some();
    let wanted = wanted(&fields, has_body, body.unwrap_or_default(), trailers);
    for pace in [Pace::WHOLE, Pace::of(sizes)] {
        let seen = SITE.with(|site| site.run(frames.bytes(), pace, &mut Agreeing));
        let received: Vec<_> = seen
            .endpoint
            .iter()
            .flat_map(|received| requests(received, Manner::Strict))
            .collect();
        match (received.as_slice(), &wanted) {
            ([], _) => {}
            ([got], Some(wanted)) => wanted.check(got),
            ([got], None) => panic!("what is no request arrived: {got:?}"),
            _ => panic!("one request became more: {received:?}"),
        }
        assert!(
            !received.is_empty() || !is_plain(&fields, has_body),
            "a good request did not arrive"
        );
    }
});

/// What its client means; `None` where the fields are none of a request (RFC 9113 section 8.3).
fn wanted(
    fields: &[Line],
    has_body: bool,
    body: &[u8],
    trailers: Option<Vec<Line>>,
) -> Option<Wanted> {
    let only = |name: &[u8]| {
        let mut values = fields.iter().filter(|line| line.name == name);
        let value = values.next().map(|line| line.value.clone());
        values.next().is_none().then_some(value)
    };
    let (authority, host) = (only(b":authority")?, only(b"host")?);
    let lengths = fields
        .iter()
        .filter(|line| line.name == b"content-length")
        .map(|line| line.value.as_slice());
    let mut target = only(b":path")??;
    // The library cuts a fragment off before the proxy sees the path.
    let end = target.iter().position(|byte| *byte == b'#');
    target.truncate(end.unwrap_or(target.len()));
    Some(Wanted {
        method: only(b":method")??,
        target,
        host: authority.or(host)?,
        fields: grouped(fields),
        framing: match number(lengths) {
            Numbers::Bad => return None,
            Numbers::One(length) => Framing::Length(length),
            Numbers::None if has_body => Framing::Chunked,
            Numbers::None => Framing::None,
        },
        body: body.to_vec(),
        end: End::Whole,
        trailers: grouped(&trailers.unwrap_or_default()),
    })
}

/// All but pseudo-fields, those of a name together: only their order among themselves counts.
fn grouped(lines: &[Line]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for Line { name, value } in lines {
        if name.starts_with(b":") {
            continue;
        }
        let last = fields.iter().rposition(|field| field.name == *name);
        let field = Field {
            name: name.clone(),
            value: value.clone(),
        };
        fields.insert(last.map_or(fields.len(), |last| last + 1), field);
    }
    fields
}

fn is_plain(fields: &[Line], has_body: bool) -> bool {
    let is_word = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_alphanumeric);
    let [method, scheme, authority, path, rest @ ..] = fields else {
        return false;
    };
    !has_body
        && method.name == b":method"
        && matches!(&*method.value, b"GET" | b"HEAD" | b"POST")
        && scheme.name == b":scheme"
        && scheme.value == b"http"
        && authority.name == b":authority"
        && authority.value.len() < 60
        && is_word(&authority.value)
        && path.name == b":path"
        && path.value.starts_with(b"/")
        && (path.value == b"/" || is_word(&path.value[1..]))
        && rest.len() < 50
        && rest
            .iter()
            .all(|line| line.name == b"accept" && is_word(&line.value) && line.value.len() < 200)
}
