//! The chunked coding of requests.

use super::{
    case::{End, Step, dialogue, forward, post},
    check::check,
};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn chunks_are_put_together() {
    let sixteen = "123456789abcdefg";
    let cases = [
        ("9112 7.1", "5\r\nhello\r\n0\r\n\r\n".to_owned(), "hello"),
        ("9112 7.1: nothing", "0\r\n\r\n".to_owned(), "-"),
        (
            "9112 7.1: lower case",
            format!("a\r\n{}\r\n0\r\n\r\n", &sixteen[..10]),
            "123456789a",
        ),
        (
            "9112 7.1: upper case",
            format!("F\r\n{}\r\n0\r\n\r\n", &sixteen[..15]),
            "123456789abcdef",
        ),
        (
            "9112 7.1: two digits",
            format!("10\r\n{sixteen}\r\n0\r\n\r\n"),
            "123456789abcdefg",
        ),
        (
            "9112 7.1: leading zeros",
            "005\r\nhello\r\n000\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1: sixteen digits",
            "0000000000000005\r\nhello\r\n0\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: space before an extension",
            "5 ; a = b\r\nhello\r\n0\t;c\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1: many",
            "1\r\nh\r\n2\r\nel\r\n2\r\nlo\r\n0\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1: line ends in data",
            "2\r\n\r\n\r\n0\r\n\r\n".to_owned(),
            "\\r\\n",
        ),
        (
            "9112 7.1: a last chunk in data",
            "5\r\n0\r\n\r\n\r\n0\r\n\r\n".to_owned(),
            "0\\r\\n\\r\\n",
        ),
        (
            "9112 7.1.1: an extension",
            "5;a\r\nhello\r\n0\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: with a value",
            "5;a=b\r\nhello\r\n0;c=d\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: quoted",
            "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: several",
            "5;a;b=c;d\r\nhello\r\n0\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: white space around the semicolon",
            "5 \t; a\r\nhello\r\n0 ;b\r\n\r\n".to_owned(),
            "hello",
        ),
        (
            "9112 7.1.1: long",
            format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(3000)),
            "hello",
        ),
    ];
    check(cases.map(|(section, body, arrives)| {
        let arrives: &'static str = format!("POST /x chunked {arrives}").leak();
        forward(section, post(CHUNKED, body), arrives)
    }));
    let codings = ["Chunked", "CHUNKED", "  chunked\t", "\tchunked"];
    check(codings.map(|coding| {
        let lines = format!("Transfer-Encoding:{coding}\r\n");
        forward(
            "9112 7: any case",
            post(&lines, "2\r\nok\r\n0\r\n\r\n"),
            "POST /x chunked ok",
        )
    }));
    let get =
        "GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    check([forward(
        "9110 9.3.1: whatever the method",
        get,
        "GET /x chunked ok",
    )]);
}

