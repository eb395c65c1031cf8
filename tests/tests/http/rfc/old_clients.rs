//! HTTP/1.0 clients.

use super::{
    case::{End, Step, dialogue},
    check::check,
    message::Framing,
};

fn old(lines: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.0\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

const KEPT: &str = "Connection: keep-alive\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n";

#[test]
fn a_connection_is_kept_if_the_client_asks() {
    let ask = |lines: &str| [Step::Send(old(lines)), Step::Answer("200 /x")];
    check([
        dialogue("9112 9.3", ask(""))
            .end(End::Closed)
            .arrives(&["GET /x none -"]),
        dialogue("9112 9.3", ask(KEPT))
            .arrives(&["GET /x none -"])
            .told(&["connection: keep-alive"]),
        dialogue("9112 9.3", ask("Connection: Keep-Alive, x\r\n")).arrives(&["GET /x none -"]),
        dialogue("9112 9.3", ask("Connection: keep-alive, close\r\n")).end(End::Closed),
        dialogue("9112 9.3", ask("Keep-Alive: timeout=5\r\n")).end(End::Closed),
        dialogue("9112 C.2.2", ask("Proxy-Connection: keep-alive\r\n")).end(End::Closed),
    ]);
}

#[test]
fn chunks_are_not_for_old_clients() {
    let ask =
        |lines: &str, expected: &'static str| [Step::Send(old(lines)), Step::Answer(expected)];
    check(["", KEPT].map(|lines| {
        dialogue("9112 7.1.3, 6.1", ask(lines, "200 hello"))
            .replies(CHUNKED)
            .end(End::Closed)
            .framed(Framing::Close)
            .untold(&["transfer-encoding"])
    }));
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
    check([dialogue("9112 6.3", ask(KEPT, "200 hello"))
        .replies(until_close)
        .hangs_up()
        .end(End::Closed)]);
}

#[test]
fn old_clients_send_bodies_by_length() {
    let post = "POST /x HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello";
    let kept = "POST /x HTTP/1.0\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";
    let sent = |request: &str| [Step::Send(request.into()), Step::Answer("200 /x")];
    check(
        [
            dialogue("9112 6.3", sent(post)).end(End::Closed),
            dialogue("9112 6.3", sent(kept)),
        ]
        .map(|case| case.arrives(&["POST /x length hello"])),
    );
    let head = "HEAD /x HTTP/1.0\r\n\r\n";
    check([dialogue(
        "9110 9.3.2",
        [Step::Send(head.into()), Step::Answer("HEAD 200 -")],
    )
    .end(End::Closed)
    .told(&["content-length: 2"])]);
}
