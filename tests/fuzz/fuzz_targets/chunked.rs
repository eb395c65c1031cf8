//! Any chunked body, in any pieces, taken in any portions: its data, trailers and end are those that
//! another reader finds.
//!
//! The input is two parts with a line `--` between them: the pieces (see `Pace`), the body.
#![no_main]

use forebay_fuzz::{
    oracle::{self, End, Field, Manner},
    pace::{Pace, parts},
};
use ingress_proxy::fuzz::{Decoded, DecodedEnd, decode_chunked};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let sizes = parts.next().unwrap_or_default();
    let bytes = parts.next().unwrap_or_default();
    // There are limits, which are tested elsewhere.
    if bytes.len() > 4096 {
        return;
    }
    let whole = decode_chunked(std::iter::once(bytes), usize::MAX);
    let most = Pace::of(sizes).size();
    let cut = decode_chunked(Pace::of(sizes).pieces(bytes), most);
    assert_eq!(whole, cut, "at once, and piece by piece");
    check(bytes, whole);
});

fn check(bytes: &[u8], decoded: Decoded) {
    let wanted = oracle::chunked(bytes, Manner::Forgiving);
    assert_eq!(
        wanted.data.escape_ascii().to_string(),
        decoded.data.escape_ascii().to_string()
    );
    match (decoded.end, wanted.end) {
        (DecodedEnd::Whole(trailers, unread), End::Whole) => {
            assert_eq!(unread, bytes.len() - wanted.length, "bytes behind the body");
            let mut sent = wanted.trailers.iter();
            for (name, value) in trailers {
                let trailer = Field {
                    name: name.to_ascii_lowercase(),
                    value,
                };
                assert!(
                    sent.any(|own| *own == trailer),
                    "a trailer that was not sent, or not in this place: {trailer:?}"
                );
            }
        }
        (end @ DecodedEnd::Whole(..), wanted) => panic!("{end:?}, not {wanted:?}"),
        (end, End::Whole) => assert!(
            wanted.trailers.len() > 100,
            "{end:?}, but it is a good one: {}",
            bytes.escape_ascii()
        ),
        // What can still become a body is a matter of when one looks.
        (DecodedEnd::Open | DecodedEnd::Broken, End::Open | End::Broken(_)) => {}
    }
}
