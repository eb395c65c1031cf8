//! The first line: method, target, version, and what may stand before it.

use super::{
    case::{End, Step, dialogue, forward, get, refuse},
    check::check,
};

/// A request with this first line.
fn line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_ref(), b"\r\nHost: a\r\n\r\n"].concat()
}

#[test]
fn a_first_line_of_another_shape_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("9112 3: one space", b"GET  /x HTTP/1.1"),
        ("9112 3: one space", b"GET /x  HTTP/1.1"),
        ("9112 3: a space, not a tab", b"GET\t/x HTTP/1.1"),
        ("9112 3: a space, not a tab", b"GET /x\tHTTP/1.1"),
        ("9112 3: a space, not VT", b"GET\x0b/x HTTP/1.1"),
        ("9112 3: a space, not FF", b"GET /x\x0cHTTP/1.1"),
        ("9112 3: no space before", b" GET /x HTTP/1.1"),
        ("9112 3: no space after", b"GET /x HTTP/1.1 "),
        ("9112 3: no tab after", b"GET /x HTTP/1.1\t"),
        ("9112 3: three parts", b"GET /x HTTP/1.1 x"),
        ("9112 3: three parts", b"GET HTTP/1.1"),
        ("9112 3: three parts", b"/x HTTP/1.1"),
        ("9112 3: three parts", b"GET"),
        ("9112 3.2: no space in a target", b"GET /x y HTTP/1.1"),
        ("9112 2.2: bare CR", b"GET /x\r HTTP/1.1"),
        ("9112 2.2: bare CR", b"GE\rT /x HTTP/1.1"),
        ("9112 2.2: bare CR", b"GET /x HTTP/1.1\rX: y"),
        ("9110 5.5: NUL", b"GET /x\0 HTTP/1.1"),
        ("9110 5.5: NUL", b"GE\0T /x HTTP/1.1"),
        ("9110 5.5: NUL", b"GET /x HTTP/1.1\0"),
        ("9110 9.1: a method is a token", b" /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"G@T /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"G(T /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"G,T /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"G:T /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"\"GET\" /x HTTP/1.1"),
        ("9110 9.1: a method is a token", b"G\xc3\x89T /x HTTP/1.1"),
    ];
    check(
        cases
            .iter()
            .map(|(section, own)| refuse(section, "400", line(own))),
    );
}

#[test]
fn a_version_that_is_not_spoken_is_refused() {
    let other = [
        ("9112 2.3: HTTP/0.9", "GET /x"),
        ("9112 2.3: HTTP/0.9", "GET /x HTTP/0.9"),
        ("9112 2.3: HTTP/1.2", "GET /x HTTP/1.2"),
        ("9112 2.3: HTTP/1.9", "GET /x HTTP/1.9"),
        ("9112 2.3: HTTP/2.0 without its preface", "GET /x HTTP/2.0"),
        ("9112 2.3: HTTP/3.0", "GET /x HTTP/3.0"),
        ("9112 2.3: one digit", "GET /x HTTP/1.10"),
        ("9112 2.3: one digit", "GET /x HTTP/1.01"),
        ("9112 2.3: one digit", "GET /x HTTP/01.1"),
        ("9112 2.3: one digit", "GET /x HTTP/11"),
        ("9112 2.3: one digit", "GET /x HTTP/1"),
        ("9112 2.3: one digit", "GET /x HTTP/1."),
        ("9112 2.3: one digit", "GET /x HTTP/.1"),
        ("9112 2.3: a dot", "GET /x HTTP/1,1"),
        ("9112 2.3: digits", "GET /x HTTP/x.y"),
        ("9112 2.3: digits", "GET /x HTTP/-1.1"),
    ];
    let broken = [
        ("9112 2.3: upper case", "GET /x http/1.1"),
        ("9112 2.3: upper case", "GET /x Http/1.1"),
        ("9112 2.3: the name", "GET /x HTTPS/1.1"),
        ("9112 2.3: the name", "GET /x SIP/2.0"),
        ("9112 2.3: the name", "GET /x HTTP 1.1"),
        ("9112 2.3: the name", "GET /x HTTP/ 1.1"),
        ("9112 2.3: the name", "GET /x H/1.1"),
    ];
    check(other.map(|(section, own)| refuse(section, "400|505", line(own))));
    check(broken.map(|(section, own)| refuse(section, "400", line(own))));
}

