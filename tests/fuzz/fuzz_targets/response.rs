//! The head of any response, in any pieces: status, fields and framing are those that another reader
//! finds, and what that one refuses is refused.
//!
//! The input is two parts with a line `--` between them: the pieces (see `Pace`; `h` before them for
//! the answer to a HEAD, `u` to an upgrade), the bytes.
#![no_main]

use forebay_fuzz::{
    oracle::{self, Field, Manner, Read, Response},
    pace::{Pace, parts},
};
use ingress_proxy::fuzz::{Framing, ResponseHead, read_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let sizes = parts.next().unwrap_or_default();
    let bytes = parts.next().unwrap_or_default();
    let (sizes, is_head, is_upgrade) = match sizes {
        [b'h', sizes @ ..] => (sizes, true, false),
        [b'u', sizes @ ..] => (sizes, false, true),
        sizes => (sizes, false, false),
    };
    let whole = read_response(std::iter::once(bytes), is_head, is_upgrade);
    let cut = read_response(Pace::of(sizes).pieces(bytes), is_head, is_upgrade);
    if bytes.is_empty() {
        return;
    }
    assert_eq!(whole, cut, "at once, and piece by piece");
    let method: &[u8] = if is_head { b"HEAD" } else { b"GET" };
    let wanted = oracle::response(bytes, method, false, Manner::Forgiving);
    match (whole, wanted) {
        (Ok(Some(head)), Read::Done(wanted)) => check(&head, &wanted),
        (Ok(Some(head)), wanted) => panic!("{head:?}, not {wanted:?}"),
        (Ok(None), Read::Done(wanted)) => panic!("nothing yet, not {wanted:?}"),
        (Err(error), Read::Done(wanted)) => assert!(
            wanted.status == 101 || wanted.head.fields.len() > 100,
            "{error}, but it is a good one: {wanted:?}"
        ),
        (Ok(None) | Err(_), Read::Open | Read::Bad(_)) => {}
    }
});

fn check(head: &ResponseHead, wanted: &Response) {
    assert_eq!(head.status, wanted.status);
    assert_eq!(head.length, wanted.head.length);
    assert!(
        head.reason.is_empty() || head.reason == wanted.reason,
        "reason {}, not {}",
        head.reason.escape_ascii(),
        wanted.reason.escape_ascii()
    );
    let fields: Vec<Field> = head
        .fields
        .iter()
        .map(|(name, value)| Field {
            name: name.to_ascii_lowercase(),
            value: value.clone(),
        })
        .collect();
    assert_eq!(fields, wanted.head.fields);
    let framing = match wanted.framing {
        _ if wanted.status == 101 => Framing::Length(0),
        oracle::Framing::None => Framing::Length(0),
        oracle::Framing::Length(length) => Framing::Length(length),
        oracle::Framing::Chunked => Framing::Chunked,
        oracle::Framing::Close => Framing::Close,
    };
    assert_eq!(head.framing, framing);
}
