//! Several requests in one segment.

use super::{
    case::{Case, End, Step, dialogue},
    check::check,
};

/// Requests for these targets, of which the client reads `answers`.
fn all(section: &'static str, requests: &[&str], answers: &[&'static str]) -> Case {
    let mut steps = vec![Step::Send(requests.concat().into_bytes())];
    steps.extend(answers.iter().copied().map(Step::Answer));
    dialogue(section, steps)
}

const A: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const B: &str = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
const BAD: &str = "GET /bad HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n";
const HEAD: &str = "HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n";
const LENGTH: &str = "POST /l HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET ";
const CHUNKED: &str =
    "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n";
const CLOSE: &str = "GET /close HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const OLD: &str = "GET /old HTTP/1.0\r\n\r\n";
const KEPT: &str = "GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn requests_are_answered_in_their_order() {
    check([
        all("9112 9.3.2", &[A, B, A], &["200 /a", "200 /b", "200 /a"]).arrives(&[
            "GET /a none -",
            "GET /b none -",
            "GET /a none -",
        ]),
        all("9112 9.3.2", &[A, "\r\n", B], &["200 /a", "200 /b"])
            .arrives(&["GET /a none -", "GET /b none -"]),
        all(
            "9112 9.3.2: bodies",
            &[LENGTH, A, CHUNKED, B],
            &["200 /l", "200 /a", "200 /c", "200 /b"],
        )
        .arrives(&[
            "POST /l length GET ",
            "GET /a none -",
            "POST /c chunked GET ",
            "GET /b none -",
        ]),
        all("9112 9.3.2: no body", &[HEAD, A], &["HEAD 200 -", "200 /a"])
            .arrives(&["HEAD /h none -", "GET /a none -"]),
        all(
            "9112 9.3: an old client",
            &[KEPT, A],
            &["200 /kept", "200 /a"],
        )
        .arrives(&["GET /kept none -", "GET /a none -"]),
        all("9112 9.3.2: many", &[A; 50], &["200 /a"; 50]).connections(1),
    ]);
}

#[test]
fn nothing_is_read_after_the_last_request() {
    check(
        [
            all("9112 9.6", &[CLOSE, A], &["200 /close"]).arrives(&["GET /close none -"]),
            all("9112 9.6", &[A, CLOSE, B], &["200 /a", "200 /close"])
                .arrives(&["GET /a none -", "GET /close none -"]),
            all("9112 9.3: an old client", &[OLD, A], &["200 /old"]).arrives(&["GET /old none -"]),
            all("9112 9.3.2: a fault", &[BAD, A], &["400"]).arrives(&[]),
            all("9112 9.3.2: a fault", &[A, BAD, B], &["200 /a", "400"])
                .arrives(&["GET /a none -"]),
            all(
                "9112 9.3.2: a fault",
                &[CHUNKED, BAD, B],
                &["200 /c", "400"],
            )
            .arrives(&["POST /c chunked GET "]),
            all(
                "9112 9.3.2: more than the length says",
                &[LENGTH, "@", A],
                &["200 /l", "400"],
            )
            .arrives(&["POST /l length GET "]),
        ]
        .map(|case| case.end(End::Closed)),
    );
}
