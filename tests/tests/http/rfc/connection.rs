//! Fields of one hop, and how long a connection lasts.

use super::{
    case::{End, Step, dialogue, forward, get, refuse},
    check::check,
};

#[test]
fn fields_of_one_hop_go_no_further() {
    let cases: [(&str, &str, &[&str]); 18] = [
        (
            "9110 7.6.1",
            "Connection: X-Hop\r\nX-Hop: y\r\n",
            &["x-hop"],
        ),
        (
            "9110 7.6.1: named later",
            "X-Hop: y\r\nConnection: X-Hop\r\n",
            &["x-hop"],
        ),
        (
            "9110 7.6.1: in any case",
            "Connection: x-hOP\r\nX-Hop: y\r\n",
            &["x-hop"],
        ),
        (
            "9110 7.6.1: a list",
            "Connection: A,B , C\r\nA: 1\r\nB: 2\r\nC: 3\r\n",
            &["a", "b", "c"],
        ),
        (
            "9110 7.6.1: empty members",
            "Connection: , ,A,,\r\nA: 1\r\n",
            &["a"],
        ),
        (
            "9110 7.6.1: two lines",
            "Connection: A\r\nX: y\r\nConnection: B\r\nA: 1\r\nB: 2\r\n",
            &["a", "b"],
        ),
        (
            "9110 7.6.1: repeated fields",
            "Connection: A\r\nA: 1\r\nA: 2\r\n",
            &["a"],
        ),
        (
            "9110 7.6.1: forged identity",
            "Connection: X-Real-IP\r\nX-Hop: y\r\n",
            &["x-none"],
        ),
        ("9110 7.6.1", "Connection: keep-alive\r\n", &["keep-alive"]),
        ("9110 7.6.1", "Keep-Alive: timeout=5\r\n", &["keep-alive"]),
        (
            "9110 7.6.1",
            "Proxy-Connection: keep-alive\r\n",
            &["proxy-connection"],
        ),
        ("9110 10.1.4", "TE: gzip\r\n", &["te"]),
        ("9110 10.1.4", "TE: gzip\r\nConnection: TE\r\n", &["te"]),
        ("9110 10.1.4", "TE:\r\n", &["te"]),
        (
            "9110 10.1.4: no part of a word",
            "TE: xtrailers\r\n",
            &["te"],
        ),
        (
            "9113 3.1",
            "HTTP2-Settings: AAMAAABkAAQ\r\n",
            &["http2-settings"],
        ),
        ("9110 7.8", "Upgrade: foo/2\r\n", &["upgrade"]),
        (
            "9110 7.8",
            "Upgrade: foo/2\r\nConnection: Upgrade\r\n",
            &["upgrade"],
        ),
    ];
    check(
        cases.map(|(section, lines, lacks)| {
            forward(section, get(lines), "GET /x none -").lacks(lacks)
        }),
    );
    let trailers = [
        ("9110 10.1.4", "TE: trailers\r\n"),
        ("9110 10.1.4", "TE: Trailers\r\nConnection: TE\r\n"),
        ("9110 10.1.4", "TE: gzip;q=0.5, trailers\r\n"),
        ("9110 10.1.4", "TE: gzip\r\nTE: trailers\r\n"),
    ];
    check(trailers.map(|(section, lines)| {
        forward(section, get(lines), "GET /x none -").has(&["te: trailers"])
    }));
}

#[test]
fn a_field_that_must_go_on_may_not_be_named_as_one_of_a_hop() {
    let names = [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Cookie",
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "x-forwarded-anything",
        "close, Cookie",
        "keep-alive,\thost",
    ];
    check(names.map(|name| {
        refuse(
            "9110 7.6.1",
            "400",
            get(format!("Connection: {name}\r\nCookie: a=b\r\n")),
        )
    }));
}

#[test]
fn a_connection_lasts_until_one_side_says_close() {
    let cases = [
        ("9112 9.3: it persists", ""),
        (
            "9112 9.3: keep-alive says nothing new",
            "Connection: keep-alive\r\n",
        ),
        (
            "9112 9.6: part of a word is not it",
            "Connection: closed, x-close\r\n",
        ),
        (
            "9112 9.6: nor is another field",
            "Proxy-Connection: close\r\n",
        ),
    ];
    check(cases.map(|(section, lines)| {
        forward(section, get(lines), "GET /x none -").untold(&["connection"])
    }));
    let closing = [
        ("9112 9.6", "Connection: close\r\n"),
        ("9112 9.6: in any case", "connection: CLOSE\r\n"),
        ("9112 9.6: in a list", "Connection: x, close\r\n"),
        (
            "9112 9.6: on another line",
            "Connection: x\r\nConnection: close\r\n",
        ),
        (
            "9112 9.6: against keep-alive",
            "Connection: keep-alive, close\r\n",
        ),
    ];
    check(closing.map(|(section, lines)| {
        forward(section, get(lines), "GET /x none -")
            .end(End::Closed)
            .told(&["connection: close"])
    }));
}

#[test]
fn an_idle_connection_is_taken_again_for_the_next_request() {
    let ask = || [Step::Send(get("")), Step::Answer("200 /x")];
    let thrice = [ask(), ask(), ask()].concat();
    check([
        dialogue("9112 9.3", thrice).connections(1),
        forward(
            "9112 9.6: the client's close is its own",
            get(""),
            "GET /x none -",
        )
        .connections(1),
    ]);
}
