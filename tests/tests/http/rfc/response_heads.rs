//! Heads that endpoints send: taken, or answered with 502.

use super::{
    case::{Step, answer, dialogue, get, post},
    check::check,
    recorder::Reply,
};

const REST: &str = "\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_status_line_that_is_none_is_a_bad_gateway() {
    let lines = [
        ("9112 4: one space", "HTTP/1.1  200 OK"),
        ("9112 4: a space", "HTTP/1.1200 OK"),
        ("9112 4: a space", "HTTP/1.1 200OK"),
        ("9112 4: three digits", "HTTP/1.1 20 OK"),
        ("9112 4: three digits", "HTTP/1.1 2000 OK"),
        ("9112 4: digits", "HTTP/1.1 2x0 OK"),
        ("9112 4: digits", "HTTP/1.1 +20 OK"),
        ("9112 4: digits", "HTTP/1.1 OK"),
        ("9110 15: from 100 on", "HTTP/1.1 099 OK"),
        ("9110 15: from 100 on", "HTTP/1.1 000 OK"),
        ("9112 2.3", "HTTP/2.0 200 OK"),
        ("9112 2.3", "HTTP/1.2 200 OK"),
        ("9112 2.3", "HTTP/0.9 200 OK"),
        ("9112 2.3", "http/1.1 200 OK"),
        ("9112 2.3", "ICY 200 OK"),
        ("9112 2.3", "200 OK"),
        ("9112 4", " HTTP/1.1 200 OK"),
        ("9112 4: control characters", "HTTP/1.1 200 O\0K"),
        ("9112 2.2: bare CR", "HTTP/1.1 200 O\rK"),
        ("9112 4", "<html>"),
        ("9112 4", "SSH-2.0-x"),
        ("9112 4", "\x16\x03\x01"),
    ];
    check(lines.map(|(section, line)| answer(section, [line, REST].concat(), "502")));
}

#[test]
fn a_status_that_nobody_has_defined_goes_on_as_it_is() {
    let statuses = ["299", "499", "599", "600", "999"];
    check(statuses.map(|status| {
        let seen: &'static str = format!("{status} ok").leak();
        answer("9110 15", format!("HTTP/1.1 {status} Odd{REST}"), seen)
    }));
}

#[test]
fn fields_that_are_none_are_a_bad_gateway() {
    let lines = [
        ("9112 5.1", "X : y"),
        ("9112 5.1", "X\t: y"),
        ("9112 5.1", "X"),
        ("9110 5.1", ": y"),
        ("9110 5.1", "X Y: z"),
        ("9110 5.1", "X@Y: z"),
        ("9110 5.5: NUL", "X: y\0z"),
        ("9110 5.5: bare CR", "X: y\rz"),
        ("9110 5.5: control characters", "X: y\x01z"),
        ("9112 5.2: folded", "X: y\r\n z"),
        ("9112 5.2: folded", "X: y\r\n\tz"),
        ("9112 5.2: folded first", " X: y"),
    ];
    check(lines.map(|(section, line)| {
        let reply = format!("HTTP/1.1 200 OK\r\n{line}{REST}");
        answer(section, reply, "502")
    }));
}

#[test]
fn a_head_over_the_limits_is_a_bad_gateway() {
    let long = format!("X: {}\r\n", "y".repeat(100 * 1024));
    let endless = "x".repeat(100 * 1024);
    let many = "X: y\r\n".repeat(2000);
    check([
        answer(
            "6585 5",
            format!("HTTP/1.1 200 OK\r\n{long}{}", &REST[2..]),
            "502",
        ),
        answer(
            "6585 5",
            format!("HTTP/1.1 200 OK\r\n{many}{}", &REST[2..]),
            "502",
        ),
        answer("6585 5", format!("HTTP/1.1 200 {endless}"), "502"),
    ]);
}

#[test]
fn an_answer_that_ends_within_its_head_is_a_bad_gateway() {
    let whole = format!("HTTP/1.1 200 OK{REST}");
    let end = whole.find("ok").unwrap() - 1;
    check(
        [0, 1, 9, 15, 20, end]
            .map(|cut| answer("9112 8", &whole.as_bytes()[..cut], "502").hangs_up()),
    );
}

#[test]
fn an_answer_that_breaks_off_on_a_used_connection_is_answered_or_asked_for_again() {
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let cuts = [
        "",
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n",
    ];
    // A body that has gone is not sent again, nor is what may not be done twice.
    let requests = [
        (get(""), "200 /x|502"),
        (post("Content-Length: 2\r\n", "hi"), "502"),
        (post("", ""), "502"),
    ];
    for (request, statuses) in requests {
        check(cuts.map(|cut| {
            dialogue(
                "9112 9.3.1",
                [
                    Step::Send(get("")),
                    Step::Answer("200 ok"),
                    Step::Send(request.clone()),
                    Step::Answer(statuses),
                ],
            )
            .replies(first)
            .replies(cut)
            .hangs_up()
        }));
    }
}

#[test]
fn a_head_is_the_same_however_it_comes() {
    let reply = "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nok\r\n0\r\nT: u\r\n\r\n";
    let asked = || [Step::Send(get("")), Step::Answer("200 ok")];
    check([
        answer("9112 2.1", reply, "200 ok").told(&["x: y"]),
        dialogue("9112 2.1: byte by byte", asked())
            .reply(Reply {
                bytes: Some(reply.into()),
                drip: true,
                ..Reply::default()
            })
            .told(&["x: y"])
            .connections(1),
        answer(
            "9112 2.2: LF alone",
            "HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok",
            "200 ok",
        )
        .told(&["x: y"]),
    ]);
    let lines = [
        ("9112 4: no reason", "HTTP/1.1 200 "),
        (
            "9112 4: a long reason",
            "HTTP/1.1 200 It all went well: very well!",
        ),
        ("9112 4: obs-text", "HTTP/1.1 200 Tr\u{e9}s bien"),
        ("9112 2.3: an old endpoint", "HTTP/1.0 200 OK"),
    ];
    check(lines.map(|(section, line)| answer(section, [line, REST].concat(), "200 ok")));
    let statuses = [
        "201", "299", "400", "404", "418", "429", "500", "503", "599", "600", "799", "999",
    ];
    check(statuses.map(|status| {
        answer(
            "9110 15: passed on",
            format!("HTTP/1.1 {status} X{REST}"),
            status,
        )
    }));
}
