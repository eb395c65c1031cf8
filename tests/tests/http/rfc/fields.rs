//! Fields of requests: their grammar, their names, their values.

use super::{
    case::{forward, get, refuse},
    check::check,
};

#[test]
fn lines_that_are_no_fields_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("9112 5.1: a space before the colon", b"X : y\r\n"),
        ("9112 5.1: a tab before the colon", b"X\t: y\r\n"),
        (
            "9112 5.1: a space before the colon",
            b"Content-Length : 5\r\n",
        ),
        (
            "9112 5.1: a space before the colon",
            b"Transfer-Encoding : chunked\r\n",
        ),
        ("9112 5.1: no colon", b"X\r\n"),
        ("9112 5.1: no colon", b"X y\r\n"),
        ("9110 5.1: no name", b": y\r\n"),
        ("9110 5.1: a name is a token", b"X Y: z\r\n"),
        ("9110 5.1: a name is a token", b"X@Y: z\r\n"),
        ("9110 5.1: a name is a token", b"X(Y): z\r\n"),
        ("9110 5.1: a name is a token", b"X,Y: z\r\n"),
        ("9110 5.1: a name is a token", b"X/Y: z\r\n"),
        ("9110 5.1: a name is a token", b"\"X\": z\r\n"),
        ("9110 5.1: a name is a token", b"[X]: z\r\n"),
        ("9110 5.1: a name is a token", b"X\xe9: z\r\n"),
        ("9110 5.1: a name is a token", b"X\x01: z\r\n"),
        ("9110 5.1: a name is a token", b"X\0: z\r\n"),
        ("9110 5.5: NUL", b"X: y\0z\r\n"),
        ("9110 5.5: NUL", b"X: \0\r\n"),
        ("9110 5.5: bare CR", b"X: y\rz\r\n"),
        ("9110 5.5: bare CR", b"X: y\r\rZ: z\r\n"),
        (
            "9110 5.5: bare CR hides a field",
            b"X: y\rContent-Length: 5\r\n",
        ),
        ("9110 5.5: control characters", b"X: y\x01\r\n"),
        ("9110 5.5: control characters", b"X: y\x0bz\r\n"),
        ("9110 5.5: control characters", b"X: y\x1bz\r\n"),
        ("9110 5.5: control characters", b"X: y\x7fz\r\n"),
        ("9112 5.2: folded by a space", b"X: y\r\n z\r\n"),
        ("9112 5.2: folded by a tab", b"X: y\r\n\tz\r\n"),
        ("9112 5.2: folded after LF", b"X: y\n z\r\n"),
        (
            "9112 5.2: folded coding",
            b"Transfer-Encoding:\r\n chunked\r\n",
        ),
        ("9112 5.2: folded length", b"Content-Length:\r\n 5\r\n"),
        ("9112 5.2: a fold of nothing", b"X: y\r\n \r\n"),
    ];
    check(
        cases
            .iter()
            .map(|(section, lines)| refuse(section, "400", get(lines))),
    );
    check([refuse(
        "9112 2.2: a space before the first field",
        "400",
        "GET /x HTTP/1.1\r\n Host: a\r\n\r\n",
    )]);
}

#[test]
fn values_pass_byte_by_byte() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("9110 5.5", b"X: y z\r\n", "x: y z"),
        ("9110 5.5: a tab", b"X: y\tz\r\n", "x: y\\tz"),
        ("9110 5.5: empty", b"X:\r\n", "x: "),
        ("9110 5.5: only space", b"X:  \t \r\n", "x: "),
        ("9112 5.1: space around it", b"X: \t y \t\r\n", "x: y"),
        ("9112 5.1: no space", b"X:y\r\n", "x: y"),
        (
            "9110 5.5: obs-text",
            b"X: caf\xe9 \xff\r\n",
            "x: caf\\xe9 \\xff",
        ),
        ("9110 5.5: colons", b"X: y: z\r\n", "x: y: z"),
        ("9110 5.6.4: quotes", b"X: \"y, z\"\r\n", "x: \"y, z\""),
        ("9110 5.3: order", b"X: 2\r\nY: z\r\nx: 1\r\n", "x: 2|1"),
        (
            "6265 5.4: cookies are one field",
            b"Cookie: a=1\r\nCookie: b=2\r\n",
            "cookie: a=1; b=2",
        ),
        (
            "6265 5.4: a cookie",
            b"Cookie: a=\xe9; b\r\n",
            "cookie: a=\\xe9; b",
        ),
        (
            "9110 11.6.2",
            b"Authorization: Basic eDp5\r\n",
            "authorization: Basic eDp5",
        ),
        (
            "9110 12.5.1",
            b"Accept: a/b;q=1, */*\r\n",
            "accept: a/b;q=1, */*",
        ),
        ("9110 7.6.3", b"Via: 1.1 x\r\n", "via: 1.1 x"),
        (
            "9111 5.2",
            b"Cache-Control: no-cache\r\n",
            "cache-control: no-cache",
        ),
    ];
    check(
        cases
            .iter()
            .map(|(section, lines, has)| forward(section, get(lines), "GET /x none -").has(&[has])),
    );
}

#[test]
fn names_keep_their_spelling() {
    let names = [
        "X-CaMeL",
        "x-lower",
        "X-UPPER",
        "Accept",
        "uSeR-aGeNt",
        "!#$%&'*+-.^`|~9",
    ];
    check(names.map(|name| {
        forward("9110 5.1", get(format!("{name}: y\r\n")), "GET /x none -").spelled(&[name])
    }));
    check([forward(
        "9110 5.1",
        get("SOAPAction: y\r\nsoapaction: z\r\n"),
        "GET /x none -",
    )
    .spelled(&["SOAPAction", "soapaction"])]);
}

#[test]
fn names_that_gateways_confuse_are_dropped() {
    let cases = [
        ("X_Forwarded_For: y\r\n", "x_forwarded_for"),
        ("Content_Length: 5\r\n", "content_length"),
        ("Transfer_Encoding: chunked\r\n", "transfer_encoding"),
        ("_: y\r\n", "_"),
        ("A_B: y\r\n", "a_b"),
    ];
    check(
        cases.map(|(lines, name)| {
            forward("3875 4.1.18", get(lines), "GET /x none -").lacks(&[name])
        }),
    );
}
