//! Answers that come before the request has been sent.

use super::{
    case::{End, Step, dialogue, post},
    check::check,
    recorder::Reply,
};

fn early(bytes: &str, close: bool) -> Reply {
    Reply {
        bytes: Some(bytes.into()),
        early: true,
        close,
        ..Reply::default()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED_OK: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
const TOO_LARGE: &str =
    "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";

#[test]
fn an_answer_may_come_before_the_end_of_the_request() {
    for (lines, start, rest) in [
        ("Content-Length: 10\r\n", "hello", "there"),
        (
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n",
            "5\r\nthere\r\n0\r\n\r\n",
        ),
    ] {
        for reply in [OK, CHUNKED_OK] {
            let steps =
                |answer: &'static str| [Step::Send(post(lines, start)), Step::Answer(answer)];
            let whole = ["POST /x length hellothere", "POST /x chunked hellothere"];
            let whole = whole[usize::from(lines.starts_with('T'))];
            // Whether the rest is still taken is the proxy's choice; another request is not seen
            // in it.
            let goes_on = [&steps("200 ok")[..], &[Step::Send(rest.into())]].concat();
            let ends = [&steps("200 ok")[..], &[Step::ShutDown]].concat();
            check([
                dialogue("9112 9.3: the rest comes", goes_on)
                    .reply(early(reply, false))
                    .end(End::Any),
                dialogue("9112 9.3: the rest never comes", ends)
                    .reply(early(reply, false))
                    .end(End::Closed)
                    .breaks_off(whole),
                dialogue(
                    "9110 15.5.14: an endpoint that wants no more",
                    steps("413 no"),
                )
                .reply(early(TOO_LARGE, true))
                .end(End::Any)
                .breaks_off(whole),
            ]);
        }
    }
}

#[test]
fn a_connection_with_half_a_request_on_it_carries_no_other() {
    let victim = b"GET /victim HTTP/1.1\r\nHost: b\r\n\r\n".to_vec();
    let sent = [
        Step::Send(post("Content-Length: 10\r\n", "hello")),
        Step::Answer("200 ok"),
        Step::Send([&b"there"[..], &victim].concat()),
        Step::Answer("200 /victim|closed"),
    ];
    check([dialogue("9112 9.3", sent)
        .reply(early(OK, false))
        .end(End::Any)]);
}
