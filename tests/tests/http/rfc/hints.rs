//! Interim responses of endpoints.

use super::{
    case::{End, Step, answer, dialogue, get},
    check::check,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HINT: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: y\r\n\r\n";

#[test]
fn what_only_the_next_hop_needs_is_skipped() {
    let interim = [
        ("9110 15.2.1", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("9110 15.2.1", "HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
        (
            "9110 15.2.1",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        ),
    ];
    check(
        interim
            .map(|(section, reply)| answer(section, [reply, OK].concat(), "200 ok").connections(1)),
    );
}

#[test]
fn early_hints_reach_clients_that_know_them() {
    let hinted = [
        Step::Send(get("")),
        Step::Answer("103"),
        Step::Answer("200 ok"),
    ];
    check([
        dialogue("8297 2", hinted.clone())
            .replies([HINT, OK].concat())
            .connections(1),
        dialogue("8297 2", hinted[..2].to_vec())
            .replies([HINT, OK].concat())
            .end(End::Any)
            .told(&["link: </a>; rel=preload"])
            .untold(&["content-length", "transfer-encoding", "x-hop", "connection"]),
        dialogue(
            "8297 2: several",
            [
                Step::Send(get("")),
                Step::Answer("103"),
                Step::Answer("103"),
                Step::Answer("200 ok"),
            ],
        )
        .replies([HINT, HINT, OK].concat()),
        dialogue(
            "9110 15.2: a proxy forwards what it did not ask for",
            [
                Step::Send(get("")),
                Step::Answer("102"),
                Step::Answer("200 ok"),
            ],
        )
        .replies(["HTTP/1.1 102 Processing\r\n\r\n", OK].concat()),
        dialogue(
            "9110 15.2: an old client",
            [
                Step::Send(b"GET /x HTTP/1.0\r\n\r\n".to_vec()),
                Step::Answer("200 ok"),
            ],
        )
        .replies([HINT, OK].concat())
        .end(End::Closed),
    ]);
}

#[test]
fn interim_responses_without_end_are_a_bad_gateway() {
    let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000);
    let old = b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n".to_vec();
    check([
        dialogue("9110 15.2", [Step::Send(old), Step::Answer("502")])
            .replies([&endless, OK].concat())
            .end(End::Any),
    ]);
}
