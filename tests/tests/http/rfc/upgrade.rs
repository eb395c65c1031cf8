//! Upgrades: WebSocket, and nothing else.

use super::{
    case::{End, Step, answer, dialogue, forward, get},
    check::check,
};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn websocket(lines: &str) -> Vec<u8> {
    get(format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{KEY}{lines}"
    ))
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let talk = |request: Vec<u8>| {
        [
            Step::Send(request),
            Step::Answer("101"),
            Step::Send(b"ping".to_vec()),
            Step::Raw("ping"),
        ]
    };
    let spelled = get(format!(
        "connection: x, UPGRADE\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\n{KEY}"
    ));
    check([websocket(""), spelled].map(|request| {
        dialogue("6455 4.2.1", talk(request))
            .replies(SWITCHED)
            .end(End::Any)
            .arrives(&["GET /x none -", "tunnel ping"])
            .has(&[
                "upgrade: websocket",
                "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            ])
            .told(&["upgrade: websocket"])
    }));
    let early = [
        Step::Send([websocket(""), b"early".to_vec()].concat()),
        Step::Answer("101"),
        Step::Raw("hi"),
        Step::Arrived("early"),
    ];
    check([dialogue("6455 4.1: bytes that come early", early)
        .replies([SWITCHED, "hi"].concat())
        .end(End::Any)
        .arrives(&["GET /x none -", "tunnel early"])]);
}

#[test]
fn what_only_looks_like_a_websocket_is_a_plain_request() {
    let connection = "Connection: Upgrade\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        (
            "6455 4.2.1: no version",
            format!("{connection}Upgrade: websocket\r\n{KEY}"),
        ),
        (
            "6455 4.4: another version",
            format!("{connection}Upgrade: websocket\r\nSec-WebSocket-Version: 12\r\n{KEY}"),
        ),
        (
            "9110 7.8: no Connection",
            format!("Upgrade: websocket\r\n{version}{KEY}"),
        ),
        (
            "9110 7.8: another protocol",
            format!("{connection}Upgrade: h2c\r\n{version}{KEY}"),
        ),
        (
            "9113 3.1: h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
                .to_owned(),
        ),
        (
            "9110 7.8: a list",
            format!("{connection}Upgrade: h2c, websocket\r\n{version}{KEY}"),
        ),
        ("9110 7.8: TLS", format!("{connection}Upgrade: TLS/1.2\r\n")),
        (
            "9110 7.8: a prefix",
            format!("{connection}Upgrade: websocketx\r\n{version}{KEY}"),
        ),
    ];
    check(cases.map(|(section, lines)| {
        forward(section, get(lines), "GET /x none -").lacks(&["upgrade", "http2-settings"])
    }));
    let upgrade = format!("{connection}Upgrade: websocket\r\n{version}{KEY}");
    check([
        forward(
            "6455 4.1: not GET",
            format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{upgrade}\r\nok"),
            "POST /x length ok",
        )
        .lacks(&["upgrade"]),
        forward(
            "6455 4.1: a body",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{upgrade}\r\nok"),
            "GET /x length ok",
        )
        .lacks(&["upgrade"]),
        forward(
            "6455 4.1: an old client",
            format!("GET /x HTTP/1.0\r\nHost: a\r\n{upgrade}\r\n"),
            "GET /x none -",
        )
        .lacks(&["upgrade"])
        .end(End::Closed),
    ]);
}

#[test]
fn an_endpoint_may_decline_and_may_not_switch_to_anything_else() {
    let asked = |answer: &'static str| [Step::Send(websocket("")), Step::Answer(answer)];
    let declined = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno";
    check([dialogue("9110 7.8: declined", asked("400 no")).replies(declined)]);
    let wrong = [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, x\r\nConnection: Upgrade\r\n\r\n",
    ];
    check(wrong.map(|reply| {
        dialogue("9110 15.2.2", asked("502"))
            .replies(reply)
            .end(End::Any)
    }));
    check([
        answer("9110 15.2.2: nobody asked", SWITCHED, "502").end(End::Any),
        answer(
            "9110 15.5.22: what is required instead",
            "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\
             Content-Length: 2\r\n\r\nno",
            "426 no",
        )
        .told(&["upgrade: foo/2"]),
        answer(
            "9110 7.8: what is only offered is of one hop",
            "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
            "200 ok",
        )
        .untold(&["upgrade"]),
    ]);
}

#[test]
fn a_switch_announces_no_body() {
    let switched = SWITCHED.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n");
    let asked = [Step::Send(websocket("")), Step::Answer("101")];
    check([dialogue("9110 8.6", asked)
        .replies(switched)
        .end(End::Any)
        .untold(&["content-length"])]);
}
