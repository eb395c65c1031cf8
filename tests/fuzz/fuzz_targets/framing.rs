//! Any values of Content-Length and Transfer-Encoding: a request has the framing that another reader
//! finds, or is refused.
//!
//! Each line of the input is a field: `L` and a length, `T` and a coding; `O` makes it HTTP/1.0.
#![no_main]

use forebay_fuzz::oracle::{Numbers, number};
use ingress_proxy::fuzz::{Framing, framing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (mut lengths, mut codings, mut http10) = (Vec::new(), Vec::new(), false);
    for line in input.split(|byte| *byte == b'\n') {
        match line {
            [b'L', value @ ..] => lengths.push(value),
            [b'T', value @ ..] => codings.push(value),
            [b'O', ..] => http10 = true,
            _ => {}
        }
    }
    let wanted = match (number(lengths.iter().copied()), codings.as_slice()) {
        (Numbers::None, []) => Some(Framing::Length(0)),
        (Numbers::One(length), []) => Some(Framing::Length(length)),
        (Numbers::None, [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !http10 => {
            Some(Framing::Chunked)
        }
        _ => None,
    };
    assert_eq!(framing(&lengths, &codings, http10), wanted);
});
