//! Where the body of a response ends, and what becomes of the endpoint's connection.

use super::{
    case::{Case, End, Step, answer, dialogue, get},
    check::check,
    message::Framing,
    recorder::Reply,
};

/// The answer to a GET, and how many connections it and the probe take.
fn framed(section: &'static str, lines: &str, body: &str, got: &'static str, count: usize) -> Case {
    let reply = format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}");
    answer(section, reply, got).connections(count)
}

#[test]
fn bodies_end_where_the_endpoint_says() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    check([
        framed("9112 6.3", "Content-Length: 5\r\n", "hello", "200 hello", 1),
        framed("9112 6.3", "Content-Length: 0\r\n", "", "200 -", 1),
        framed(
            "9112 6.3",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "hello",
            "200 hello",
            1,
        ),
        framed(
            "9112 6.3",
            chunked,
            "5\r\nhello\r\n0\r\n\r\n",
            "200 hello",
            1,
        ),
        framed(
            "9112 6.3",
            "Transfer-Encoding: CHUNKED\r\n",
            "1\r\nx\r\n0\r\n\r\n",
            "200 x",
            1,
        ),
        framed("9112 7.1", chunked, "0\r\n\r\n", "200 -", 1),
        framed(
            "9112 7.1.1",
            chunked,
            "05;a=\"b\"\r\nhello\r\n00\r\n\r\n",
            "200 hello",
            1,
        ),
        framed(
            "9112 9.6",
            "Connection: close\r\nContent-Length: 2\r\n",
            "ok",
            "200 ok",
            2,
        ),
        framed(
            "9112 9.6",
            "Connection: x, Close\r\nContent-Length: 2\r\n",
            "ok",
            "200 ok",
            2,
        ),
    ]);
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    check([
        answer("9112 9.3: an old endpoint", old, "200 ok").connections(2),
        answer(
            "9112 6.3: until the end",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "200 hello",
        )
        .hangs_up()
        .connections(2),
        answer(
            "9112 6.3: until the end",
            "HTTP/1.1 200 OK\r\n\r\n",
            "200 -",
        )
        .hangs_up()
        .connections(2),
        answer(
            "9112 6.3: an old endpoint",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "200 hello",
        )
        .hangs_up()
        .connections(2),
    ]);
}

#[test]
fn a_length_beside_a_coding_is_dropped_and_the_endpoint_not_trusted_further() {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1000\r\n",
    ];
    check(cases.map(|lines| framed("9112 6.1, 6.3", lines, body, "200 hello", 2)));
    check([answer(
        "9112 6.1: a coding of an old endpoint",
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        "200 hello|502",
    )
    .connections(2)]);
}

#[test]
fn an_end_that_is_not_one_is_a_bad_gateway() {
    let cases = [
        ("9112 6.3", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("9112 6.3", "Content-Length: 5, 5\r\n"),
        ("9110 8.6", "Content-Length: +5\r\n"),
        ("9110 8.6", "Content-Length: -5\r\n"),
        ("9110 8.6", "Content-Length: 0x5\r\n"),
        ("9110 8.6", "Content-Length: 5 5\r\n"),
        ("9110 8.6", "Content-Length: five\r\n"),
        ("9110 8.6", "Content-Length:\r\n"),
        ("9110 8.6", "Content-Length: 18446744073709551616\r\n"),
        ("9112 6.1", "Transfer-Encoding: gzip\r\n"),
        ("9112 6.1", "Transfer-Encoding: gzip, chunked\r\n"),
        ("9112 6.1", "Transfer-Encoding: chunked, gzip\r\n"),
        ("9112 6.1", "Transfer-Encoding: chunked, chunked\r\n"),
        ("9112 6.1", "Transfer-Encoding: identity\r\n"),
        ("9112 6.1", "Transfer-Encoding: xchunked\r\n"),
        (
            "9112 6.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("9112 6.1", "Transfer-Encoding:\r\n"),
    ];
    check(cases.map(|(section, lines)| framed(section, lines, "hello", "502", 2)));
}

#[test]
fn a_body_cut_short_is_never_passed_off_as_whole() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        (
            "9112 8",
            "Content-Length: 5\r\n",
            "hel",
            "200 hel cut|200 - cut|502|closed",
        ),
        (
            "9112 8",
            "Content-Length: 5\r\n",
            "",
            "200 - cut|502|closed",
        ),
        ("9112 8", chunked, "", "200 - cut|502|closed"),
        ("9112 8", chunked, "5\r\n", "200 - cut|502|closed"),
        (
            "9112 8",
            chunked,
            "5\r\nhel",
            "200 hel cut|200 - cut|502|closed",
        ),
        (
            "9112 8",
            chunked,
            "5\r\nhello",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 8",
            chunked,
            "5\r\nhello\r\n",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 8",
            chunked,
            "5\r\nhello\r\n0\r\n",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 8",
            chunked,
            "5\r\nhello\r\n0\r\nX: y\r\n",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 7.1",
            chunked,
            "5\r\nhello\r\nx\r\n",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 7.1",
            chunked,
            "5\r\nhellothere\r\n0\r\n\r\n",
            "200 hello cut|200 - cut|502|closed",
        ),
        (
            "9112 7.1",
            chunked,
            "5\nhello\r\n0\r\n\r\n",
            "200 - cut|502|closed",
        ),
        (
            "9112 7.1",
            chunked,
            "0x5\r\nhello\r\n0\r\n\r\n",
            "200 - cut|502|closed",
        ),
        (
            "9112 7.1",
            chunked,
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "200 - cut|502|closed",
        ),
        (
            "9112 7.1.2",
            chunked,
            "0\r\nX : y\r\n\r\n",
            "200 - cut|502|closed",
        ),
    ];
    check(cases.map(|(section, lines, body, got)| {
        framed(section, lines, body, got, 1)
            .hangs_up()
            .end(End::Any)
    }));
}

