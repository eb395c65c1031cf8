//! Fields that endpoints send.

use super::{case::answer, check::check};

fn reply(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok")
}

#[test]
fn fields_of_one_hop_go_no_further() {
    let cases: [(&str, &[&str]); 8] = [
        (
            "Connection: X-Hop\r\nX-Hop: y\r\n",
            &["x-hop", "connection"],
        ),
        (
            "X-Hop: y\r\nConnection: keep-alive, x-hop\r\n",
            &["x-hop", "connection"],
        ),
        (
            "Connection: A\r\nConnection: B\r\nA: 1\r\nB: 2\r\n",
            &["a", "b"],
        ),
        ("Connection: close\r\n", &["connection"]),
        ("Keep-Alive: timeout=5\r\n", &["keep-alive"]),
        ("Proxy-Connection: close\r\n", &["proxy-connection"]),
        ("TE: trailers\r\n", &["te"]),
        (
            "Upgrade: h2c\r\nConnection: Upgrade\r\n",
            &["upgrade", "connection"],
        ),
    ];
    check(
        cases
            .into_iter()
            .take(8)
            .map(|(lines, untold)| answer("9110 7.6.1", reply(lines), "200 ok").untold(untold)),
    );
}

#[test]
fn a_connection_option_cannot_take_away_the_length() {
    check([answer(
        "9110 7.6.1",
        reply("Connection: Content-Length\r\n"),
        "200 ok",
    )]);
}

#[test]
fn other_fields_pass_byte_by_byte() {
    let cases = [
        ("9110 5.5", "X: y z\r\n", "x: y z"),
        ("9110 5.5: empty", "X:\r\n", "x: "),
        ("9110 5.5: a tab", "X: y\tz\r\n", "x: y\\tz"),
        ("9110 5.5: space around it", "X: \t y \r\n", "x: y"),
        ("9110 5.5: obs-text", "X: \u{e9}\r\n", "x: \\xc3\\xa9"),
        (
            "6265 3: cookies stay apart",
            "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
            "set-cookie: a=1|b=2",
        ),
        ("9110 5.3: order", "X: 2\r\nY: z\r\nX: 1\r\n", "x: 2|1"),
        (
            "9110 6.6.1: its date",
            "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
            "date: Thu, 01 Jan 1970 00:00:00 GMT",
        ),
        (
            "9110 10.2.4: the proxy's name",
            "Server: secret/1.0\r\n",
            "server: forebay",
        ),
        ("9110 10.2.4: the proxy's name", "", "server: forebay"),
        ("9110 16.3", "X-Powered-By: y\r\n", "x-powered-by: y"),
        ("9110 10.2.2", "Location: /y\r\n", "location: /y"),
        ("9110 8.8.3", "ETag: W/\"y\"\r\n", "etag: W/\"y\""),
        (
            "9110 8.4",
            "Content-Encoding: gzip\r\n",
            "content-encoding: gzip",
        ),
        ("9110 5.1: names with _", "A_B: y\r\n", "a_b: y"),
    ];
    check(
        cases.map(|(section, lines, told)| answer(section, reply(lines), "200 ok").told(&[told])),
    );
}

#[test]
fn names_keep_their_spelling() {
    let names = [
        "X-CaMeL",
        "x-lower",
        "X-UPPER",
        "ETag",
        "WWW-Authenticate",
        "content-TYPE",
    ];
    check(names.map(|name| {
        answer("9110 5.1", reply(&format!("{name}: y\r\n")), "200 ok").told_spelled(&[name])
    }));
}
