//! Host: exactly one, and a host.

use super::{
    case::{End, forward, refuse},
    check::check,
};

fn of(lines: &[u8]) -> Vec<u8> {
    [b"GET /x HTTP/1.1\r\n", lines, b"\r\n"].concat()
}

#[test]
fn a_request_without_one_valid_host_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("9112 3.2: missing", b""),
        ("9112 3.2: repeated", b"Host: a\r\nHost: b\r\n"),
        ("9112 3.2: repeated", b"Host: a\r\nX: y\r\nHost: a\r\n"),
        ("9112 3.2: repeated", b"Host: a\r\nhOST: a\r\n"),
        ("9112 3.2: repeated", b"Host:\r\nHost: a\r\n"),
        ("9112 3.2: empty", b"Host:\r\n"),
        ("9112 3.2: empty", b"Host: \t \r\n"),
        ("9112 3.2: a list", b"Host: a, b\r\n"),
        ("9112 3.2: empty, which no URI of http has", b"Host:\r\n"),
        ("9112 3.2: empty, which no URI of http has", b"Host: \t\r\n"),
        ("9112 3.2: not a host", b"Host: a b\r\n"),
        ("9112 3.2: not a host", b"Host: a/b\r\n"),
        ("9112 3.2: not a host", b"Host: a?b\r\n"),
        ("9112 3.2: not a host", b"Host: a#b\r\n"),
        ("9112 3.2: not a host", b"Host: a\\b\r\n"),
        ("9112 3.2: not a host", b"Host: a\tb\r\n"),
        ("9112 3.2: not a host", b"Host: http://a\r\n"),
        ("9112 3.2: not a host", b"Host: a%20\r\n"),
        ("9112 3.2: not a host", b"Host: a@b\r\n"),
        ("9112 3.2: not a host", b"Host: a\xc3\xa9\r\n"),
        ("9112 3.2: not a host", b"Host: \"a\"\r\n"),
        ("9112 3.2: not a host", b"Host: a..b\r\n"),
        ("9112 3.2: not a host", b"Host: .a\r\n"),
        ("9112 3.2: not a host", b"Host: [::1\r\n"),
        ("9112 3.2: not a host", b"Host: ::1\r\n"),
        ("9112 3.2: not a host", b"Host: [::1]a\r\n"),
        ("9112 3.2: not a host", b"Host: [a]\r\n"),
        ("3986 3.2.3: not a port", b"Host: a:b\r\n"),
        ("3986 3.2.3: not a port", b"Host: a:+80\r\n"),
        ("3986 3.2.3: not a port", b"Host: a:80:80\r\n"),
        ("3986 3.2.3: not a port", b"Host: a:65536\r\n"),
        ("9112 5.1: a space in front of the colon", b"Host : a\r\n"),
        ("9112 5.2: folded", b"Host: a\r\n b\r\n"),
    ];
    check(
        cases
            .iter()
            .map(|(section, lines)| refuse(section, "400", of(lines))),
    );
}

#[test]
fn a_host_passes_as_it_is_written() {
    let cases = [
        ("9110 7.2", "host: a"),
        ("9110 7.2: a port", "host: a.example:8080"),
        ("9110 4.2.3: upper case", "host: A.Example"),
        ("3986 3.2.2: a final dot", "host: a.example."),
        ("3986 3.2.2: IPv4", "host: 192.0.2.1:80"),
        ("3986 3.2.2: IPv6", "host: [2001:db8::1]:80"),
        ("3986 3.2.2: underscores", "host: a_b.example"),
    ];
    check(cases.map(|(section, line)| {
        let forwarded: &'static str = line.replace("host", "x-forwarded-host").leak();
        forward(
            section,
            of(format!("{line}\r\n").as_bytes()),
            "GET /x none -",
        )
        .has(&[line, forwarded])
    }));
}

#[test]
fn an_old_client_need_not_name_a_host_and_may_not_name_two() {
    let old = |lines: &str| format!("GET /x HTTP/1.0\r\n{lines}\r\n");
    check([
        forward("9112 3.2: none", old(""), "GET /x none -").end(End::Closed),
        forward("9112 3.2: one", old("Host: a\r\n"), "GET /x none -")
            .has(&["host: a"])
            .end(End::Closed),
        refuse("9112 3.2: two", "400", old("Host: a\r\nHost: a\r\n")),
        refuse("9112 3.2: empty", "400", old("Host:\r\n")),
        refuse("9112 3.2: not a host", "400", old("Host: a b\r\n")),
        refuse("9112 3.2: empty", "400", old("Host:\r\n")),
    ]);
}
