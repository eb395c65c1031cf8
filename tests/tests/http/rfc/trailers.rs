//! Trailers go on where both sides want them, and never with what belongs in front.

use super::{
    case::{Case, Step, answer, dialogue, forward, get, post},
    check::check,
    message::Framing,
};

fn trailing(lines: &str, trailers: &str, arrives: &'static str) -> Case {
    let lines = format!("Transfer-Encoding: chunked\r\n{lines}");
    let body = format!("2\r\nok\r\n0\r\n{trailers}\r\n");
    forward("9110 6.5.1", post(&lines, body), arrives)
}

#[test]
fn trailers_of_a_request_go_on_if_it_says_so() {
    let te = "TE: trailers\r\n";
    let plain = "POST /x chunked ok";
    check([
        trailing("", "X-T: 1\r\n", plain),
        trailing("TE: gzip\r\n", "X-T: 1\r\n", plain),
        trailing("Trailer: X-T\r\n", "X-T: 1\r\n", plain),
        trailing(te, "X-T: 1\r\n", "POST /x chunked ok + x-t: 1"),
        trailing(
            te,
            "X-T: 1\r\nX-U: 2\r\n",
            "POST /x chunked ok + x-t: 1 + x-u: 2",
        ),
        trailing(
            "TE: trailers\r\nConnection: TE\r\n",
            "X: y\r\n",
            "POST /x chunked ok + x: y",
        ),
        trailing(te, "", plain),
    ]);
    let forbidden = [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: evil\r\n",
        "Connection: close\r\n",
        "Trailer: X\r\n",
        "TE: trailers\r\n",
        "X-Forwarded-For: evil\r\n",
        "X-Real-IP: evil\r\n",
        "Cookie: a=b\r\n",
        "Authorization: evil\r\n",
        "X_T: 1\r\n",
    ];
    check(forbidden.map(|line| trailing(te, line, plain)));
    check([trailing(
        te,
        "Host: evil\r\nX-T: 1\r\n",
        "POST /x chunked ok + x-t: 1",
    )]);
}

const REPLY: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
                     2\r\nok\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n";

#[test]
fn trailers_of_a_response_reach_a_client_that_takes_them() {
    let asked = [
        Step::Send(get("TE: trailers\r\n")),
        Step::Answer("200 ok + x-t: 1"),
    ];
    check([
        answer("9110 6.5.1", REPLY, "200 ok"),
        dialogue("9110 6.5.1", asked)
            .replies(REPLY)
            .framed(Framing::Chunked),
    ]);
}
