//! Any bytes, in any pieces: the end of a head is where an empty line is, whether it is looked for
//! once or after each piece.
//!
//! The input is two parts with a line `--` between them: the pieces (see `Pace`), the bytes.
#![no_main]

use forebay_fuzz::pace::{Pace, parts};
use ingress_proxy::fuzz::HeadFinder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let sizes = parts.next().unwrap_or_default();
    let bytes = parts.next().unwrap_or_default();
    let wanted = end(bytes);
    assert_eq!(HeadFinder::default().find(bytes), wanted, "at once");
    let (mut finder, mut arrived) = (HeadFinder::default(), 0);
    let found = Pace::of(sizes).pieces(bytes).find_map(|piece| {
        arrived += piece.len();
        finder.find(&bytes[..arrived])
    });
    assert_eq!(found, wanted, "piece by piece");
});

/// Behind the first empty line that follows another line.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        at += line.len();
        if number > 0 && matches!(line, b"\n" | b"\r\n") {
            return Some(at);
        }
    }
    None
}