/// Bodies with a fault after `hello`, if that comes.
fn faulty() -> Vec<(&'static str, String)> {
    let rest = "\r\n0\r\n\r\n";
    let cases = [
        ("9112 7.1: no size", "\r\nhello"),
        ("9112 7.1: no digit", "x\r\nhello"),
        ("9112 7.1: a prefix", "0x5\r\nhello"),
        ("9112 7.1: a prefix", "x5\r\nhello"),
        ("9112 7.1: an underscore", "0_5\r\nhello"),
        ("9112 7.1: a sign", "+5\r\nhello"),
        ("9112 7.1: a sign", "-5\r\nhello"),
        ("9112 7.1: a space before", " 5\r\nhello"),
        ("9112 7.1: a tab before", "\t5\r\nhello"),
        ("9112 7.1: a space inside", "0 5\r\nhello"),
        ("9112 7.1: more after the size", "5 x\r\nhello"),
        ("9112 7.1.1: white space after the size", "5 \r\nhello"),
        ("9112 7.1.1: white space after the size", "5\t\r\nhello"),
        (
            "9112 7.1.1: white space after the last size",
            "5\r\nhello\r\n0 \r\n\r\n",
        ),
        ("9112 7.1: seventeen digits", "00000000000000005\r\nhello"),
        ("9112 7.1: a comma", "5,\r\nhello"),
        ("9112 7.1: NUL", "5\0\r\nhello"),
        ("9112 7.1: overflow", "10000000000000000\r\nhello"),
        ("9112 7.1: overflow to 5", "10000000000000005\r\nhello"),
        ("9112 7.1: overflow", "fffffffffffffffff\r\nhello"),
        ("9112 7.1: LF alone", "5\nhello"),
        ("9112 7.1: CR alone", "5\rhello"),
        ("9112 7.1: CR alone", "5\r\rhello"),
        ("9112 7.1.1: LF within an extension", "5;a\nhello"),
        ("9112 7.1.1: CR within an extension", "5;a\rb\r\nhello"),
        ("9112 7.1.1: LF after an extension", "5;a=b\n\r\nhello"),
        ("9112 7.1: LF alone after data", "5\r\nhello\n0\r\n\r\n"),
        ("9112 7.1: CR alone after data", "5\r\nhello\r0\r\n\r\n"),
        ("9112 7.1: nothing after data", "5\r\nhello0\r\n\r\n"),
        ("9112 7.1: more data than its size", "5\r\nhellothere\r\n"),
        ("9112 7.1: a space after data", "5\r\nhello \r\n"),
        ("9112 7.1: an empty line between", "5\r\nhello\r\n\r\n"),
        ("9112 7.1: a bad size later", "5\r\nhello\r\nx\r\n"),
        (
            "9112 7.1.2: no field",
            "5\r\nhello\r\n0\r\nGET /y HTTP/1.1\r\n\r\n",
        ),
        (
            "9112 7.1.2: a space before the colon",
            "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        ),
        (
            "9112 7.1.2: folded",
            "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        ),
        ("9112 7.1.2: NUL", "5\r\nhello\r\n0\r\nX: y\0\r\n\r\n"),
    ];
    let mut bodies: Vec<_> = cases
        .map(|(section, body)| (section, format!("{body}{rest}")))
        .into();
    let long = "a".repeat(5000);
    bodies.push((
        "9112 7.1.1: a long extension",
        format!("5;{long}\r\nhello{rest}"),
    ));
    bodies.push((
        "9112 7.1: a long run of zeros",
        format!("{}5\r\nhello{rest}", "0".repeat(5000)),
    ));
    let trailers = "X: y\r\n".repeat(3000);
    bodies.push((
        "9112 7.1.2: many trailers",
        format!("5\r\nhello\r\n0\r\n{trailers}\r\n"),
    ));
    let trailer = format!("X: {}\r\n", "y".repeat(17_000));
    bodies.push((
        "9112 7.1.2: a long trailer",
        format!("5\r\nhello\r\n0\r\n{trailer}\r\n"),
    ));
    bodies
}

#[test]
fn a_faulty_body_ends_the_connection_and_never_arrives_as_whole() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    check(faulty().into_iter().map(|(section, body)| {
        let sent = [
            Step::Send(post(CHUNKED, body + smuggled)),
            Step::Answer("400|closed"),
        ];
        dialogue(section, sent)
            .end(End::Closed)
            .breaks_off("POST /x chunked hellothere")
    }));
}

#[test]
fn a_fault_after_a_part_has_gone_on_breaks_off_both_sides() {
    check(faulty().into_iter().map(|(section, body)| {
        let sent = [
            Step::Send(post(CHUNKED, "5\r\nfirst\r\n")),
            Step::Arrived("first"),
            Step::Send(body.into_bytes()),
            Step::Answer("400|closed"),
        ];
        dialogue(section, sent)
            .end(End::Closed)
            .breaks_off("POST /x chunked firsthellothere")
    }));
}

#[test]
fn a_body_that_ends_early_is_never_passed_off_as_whole() {
    let bodies = [
        "",
        "5",
        "5\r",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\n\r",
        "5\r\nhello\r\n0\r\nX: y\r\n",
        "ffffffffffffffff\r\nhello",
    ];
    check(bodies.map(|body| {
        let sent = [
            Step::Send(post(CHUNKED, body)),
            Step::ShutDown,
            Step::Answer("400|closed"),
        ];
        dialogue("9112 8", sent)
            .end(End::Closed)
            .breaks_off("POST /x chunked hello")
    }));
}
