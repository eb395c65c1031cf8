//! The path of a target: refused where readers could differ, and passed on byte by byte otherwise.

use super::{
    case::{forward, refuse},
    check::check,
    message::text,
};

fn of(target: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()
}

#[test]
fn paths_on_which_readers_differ_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("3986 2.1: NUL", b"/%00"),
        ("3986 2.1: NUL", b"/a%00.txt"),
        ("3986 2.1: control characters", b"/%0a"),
        ("3986 2.1: control characters", b"/%0D%0AX:y"),
        ("3986 2.1: control characters", b"/%1f"),
        ("3986 2.1: control characters", b"/%7F"),
        ("3986 2.1: two digits", b"/%"),
        ("3986 2.1: two digits", b"/%2"),
        ("3986 2.1: two digits", b"/%2/"),
        ("3986 2.1: two digits", b"/%zz"),
        ("3986 2.1: two digits", b"/%g0"),
        ("3986 2.1: two digits", b"/%%20"),
        ("3986 2.1: two digits", b"/%u0041"),
        ("3986 3.3: no backslash", b"/a\\b"),
        ("3986 3.3: no backslash", b"/..\\b"),
        ("3986 2: no control character", b"/a\x01"),
        ("3986 2: no control character", b"/a\x1b"),
        ("3986 2: no control character", b"/a\x7f"),
        ("9112 3.2: no fragment", b"/a#b"),
        ("3986 2: raw bytes that are no text", b"/caf\xe9"),
        ("3986 2: raw bytes that are no text", b"/a?b=\xe9"),
        ("3986 2: raw bytes that are no text", b"/\xc0\xaf"),
        ("3986 5.2.4: not above the root", b"/.."),
        ("3986 5.2.4: not above the root", b"/../a"),
        ("3986 5.2.4: not above the root", b"/a/../../b"),
        ("3986 5.2.4: not above the root", b"/%2e%2e/a"),
        ("3986 5.2.4: not above the root", b"/a/%2E./.%2e/b"),
        ("3986 5.2.4: not above the root", b"/a%2f..%2f..%2fb"),
        ("3986 5.2.4: not above the root", b"//../../a"),
    ];
    check(
        cases
            .iter()
            .map(|(section, target)| refuse(section, "400", of(target))),
    );
}

#[test]
fn other_paths_pass_unchanged() {
    let cases = [
        ("3986 3.3", "/"),
        ("3986 3.3: empty segments", "//a"),
        ("3986 3.3: empty segments", "/a///b//"),
        ("3986 5.2.4: dot segments", "/a/../b"),
        ("3986 5.2.4: dot segments", "/a/./b/."),
        ("3986 5.2.4: dot segments", "/a/b/.."),
        ("3986 3.3: three dots", "/.../a"),
        ("3986 6.2.2.1: case of escapes", "/%2f%2F%c3%A9"),
        ("3986 2.3: escapes that need not be", "/%61%7e"),
        ("3986 2.2: an escaped slash", "/a%2Fb"),
        ("3986 2.2: an escaped backslash", "/a%5Cb"),
        ("3986 2.2: an escaped percent sign", "/a%2500"),
        ("3986 2.2: an escaped space", "/a%20b+c"),
        ("3986 2.5: not UTF-8", "/caf%E9"),
        ("3986 3.3: sub-delimiters", "/a;b=c,d!$&'()*+@:"),
        ("3986 3.4: a query", "/a?b=c&d=%2F"),
        ("3986 3.4: an empty query", "/a?"),
        ("3986 3.4: slashes in a query", "/a?b=/../c//d"),
        ("3986 3.4: a question mark in a query", "/a?b?c"),
        ("3986 3.4: escapes of a query", "/a?b=%00%zz%"),
        ("3986 3.4: what browsers send raw", "/a?b={c}|[d]"),
        ("3987 3.1: what old browsers send raw", "/caf\u{e9}?\u{e9}"),
    ];
    check(cases.map(|(section, target)| {
        let arrives: &'static str = format!("GET {} none -", text(target.as_bytes())).leak();
        forward(section, of(target), arrives)
    }));
}