#[test]
fn methods_pass_as_they_are() {
    check([
        forward("9110 9.3.1", line("GET /x HTTP/1.1"), "GET /x none -"),
        forward("9110 9.3.3", line("POST /x HTTP/1.1"), "POST /x none -"),
        forward("9110 9.3.4", line("PUT /x HTTP/1.1"), "PUT /x none -"),
        forward("9110 9.3.5", line("DELETE /x HTTP/1.1"), "DELETE /x none -"),
        forward(
            "9110 9.3.7",
            line("OPTIONS /x HTTP/1.1"),
            "OPTIONS /x none -",
        ),
        forward("5789 2", line("PATCH /x HTTP/1.1"), "PATCH /x none -"),
        forward(
            "4918 9.1",
            line("PROPFIND /x HTTP/1.1"),
            "PROPFIND /x none -",
        ),
        forward("9110 16.1.1", line("PURGE /x HTTP/1.1"), "PURGE /x none -"),
        forward(
            "9110 16.1.1",
            line("M-SEARCH /x HTTP/1.1"),
            "M-SEARCH /x none -",
        ),
        forward(
            "9110 9.1: case counts",
            line("get /x HTTP/1.1"),
            "get /x none -",
        ),
        forward(
            "9110 5.6.2: every character of a token",
            line("!#$%&'*+-.^_`|~aZ09 /x HTTP/1.1"),
            "!#$%&'*+-.^_`|~aZ09 /x none -",
        ),
        dialogue(
            "9110 9.3.2",
            [
                Step::Send(line("HEAD /x HTTP/1.1")),
                Step::Answer("HEAD 200 -"),
            ],
        )
        .arrives(&["HEAD /x none -"])
        .told(&["content-length: 2"]),
    ]);
}

#[test]
fn methods_that_are_not_for_us_are_not_allowed() {
    let cases = [
        ("9110 9.3.8", "TRACE /x HTTP/1.1"),
        ("9110 9.3.8", "TRACE * HTTP/1.1"),
        ("9110 9.3.6", "CONNECT a:80 HTTP/1.1"),
        ("9110 9.3.6", "CONNECT /x HTTP/1.1"),
        ("9110 9.3.6", "CONNECT a HTTP/1.1"),
    ];
    check(cases.map(|(section, own)| {
        dialogue(section, [Step::Send(line(own)), Step::Answer("405")])
            .end(End::Any)
            .arrives(&[])
            .told(&["allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"])
    }));
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let request = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        ("9112 2.2: an empty line", "\r\n"),
        ("9112 2.2: empty lines", "\r\n\r\n\r\n\r\n"),
        ("9112 2.2: ended by LF", "\n"),
        ("9112 2.2: ended by either", "\n\r\n\n"),
    ];
    check(
        cases
            .map(|(section, lines)| forward(section, format!("{lines}{request}"), "GET /x none -")),
    );
    check([
        refuse(
            "9112 2.2: a space is no empty line",
            "400",
            " \r\nGET /x HTTP/1.1\r\n",
        ),
        refuse("9112 2.2: nor is CR alone", "400", format!("\r{request}")),
        refuse("9112 2.2: nor is NUL", "400", format!("\0{request}")),
    ]);
}

#[test]
fn lines_may_end_with_lf_alone_and_go_on_with_cr_lf() {
    check([
        forward("9112 2.2", "GET /x HTTP/1.1\nHost: a\n\n", "GET /x none -"),
        forward(
            "9112 2.2",
            "GET /x HTTP/1.1\r\nHost: a\nX: y\r\n\n",
            "GET /x none -",
        )
        .has(&["x: y"]),
        forward(
            "9112 2.2",
            "GET /x HTTP/1.1\nHost: a\r\n\r\n",
            "GET /x none -",
        ),
        forward(
            "9112 2.2",
            "POST /x HTTP/1.1\nHost: a\nContent-Length: 2\n\n\nb",
            "POST /x length \\nb",
        ),
    ]);
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    let whole = [
        get("Cookie: a=b\r\n"),
        b"\r\nPOST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        b"POST /z HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        b"2;e\r\nde\r\n00\r\nT: u\r\n\r\n".to_vec(),
    ]
    .concat();
    let answers = ["200 /x", "200 /y", "200 /z"].map(Step::Answer);
    let arrives = ["GET /x none -", "POST /y length abc", "POST /z chunked de"];
    let dripped = [&[Step::Drip(whole.clone())], &answers[..]].concat();
    let at_once = [&[Step::Send(whole)], &answers[..]].concat();
    check([
        dialogue("9112 2.1", at_once).arrives(&arrives),
        dialogue("9112 2.1", dripped).arrives(&arrives),
    ]);
}
