//! Pseudo-header fields of requests (RFC 9113 section 8.3).

use super::{
    case::{Field, NONE, fields, forward, get, refuse, request},
    check::check,
};

const WHOLE: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/x"),
];

/// The four of them with another value for `name`.
fn with(name: &str, value: &str) -> Vec<Field> {
    let replaced = |own: (&'static str, &'static str)| {
        let value = if own.0 == name { value } else { own.1 };
        (own.0.as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    WHOLE.map(replaced).into()
}

/// What may come of a request that is malformed.
const REFUSED: &str = "400|reset";

#[test]
fn each_pseudo_field_is_there_once_and_first() {
    for (at, own) in WHOLE.into_iter().enumerate() {
        let without: Vec<_> = WHOLE.into_iter().filter(|field| *field != own).collect();
        let late = [&without[..], &[("x", "y"), own]].concat();
        let twice = [&WHOLE[..], &[own]].concat();
        check([
            refuse("9113 8.3.1: missing", REFUSED, fields(&without)),
            refuse("9113 8.3: after a regular field", REFUSED, fields(&late)),
            refuse("9113 8.3: repeated", REFUSED, fields(&twice)),
        ]);
        // Any order among themselves is good.
        let mut turned = WHOLE;
        turned.rotate_left(at);
        check([forward("9113 8.3", fields(&turned), "GET /x none -")]);
    }
    check([
        refuse("9113 8.3: empty", REFUSED, fields(NONE)),
        refuse(
            "9113 8.3: unknown",
            REFUSED,
            fields(&[&WHOLE[..], &[(":x", "y")]].concat()),
        ),
        refuse(
            "9113 8.3: of responses",
            REFUSED,
            fields(&[&WHOLE[..], &[(":status", "200")]].concat()),
        ),
        refuse(
            "8441 4: not enabled",
            "400|405|reset",
            get(&[(":protocol", "websocket")]),
        ),
    ]);
}

#[test]
fn a_path_is_one() {
    let paths = [
        ("9113 8.3.1: empty", ""),
        ("9113 8.3.1: no slash", "foo"),
        ("9113 8.3.1: no slash", "?q"),
        ("9113 8.3.1: no slash", "a:80"),
        ("9113 8.3.1: no slash", "http://b/y"),
        ("9113 8.3.1: only for OPTIONS", "*"),
        ("9113 8.2.1: a line end", "/x\r\nX: y"),
        (
            "9113 8.2.1: a line end",
            "/x HTTP/1.1\r\nHost: b\r\n\r\nGET /y",
        ),
        ("9113 8.2.1: a line end", "/x\n"),
        ("9113 8.2.1: CR", "/x\ry"),
        ("9113 8.2.1: NUL", "/x\0"),
        ("9113 8.3.1: a space", "/x y"),
        ("9113 8.3.1: a space", "/x HTTP/1.1"),
        ("9113 8.3.1: a space in front", " /x"),
        ("9113 8.3.1: a tab", "/x\ty"),
        ("9113 8.3.1: a control character", "/x\x01"),
        ("3986 3.3: a backslash", "/x\\y"),
        ("3986 2.1: NUL", "/%00"),
        ("3986 2.1: two digits", "/%zz"),
        ("3986 5.2.4: above the root", "/x/../../y"),
        ("3986 5.2.4: above the root", "/%2e%2e/y"),
    ];
    check(paths.map(|(section, path)| refuse(section, REFUSED, with(":path", path))));
    let raw = [
        "/",
        "//a",
        "/a/../b",
        "/a%2Fb?c=%zz",
        "/caf%E9",
        "/a?",
        "/a;b=c,d",
    ];
    check(raw.map(|path| {
        let arrives: &'static str = format!("GET {path} none -").leak();
        forward("3986 3.3: passed on", with(":path", path), arrives)
    }));
}

#[test]
fn a_method_is_a_token_and_for_us() {
    let methods = [
        ("9110 9.1: empty", ""),
        ("9110 9.1: a token", "G@T"),
        ("9110 9.1: a token", "GE T"),
        ("9110 9.1: a token", "GET /y HTTP/1.1\r\n"),
        ("9110 9.1: a token", "GET\r"),
        ("9110 9.1: a token", "GET\0"),
        ("9110 9.1: a token", " GET"),
    ];
    check(methods.map(|(section, method)| refuse(section, REFUSED, with(":method", method))));
    let connect = [(":method", "CONNECT"), (":authority", "a:80")];
    check([
        refuse("9113 8.5", "405|reset", fields(&connect)),
        refuse(
            "9113 8.5: with a path",
            "400|405|reset",
            with(":method", "CONNECT"),
        ),
        refuse("9110 9.3.8", "405", with(":method", "TRACE")),
        forward("9110 9.1", with(":method", "PURGE"), "PURGE /x none -"),
        forward(
            "9110 9.1",
            with(":method", "M-SEARCH"),
            "M-SEARCH /x none -",
        ),
        forward("9110 9.3.2", with(":method", "HEAD"), "HEAD /x none -"),
    ]);
}

#[test]
fn a_scheme_is_that_of_the_connection() {
    let schemes = [
        ("9113 8.3.1: not that of the connection", "https"),
        ("9113 8.3.1: no scheme of HTTP", "ftp"),
        ("9113 8.3.1: no scheme of HTTP", "ws"),
        ("3986 3.1: empty", ""),
        ("3986 3.1: no scheme", "ht tp"),
        ("3986 3.1: no scheme", "1http"),
        ("3986 3.1: no scheme", "http://b/y?"),
        ("9113 8.2.1: a line end", "http\r\nX: y"),
    ];
    check(schemes.map(|(section, scheme)| refuse(section, REFUSED, with(":scheme", scheme))));
}

#[test]
fn an_authority_is_one_host() {
    let authorities = [
        ("9110 7.2: empty", ""),
        ("9110 7.2: not a host", "a b"),
        ("9110 7.2: not a host", "a/b"),
        ("9110 7.2: not a host", "a,b"),
        ("9110 7.2: not a host", "a..b"),
        ("9110 7.2: not a port", "a:b"),
        ("9110 7.2: not a port", "a:99999"),
        ("9113 8.3.1: user information", "u@a"),
        ("9113 8.2.1: a line end", "a\r\nX: y"),
        ("9113 8.2.1: NUL", "a\0"),
        ("9113 8.2.1: a space in front", " a"),
        ("9113 8.2.1: a space behind", "a "),
    ];
    check(authorities.map(|(section, own)| refuse(section, REFUSED, with(":authority", own))));
    let hosts = [
        ("9113 8.3.1: another host", "b"),
        ("9113 8.3.1: another host", "a:80"),
        ("9113 8.3.1: another host", ""),
        ("9113 8.3.1: a list", "a, b"),
    ];
    check(hosts.map(|(section, host)| refuse(section, REFUSED, get(&[("host", host)]))));
    let without: Vec<_> = WHOLE
        .into_iter()
        .filter(|field| field.0 != ":authority")
        .collect();
    let host = |own: &[(&'static str, &'static str)]| fields(&[&without, own].concat());
    check([
        refuse(
            "9113 8.3.1: two hosts",
            REFUSED,
            get(&[("host", "a"), ("host", "a")]),
        ),
        refuse(
            "9113 8.3.1: two hosts",
            REFUSED,
            host(&[("host", "a"), ("host", "b")]),
        ),
        refuse("9110 7.2: not a host", REFUSED, host(&[("host", "a b")])),
        forward(
            "9113 8.3.1: the same host",
            get(&[("host", "A")]),
            "GET /x none -",
        ),
        forward(
            "9113 8.3.1: Host alone",
            host(&[("host", "b:80")]),
            "GET /x none -",
        )
        .has(&["host: b:80", "x-forwarded-host: b:80"]),
        forward(
            "9113 8.3.1: a port",
            with(":authority", "b:80"),
            "GET /x none -",
        )
        .has(&["host: b:80"]),
        forward(
            "9113 8.3.1: IPv6",
            with(":authority", "[::1]:80"),
            "GET /x none -",
        )
        .has(&["host: [::1]:80"]),
    ]);
}

#[test]
fn options_for_the_server_are_answered_by_the_proxy() {
    let options = request("OPTIONS", "*", NONE);
    check([refuse("9110 9.3.7; 9113 8.3.1", "200 ", options)]);
}

#[test]
fn fields_may_come_in_several_frames() {
    let many = request(
        "GET",
        "/x",
        &[("x", "y".repeat(40)), ("z", "w".repeat(300))],
    );
    check([
        forward("9113 6.10", many.clone(), "GET /x none -").cut(200),
        forward("9113 6.10", many, "GET /x none -").cut(90),
    ]);
}
