//! Bodies without a length, trailers, and streams that break off.

use std::io::Write;

use super::{
    case::{Body, Field, NONE, fields, forward, get, post, refuse, request},
    check::check,
    frame::{Connection, END_HEADERS, END_STREAM, HEADERS},
    hpack,
};
use crate::{
    proxy::{Cluster, Proxy},
    wire::{Endpoint, read_head},
};

#[test]
fn a_body_without_a_length_comes_in_chunks() {
    let own = [
        ("9113 8.1", Body::Data(&["hello"]), "POST /x chunked hello"),
        (
            "9113 8.1",
            Body::Data(&["he", "llo"]),
            "POST /x chunked hello",
        ),
        (
            "9113 6.1",
            Body::Padded("hello", 3),
            "POST /x chunked hello",
        ),
        (
            "9113 8.1: no part of a coding",
            Body::Data(&["0\r\n\r\n"]),
            "POST /x chunked 0\\r\\n\\r\\n",
        ),
    ];
    check(own.map(|(section, body, arrives)| forward(section, post(NONE), arrives).body(body)));
    check([
        forward("9113 8.1: no body", post(NONE), "POST /x none -"),
        forward(
            "9113 8.1",
            request("DELETE", "/x", NONE),
            "DELETE /x chunked hello",
        )
        .body(Body::Data(&["hello"])),
    ]);
}

#[test]
fn trailers_go_on_if_the_client_says_so() {
    let te = [("te", "trailers")];
    let sent = |trailers: &[(&str, &str)]| Body::Trailers("hello", fields(trailers));
    let plain = "POST /x chunked hello";
    check([
        forward("9113 8.1", post(NONE), plain).body(sent(&[("x-t", "1")])),
        forward("9113 8.1", post(&te), "POST /x chunked hello + x-t: 1")
            .body(sent(&[("x-t", "1")])),
    ]);
    // A pseudo-header field makes a trailer section malformed (RFC 9113 section 8.1). The library
    // drops it instead of resetting the stream; what counts is that no pod sees it.
    let forbidden = [
        (":path", "/y"),
        (":status", "200"),
        ("content-length", "9"),
        ("host", "evil"),
        ("x-forwarded-for", "evil"),
        ("x_t", "1"),
        ("authorization", "evil"),
    ];
    // Refused or dropped: in any case they do not arrive.
    check(forbidden.map(|own| forward("9110 6.5.1", post(&te), plain).body(sent(&[own]))));
    let malformed = [
        ("9113 8.2.1: upper case", "X-T", "1"),
        ("9113 8.2.1: a line end", "x-t", "1\r\nx: y"),
        ("9113 8.2.2: of a connection", "connection", "close"),
        (
            "9113 8.2.2: of a connection",
            "transfer-encoding",
            "chunked",
        ),
    ];
    check(malformed.map(|(section, name, value)| {
        refuse(section, "400|reset", post(&te))
            .body(sent(&[(name, value)]))
            .breaks_off(plain)
    }));
}

#[test]
fn a_stream_that_is_reset_is_never_passed_off_as_whole() {
    let length = [("content-length", "5")];
    let own: [(Vec<Field>, _); 2] = [
        (post(NONE), "POST /x chunked hello"),
        (post(&length), "POST /x length hello"),
    ];
    // NO_ERROR, INTERNAL_ERROR, CANCEL (RFC 9113 section 7): only END_STREAM ends a body.
    for code in [0, 2, 8] {
        check(own.clone().map(|(lines, whole)| {
            refuse("9113 5.4.2", "reset", lines)
                .body(Body::Reset("hel", code))
                .breaks_off(whole)
        }));
    }
}

#[test]
fn answers_are_framed_by_the_stream() {
    let reply = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\n\r\n{body}");
    let own = [
        (
            "9113 8.1",
            reply("200 OK\r\nContent-Length: 2", "ok"),
            "200 ok",
        ),
        (
            "9113 8.1",
            reply(
                "200 OK\r\nTransfer-Encoding: chunked",
                "2\r\nok\r\n0\r\n\r\n",
            ),
            "200 ok",
        ),
        (
            "9113 8.2.2",
            reply("200 OK\r\nConnection: x\r\nX: y\r\nContent-Length: 2", "ok"),
            "200 ok",
        ),
        (
            "9110 15.2",
            reply(
                "100 Continue",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
            "200 ok",
        ),
        ("9112 5.2", reply("200 OK\r\nX: y\r\n z", ""), "502"),
        (
            "9110 15.2.2",
            reply("101 Switching Protocols\r\nUpgrade: websocket", ""),
            "502",
        ),
    ];
    check(own.map(|(section, bytes, outcome)| {
        forward(section, get(NONE), "GET /x none -")
            .replies(&bytes)
            .outcome(outcome)
    }));
}

#[test]
fn small_chunks_that_come_together_leave_together() {
    const CHUNKS: usize = 10_000;
    let endpoint = Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ =
            stream.write_all(&[&head[..], &b"1\r\nx\r\n".repeat(CHUNKS), b"0\r\n\r\n"].concat());
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut connection = Connection::open(proxy.http);
    let block: Vec<u8> = get(NONE)
        .iter()
        .flat_map(|(name, value)| hpack::field(name, value))
        .collect();
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    // Clients end a connection that brings very many small frames.
    let (size, frames) = connection.body(1).unwrap();
    assert_eq!(size, CHUNKS);
    assert!(frames < 100, "{frames} frames");
}