#[test]
fn answers_that_cannot_have_a_body_have_none() {
    let head = |lines: &str| {
        dialogue(
            "9110 9.3.2",
            [
                Step::Send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
                Step::Answer("HEAD 200 -"),
            ],
        )
        .replies(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))
        .connections(1)
    };
    check([
        head("Content-Length: 5\r\n").told(&["content-length: 5"]),
        head("Transfer-Encoding: chunked\r\n"),
        head(""),
    ]);
    let plain = |reply: &str, got: &'static str| answer("9110 6.4.1", reply, got).connections(1);
    check([
        plain("HTTP/1.1 204 No Content\r\n\r\n", "204 -"),
        plain(
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "204 -",
        )
        .untold(&["content-length"]),
        plain("HTTP/1.1 304 Not Modified\r\n\r\n", "304 -"),
        plain(
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
            "304 -",
        )
        .told(&["etag: x", "content-length: 5"]),
        plain(
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "304 -",
        )
        .untold(&["transfer-encoding"]),
    ]);
    check(
        [
            answer(
                "9110 8.6: no length with 204",
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                "204 -",
            ),
            answer(
                "9112 6.1: no coding with 204",
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                "204 -",
            ),
        ]
        .map(|case| case.untold(&["content-length", "transfer-encoding"])),
    );
}

#[test]
fn what_comes_after_an_answer_is_nobodys() {
    let next = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let cases = [
        (
            "9112 9.3: a byte",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokx",
            "200 ok",
        ),
        (
            "9112 9.3: an empty line",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            "200 ok",
        ),
        (
            "9112 9.3: after 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
            "204 -",
        ),
        (
            "9112 9.3: after 304",
            "HTTP/1.1 304 Not Modified\r\n\r\nevil",
            "304 -",
        ),
        (
            "9112 9.3: after chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
            "200 ok",
        ),
    ];
    check(cases.map(|(section, reply, got)| answer(section, reply, got).connections(2)));
    let two = ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", next].concat();
    check([
        answer("9112 9.2: an answer too many", two, "200 ok").connections(2),
        dialogue(
            "9110 9.3.2: a body after HEAD",
            [
                Step::Send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
                Step::Answer("HEAD 200 -"),
            ],
        )
        .replies("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        .connections(2),
    ]);
    // Byte by byte, what is too much comes after the answer has been passed on.
    check([dialogue(
        "9112 9.2: later",
        [
            Step::Send(get("")),
            Step::Answer("200 ok"),
            Step::Answered(1),
        ],
    )
    .reply(Reply {
        bytes: Some(
            ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", next]
                .concat()
                .into(),
        ),
        drip: true,
        ..Reply::default()
    })
    .connections(2)]);
}

#[test]
fn new_clients_are_told_the_end_by_the_framing() {
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    check([
        answer("9112 6.3", until_close, "200 hello")
            .hangs_up()
            .framed(Framing::Chunked),
        answer(
            "9112 6.3",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "200 ok",
        )
        .framed(Framing::Length(2)),
    ]);
}
