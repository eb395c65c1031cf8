//! Fields of requests (RFC 9113 section 8.2).

use super::{
    case::{Body, forward, get, post, refuse},
    check::check,
};

const REFUSED: &str = "400|reset";

/// Fields of a request.
type Sent = &'static [(&'static str, &'static [u8])];

#[test]
fn fields_of_a_connection_are_refused() {
    let own = [
        ("9113 8.2.2", "connection", "close"),
        ("9113 8.2.2", "connection", "x"),
        ("9113 8.2.2", "keep-alive", "timeout=5"),
        ("9113 8.2.2", "proxy-connection", "keep-alive"),
        ("9113 8.2.2", "transfer-encoding", "chunked"),
        ("9113 8.2.2", "transfer-encoding", "identity"),
        ("9113 8.2.2", "upgrade", "websocket"),
        ("9113 8.2.2", "te", "gzip"),
        ("9113 8.2.2", "te", "trailers, gzip"),
        ("9113 8.2.2", "te", ""),
    ];
    check(own.map(|(section, name, value)| {
        refuse(section, REFUSED, post(&[(name, value)])).body(Body::Data(&["0\r\n\r\n"]))
    }));
    check([
        forward("9113 8.2.2", get(&[("te", "trailers")]), "GET /x none -").has(&["te: trailers"]),
    ]);
}

#[test]
fn names_are_tokens_in_lower_case() {
    let names: &[(&str, &[u8])] = &[
        ("9113 8.2.1: upper case", b"X"),
        ("9113 8.2.1: upper case", b"x-Y"),
        ("9113 8.2.1: upper case", b"Content-Length"),
        ("9113 8.2.1: empty", b""),
        ("9113 8.2.1: a space", b"x y"),
        ("9113 8.2.1: a space behind", b"x "),
        ("9113 8.2.1: a space in front", b" x"),
        ("9113 8.2.1: a tab", b"x\t"),
        ("9113 8.2.1: a colon", b"x:"),
        ("9113 8.2.1: a colon", b"x: y\r\nz"),
        ("9113 8.2.1: a line end", b"x\r\nz"),
        ("9113 8.2.1: a line end", b"x\n"),
        ("9113 8.2.1: NUL", b"x\0"),
        ("9113 8.2.1: DEL", b"x\x7f"),
        ("9113 8.2.1: not ASCII", b"x\xe9"),
        ("9110 5.1: a token", b"x@y"),
        ("9110 5.1: a token", b"x(y)"),
        ("9110 5.1: a token", b"x,y"),
    ];
    check(
        names
            .iter()
            .map(|(section, name)| refuse(section, REFUSED, get(&[(name, b"5")]))),
    );
}

#[test]
fn values_hold_no_line_end_and_no_space_at_their_ends() {
    let values: &[(&str, &[u8])] = &[
        ("9113 8.2.1: CR", b"y\r"),
        ("9113 8.2.1: LF", b"y\n"),
        ("9113 8.2.1: NUL", b"y\0z"),
        ("9113 8.2.1: a field within", b"y\r\ncontent-length: 5"),
        (
            "9113 8.2.1: a field within",
            b"y\ntransfer-encoding: chunked",
        ),
        (
            "9113 8.2.1: a request within",
            b"y\r\n\r\nGET /y HTTP/1.1\r\nHost: b",
        ),
        ("9113 8.2.1: a space in front", b" y"),
        ("9113 8.2.1: a space behind", b"y "),
        ("9113 8.2.1: a tab in front", b"\ty"),
        ("9113 8.2.1: a tab behind", b"y\t"),
        ("9113 8.2.1: a space alone", b" "),
        ("9110 5.5: control characters", b"y\x01z"),
        ("9110 5.5: control characters", b"y\x1bz"),
        ("9110 5.5: control characters", b"y\x7fz"),
    ];
    check(
        values
            .iter()
            .map(|(section, value)| refuse(section, REFUSED, get(&[("x", value)]))),
    );
}

#[test]
fn other_fields_pass() {
    let own: [(&str, Sent, &str); 9] = [
        ("9113 8.2.1", &[("x", b"y z")], "x: y z"),
        ("9113 8.2.1: empty", &[("x", b"")], "x: "),
        ("9113 8.2.1: a tab inside", &[("x", b"y\tz")], "x: y\\tz"),
        ("9110 5.5: obs-text", &[("x", b"caf\xe9")], "x: caf\\xe9"),
        (
            "9110 5.3: order",
            &[("x", b"2"), ("z", b"w"), ("x", b"1")],
            "x: 2|1",
        ),
        (
            "9113 8.2.3: crumbs",
            &[("cookie", b"a=1"), ("cookie", b"b=2")],
            "cookie: a=1; b=2",
        ),
        (
            "9113 8.2.3: crumbs apart",
            &[("cookie", b"a=1"), ("x", b"y"), ("cookie", b"b=2; c=3")],
            "cookie: a=1; b=2; c=3",
        ),
        (
            "9113 8.2.3: many crumbs",
            &[
                ("cookie", b"a=1"),
                ("cookie", b"b=2"),
                ("cookie", b"c=3"),
                ("cookie", b"d=4"),
            ],
            "cookie: a=1; b=2; c=3; d=4",
        ),
        (
            "9110 11.6.2",
            &[("authorization", b"Basic eDp5")],
            "authorization: Basic eDp5",
        ),
    ];
    check(own.map(|(section, more, has)| forward(section, get(more), "GET /x none -").has(&[has])));
}

#[test]
fn what_the_client_may_not_say_goes_no_further() {
    let own: [(&str, &str, &[&str], &[&str]); 9] = [
        ("forwarded", "for=192.0.2.1", &[], &["forwarded"]),
        ("proxy", "http://evil", &[], &["proxy"]),
        ("http2-settings", "AAMAAABk", &[], &["http2-settings"]),
        ("x_forwarded_for", "evil", &[], &["x_forwarded_for"]),
        ("x-real-ip", "192.0.2.1", &["x-real-ip: 127.0.0.1"], &[]),
        (
            "x-forwarded-proto",
            "https",
            &["x-forwarded-proto: http"],
            &[],
        ),
        (
            "x-forwarded-for",
            "192.0.2.1",
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-original-forwarded-for: 192.0.2.1",
            ],
            &[],
        ),
        (
            "x-forwarded-host",
            "evil",
            &["x-forwarded-host: a", "x-original-forwarded-host: evil"],
            &[],
        ),
        (
            "x-original-forwarded-for",
            "evil",
            &[],
            &["x-original-forwarded-for"],
        ),
    ];
    check(own.map(|(name, value, has, lacks)| {
        forward(
            "9110 17.1; 7239 8.1",
            get(&[(name, value)]),
            "GET /x none -",
        )
        .has(has)
        .lacks(lacks)
    }));
}

#[test]
fn only_100_continue_can_be_expected() {
    let hello = || Body::Data(&["hello"]);
    check([
        forward(
            "9110 10.1.1",
            post(&[("expect", "100-continue")]),
            "POST /x chunked hello",
        )
        .body(hello())
        .lacks(&["expect"]),
        refuse("9110 10.1.1", "417", post(&[("expect", "x")])).body(hello()),
    ]);
}

#[test]
fn a_head_over_the_limits_is_too_large() {
    let long = "y".repeat(33 * 1024);
    let many = vec![("x", "y".repeat(300)); 200];
    check([
        refuse("6585 5: one value", "431|reset", get(&[("x", &long)])),
        refuse("6585 5: many values", "431|reset", get(&many)),
    ]);
}
