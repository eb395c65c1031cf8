//! The forms of a target besides a path.

use super::{
    case::{End, Step, dialogue, forward, refuse},
    check::check,
};

#[test]
fn the_authority_of_a_target_wins_over_host() {
    let cases = [
        ("GET http://b/y?q HTTP/1.1", "GET /y?q none -", "host: b"),
        ("GET http://b HTTP/1.1", "GET / none -", "host: b"),
        ("GET http://b/ HTTP/1.1", "GET / none -", "host: b"),
        (
            "OPTIONS http://b?q HTTP/1.1",
            "OPTIONS /?q none -",
            "host: b",
        ),
        ("OPTIONS http://b/ HTTP/1.1", "OPTIONS / none -", "host: b"),
        ("GET http://b?q HTTP/1.1", "GET /?q none -", "host: b"),
        ("GET HTTP://b/y HTTP/1.1", "GET /y none -", "host: b"),
        (
            "GET http://b:8080/y HTTP/1.1",
            "GET /y none -",
            "host: b:8080",
        ),
        (
            "GET http://[::1]:80/y HTTP/1.1",
            "GET /y none -",
            "host: [::1]:80",
        ),
        (
            "GET http://b//y/../z HTTP/1.1",
            "GET //y/../z none -",
            "host: b",
        ),
    ];
    check(cases.map(|(line, arrives, host)| {
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        let forwarded: &'static str = host.replace("host", "x-forwarded-host").leak();
        forward("9112 3.2.2", request, arrives).has(&[host, forwarded])
    }));
    check([forward(
        "9112 3.2.2: without Host from an old client",
        "GET http://b/y HTTP/1.0\r\n\r\n",
        "GET /y none -",
    )
    .has(&["host: b"])
    .end(End::Closed)]);
}

#[test]
fn targets_of_other_forms_are_refused() {
    let cases = [
        ("9112 3.2: none", "GET foo HTTP/1.1\r\nHost: a"),
        ("9112 3.2: none", "GET ?q HTTP/1.1\r\nHost: a"),
        ("9112 3.2: none", "GET #f HTTP/1.1\r\nHost: a"),
        ("9112 3.2: none", "GET . HTTP/1.1\r\nHost: a"),
        ("9112 3.2: none", "GET \\ HTTP/1.1\r\nHost: a"),
        (
            "9112 3.2.3: only for CONNECT",
            "GET a:80 HTTP/1.1\r\nHost: a",
        ),
        ("9112 3.2.4: only for OPTIONS", "GET * HTTP/1.1\r\nHost: a"),
        ("9112 3.2.4: only for OPTIONS", "POST * HTTP/1.1\r\nHost: a"),
        (
            "9112 3.2.4: the star alone",
            "OPTIONS *x HTTP/1.1\r\nHost: a",
        ),
        ("9112 3.2.4: Host as ever", "OPTIONS * HTTP/1.1"),
        ("9112 3.2: Host is missing", "GET http://b/ HTTP/1.1"),
        (
            "9112 3.2: Host is repeated",
            "GET http://b/ HTTP/1.1\r\nHost: b\r\nHost: b",
        ),
        (
            "9112 3.2: Host is no host",
            "GET http://b/ HTTP/1.1\r\nHost: a b",
        ),
        ("9112 3.2: Host is empty", "GET http://b/ HTTP/1.1\r\nHost:"),
        (
            "9110 4.2.1: empty host",
            "GET http:///y HTTP/1.1\r\nHost: a",
        ),
        (
            "9110 4.2.1: empty host",
            "GET http://:80/y HTTP/1.1\r\nHost: a",
        ),
        (
            "9110 4.2.4: user information",
            "GET http://u@b/ HTTP/1.1\r\nHost: a",
        ),
        (
            "9110 4.2.4: user information",
            "GET http://u:p@b/ HTTP/1.1\r\nHost: a",
        ),
        (
            "3986 3.2.3: a port is a number",
            "GET http://b:x/ HTTP/1.1\r\nHost: a",
        ),
        (
            "3986 3.2.3: a port fits",
            "GET http://b:99999/ HTTP/1.1\r\nHost: a",
        ),
        (
            "3986 3.2.2: a host name",
            "GET http://b,c/ HTTP/1.1\r\nHost: a",
        ),
        (
            "3986 3.3: its path too",
            "GET http://b/%00 HTTP/1.1\r\nHost: a",
        ),
        (
            "3986 3.3: its path too",
            "GET http://b/../y HTTP/1.1\r\nHost: a",
        ),
    ];
    check(cases.map(|(section, head)| refuse(section, "400", format!("{head}\r\n\r\n"))));
}

#[test]
fn what_is_not_ascii_goes_on_as_it_came_where_it_is_text() {
    let line = |target: &[u8]| [b"GET /", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    check([
        forward(
            "3986 2.5: UTF-8, as nginx",
            line(b"\xc3\xa9"),
            r"GET /\xc3\xa9 none -",
        ),
        forward(
            "3986 2.5: in the query",
            line(b"x?\xc3\xa9"),
            r"GET /x?\xc3\xa9 none -",
        ),
        refuse(
            "3986 2.5: nobody knows which letter it is",
            "400",
            line(b"\xe9"),
        ),
    ]);
}

#[test]
fn options_for_the_server_are_answered_by_the_proxy() {
    let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let options = |head: &str| [Step::Send(head.into()), Step::Answer("200 -")];
    let allowed = "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    check([
        dialogue("9110 9.3.7", options(head))
            .arrives(&[])
            .told(&[allowed]),
        dialogue(
            "9110 9.3.7: an old client",
            options("OPTIONS * HTTP/1.0\r\n\r\n"),
        )
        .end(End::Closed)
        .arrives(&[])
        .told(&[allowed]),
        dialogue(
            "9112 9.3.2: the next request follows",
            [
                Step::Send([head, head].concat().into()),
                Step::Answer("200 -"),
                Step::Answer("200 -"),
            ],
        )
        .arrives(&[]),
    ]);
}

#[test]
fn options_for_the_server_behind_the_proxy_reach_it_as_such() {
    let cases = [
        ("OPTIONS http://b HTTP/1.1", "OPTIONS * none -"),
        ("OPTIONS http://b:80 HTTP/1.1", "OPTIONS * none -"),
        ("OPTIONS http://b/ HTTP/1.1", "OPTIONS / none -"),
        ("OPTIONS http://b?q HTTP/1.1", "OPTIONS /?q none -"),
        ("OPTIONS http://b? HTTP/1.1", "OPTIONS /? none -"),
        ("GET http://b HTTP/1.1", "GET / none -"),
    ];
    check(cases.map(|(line, arrives)| {
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        forward("9112 3.2.4", request, arrives)
    }));
}
