//! Where the body of a request ends.

use super::{
    case::{End, Step, dialogue, forward, post, refuse},
    check::check,
};

#[test]
fn a_length_beside_a_coding_is_refused() {
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 5\r\nX: y\r\ntransfer-encoding: Chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ];
    check(cases.map(|lines| refuse("9112 6.1, 6.3", "400", post(lines, "0\r\n\r\n"))));
    let either = [
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
    ];
    check(either.map(|lines| refuse("9112 6.1, 6.3", "400|501", post(lines, "hello"))));
}

#[test]
fn a_length_that_is_not_one_number_is_refused() {
    let values: &[(&str, &[u8])] = &[
        ("9112 6.3: a list", b"5, 5"),
        ("9112 6.3: a list", b"5,5"),
        ("9112 6.3: a list", b"5, 6"),
        ("9110 8.6: a sign", b"+5"),
        ("9110 8.6: a sign", b"-5"),
        ("9110 8.6: a sign", b"-0"),
        ("9110 8.6: a space inside", b"5 5"),
        ("9110 8.6: a tab inside", b"5\t0"),
        ("9110 8.6: hexadecimal", b"0x5"),
        ("9110 8.6: hexadecimal", b"a"),
        ("9110 8.6: hexadecimal", b"5h"),
        ("9110 8.6: a fraction", b"5.0"),
        ("9110 8.6: an exponent", b"5e0"),
        ("9110 8.6: an underscore", b"5_0"),
        ("9110 8.6: quotes", b"\"5\""),
        ("9110 8.6: a parameter", b"5;x"),
        ("9110 8.6: a comma", b"5,"),
        ("9110 8.6: a comma", b",5"),
        ("9110 8.6: empty", b""),
        ("9110 8.6: other digits", b"\xd9\xa5"),
        ("9110 8.6: other digits", b"\xef\xbc\x95"),
        ("9110 8.6: overflow", b"18446744073709551616"),
        ("9110 8.6: overflow to 5", b"18446744073709551621"),
        ("9110 8.6: overflow", b"99999999999999999999999999999999"),
    ];
    check(values.iter().map(|(section, value)| {
        let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ";
        refuse(
            section,
            "400",
            [&head[..], value, b"\r\n\r\nhello"].concat(),
        )
    }));
    let lines = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 0\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
    ];
    check(lines.map(|lines| refuse("9112 6.3: lengths that differ", "400", post(lines, "hello"))));
}

#[test]
fn a_coding_that_is_not_chunked_alone_is_not_implemented() {
    let lines = [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunk\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ch unked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: x\r\n",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
    ];
    check(lines.map(|lines| refuse("9112 6.1", "501", post(lines, "0\r\n\r\n"))));
    check([
        refuse(
            "9112 6.1: VT",
            "400|501",
            post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ),
        refuse(
            "9112 6.1: NUL",
            "400|501",
            post("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n"),
        ),
    ]);
}

#[test]
fn an_old_client_may_not_use_a_coding() {
    let lines = [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ];
    check(lines.map(|lines| {
        let head = format!("POST /x HTTP/1.0\r\nHost: a\r\n{lines}\r\n0\r\n\r\n");
        refuse("9112 6.1", "400", head)
    }));
}

#[test]
fn a_body_of_a_known_length_passes() {
    let cases = [
        (
            "9110 8.6",
            "Content-Length: 5\r\n",
            "hello",
            "POST /x length hello",
        ),
        (
            "9110 8.6: nothing",
            "Content-Length: 0\r\n",
            "",
            "POST /x length -",
        ),
        (
            "9110 8.6: space around it",
            "Content-Length: \t5 \r\n",
            "hello",
            "POST /x length hello",
        ),
        (
            "9110 8.6: leading zeros",
            "Content-Length: 005\r\n",
            "hello",
            "POST /x length hello",
        ),
        (
            "9110 8.6: any case",
            "cONTENT-lENGTH: 5\r\n",
            "hello",
            "POST /x length hello",
        ),
        (
            "9110 8.6: equal lengths",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "hello",
            "POST /x length hello",
        ),
        (
            "9112 6: a body like a head",
            "Content-Length: 8\r\n",
            "GET / HT",
            "POST /x length GET / HT",
        ),
        (
            "9112 6: an empty line",
            "Content-Length: 4\r\n",
            "\r\n\r\n",
            "POST /x length \\r\\n\\r\\n",
        ),
    ];
    check(
        cases.map(|(section, lines, body, arrives)| forward(section, post(lines, body), arrives)),
    );
    let methods = [
        ("GET", "GET /x length hello"),
        ("DELETE", "DELETE /x length hello"),
        ("OPTIONS", "OPTIONS /x length hello"),
        ("PURGE", "PURGE /x length hello"),
    ];
    check(methods.map(|(method, arrives)| {
        let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        forward("9110 9.3: whatever the method", head, arrives)
    }));
}

#[test]
fn a_body_that_ends_early_is_never_passed_off_as_whole() {
    let sent = |body: &str| {
        [
            Step::Send(post("Content-Length: 5\r\n", body)),
            Step::ShutDown,
            Step::Answer("400|closed"),
        ]
    };
    let arrived = [
        Step::Send(post("Content-Length: 5\r\n", "hel")),
        Step::Arrived("hel"),
        Step::ShutDown,
        Step::Answer("400|closed"),
    ];
    let whole = "POST /x length hello";
    check(
        [
            dialogue("9112 8: nothing came", sent("")).breaks_off(whole),
            dialogue("9112 8: all but one came", sent("hell")).breaks_off(whole),
            dialogue("9112 8: a part has gone on", arrived).arrives(&["POST /x length hel cut"]),
        ]
        .map(|case| case.end(End::Closed)),
    );
}
