//! `Expect: 100-continue`, which the proxy answers itself.

use super::{
    case::{End, Step, answer, dialogue, get, post, refuse},
    check::check,
};

#[test]
fn a_client_that_waits_is_told_once_to_go_on() {
    let expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let waits = |lines: &str, body: &str| {
        [
            Step::Send(post(lines, "")),
            Step::Answer("100"),
            Step::Send(body.into()),
            Step::Answer("200 /x"),
        ]
    };
    let chunked = "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n";
    let cases = [
        (expecting, "hello", "POST /x length hello"),
        (
            "Expect: 100-Continue\r\nContent-Length: 5\r\n",
            "hello",
            "POST /x length hello",
        ),
        (chunked, "5\r\nhello\r\n0\r\n\r\n", "POST /x chunked hello"),
    ];
    let last = [
        "Connection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n",
        "Expect: 100-continue\r\nConnection: close\r\nContent-Length: 5\r\n",
    ];
    check(last.map(|lines| {
        dialogue(
            "9110 10.1.1: on a connection that ends with it",
            waits(lines, "hello"),
        )
        .end(End::Closed)
        .arrives(&["POST /x length hello"])
    }));
    check(cases.map(|(lines, body, arrives)| {
        dialogue("9110 10.1.1", waits(lines, body))
            .arrives(&[arrives])
            .lacks(&["expect"])
    }));
    let reply = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/x";
    check([dialogue(
        "9110 15.2.1: the endpoint says it too",
        waits(expecting, "hello"),
    )
    .replies(reply)
    .arrives(&["POST /x length hello"])]);
}

#[test]
fn nobody_is_told_to_go_on_who_does_not_wait() {
    let old = "POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    check([
        dialogue(
            "9110 10.1.1: HTTP/1.0",
            [Step::Send(old.into()), Step::Answer("200 /x")],
        )
        .end(End::Closed)
        .arrives(&["POST /x length hello"])
        .lacks(&["expect"]),
        dialogue(
            "9110 10.1.1: no body",
            [
                Step::Send(get("Expect: 100-continue\r\n")),
                Step::Answer("200 /x"),
            ],
        )
        .arrives(&["GET /x none -"])
        .lacks(&["expect"]),
        dialogue(
            "9110 10.1.1: no body",
            [
                Step::Send(post("Expect: 100-continue\r\nContent-Length: 0\r\n", "")),
                Step::Answer("200 /x"),
            ],
        )
        .arrives(&["POST /x length -"]),
        answer(
            "9110 15.2.1: the client did not ask",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "200 ok",
        ),
    ]);
}

#[test]
fn a_client_that_waits_for_nothing_good_is_told_at_once() {
    let waiting = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    check([
        refuse(
            "9110 10.1.1: a final status instead",
            "400",
            format!("POST /%00 HTTP/1.1\r\nHost: a\r\n{waiting}\r\n"),
        ),
        refuse(
            "9110 10.1.1: a final status instead",
            "400",
            post("Expect: 100-continue\r\nContent-Length: 5x\r\n", ""),
        ),
        refuse(
            "9110 10.1.1: a final status instead",
            "501",
            post("Expect: 100-continue\r\nTransfer-Encoding: x\r\n", ""),
        ),
    ]);
}

#[test]
fn other_expectations_fail() {
    let lines = [
        "Expect: x\r\nContent-Length: 5\r\n",
        "Expect: 100-continue, x\r\nContent-Length: 5\r\n",
        "Expect: 100\r\nContent-Length: 5\r\n",
        "Expect: 100-continue;a=b\r\nContent-Length: 5\r\n",
        "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n",
    ];
    check(lines.map(|lines| refuse("9110 10.1.1", "417", post(lines, "hello"))));
}
