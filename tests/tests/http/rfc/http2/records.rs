//! Every request counts once, with what came of it, however its stream ends.

use std::{
    io::{Read, Write},
    thread,
};

use ingress_lab::eventually;

use super::{
    case::{Field, NONE, request},
    frame::{Connection, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM},
    hpack,
};
use crate::{
    proxy::{Cluster, Proxy},
    wire::{Endpoint, read_head},
};

/// How the client goes on after the head.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It takes the response to its end.
    Takes,
    /// It resets the stream with this code, once the endpoint has the request.
    Resets(u32),
    /// The same, once a part of the response is there.
    ResetsLate,
    /// It sends this as the whole body.
    Sends(&'static str),
    /// It closes the connection, once the endpoint has the request.
    Closes,
}

/// Answers `/`, floods at `/flood`, and says nothing else.
fn endpoint() -> Endpoint {
    Endpoint::start(|_, mut stream| {
        thread::spawn(move || {
            while let Some(head) = read_head(&mut stream) {
                let answer = match head.split(' ').nth(1) {
                    Some("/") => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    Some("/flood") => "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
                    _ => "",
                };
                let _ = stream.write_all(answer.as_bytes());
                if answer.ends_with("000\r\n\r\n") {
                    while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
                }
                if answer.is_empty() {
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            }
        });
    })
}

fn head(connection: &mut Connection, flags: u8, fields: &[Field]) {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| hpack::field(name, value))
        .collect();
    connection.send(HEADERS, flags | END_HEADERS, 1, &block);
}

#[test]
fn every_request_counts_once_however_its_stream_ends() {
    let endpoint = endpoint();
    let length: &[_] = &[("content-length", "5")];
    for (method, path, fields, then, status, cut) in [
        ("GET", "/", NONE, Then::Takes, 200, 0),
        ("HEAD", "/", NONE, Then::Takes, 200, 0),
        ("GET", "/hold", NONE, Then::Resets(8), 499, 0),
        ("GET", "/hold", NONE, Then::Resets(0), 499, 0),
        ("POST", "/hold", NONE, Then::Resets(0), 499, 0),
        ("POST", "/hold", length, Then::Resets(8), 499, 0),
        ("POST", "/hold", length, Then::Sends("hel"), 499, 0),
        ("POST", "/hold", length, Then::Sends("hello!"), 499, 0),
        ("GET", "/hold", NONE, Then::Closes, 499, 0),
        ("POST", "/hold", NONE, Then::Closes, 499, 0),
        ("GET", "/flood", NONE, Then::ResetsLate, 200, 1),
    ] {
        let case = format!("{method} {path} {fields:?} {then:?}");
        let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
        let mut connection = Connection::open(proxy.http);
        let ends = if method == "POST" { 0 } else { END_STREAM };
        head(&mut connection, ends, &request(method, path, fields));
        let connects = || proxy.metric("forebay_upstream_connects_total{worker=\"0\"}");
        let asked = || eventually(&format!("{case}: asked"), || connects() == 1);
        match then {
            Then::Takes => drop(connection.outcome(1).unwrap()),
            Then::Sends(body) => {
                connection.send(DATA, END_STREAM, 1, body.as_bytes());
                drop(connection.outcome(1).unwrap());
            }
            Then::Resets(code) => {
                asked();
                connection.send(RST_STREAM, 0, 1, &code.to_be_bytes());
            }
            Then::ResetsLate => {
                connection.data(1, 1).unwrap();
                connection.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
            }
            Then::Closes => {
                asked();
                connection.close();
            }
        }
        let requests = || -> Vec<String> {
            let text: String = proxy.registry.expose().collect();
            let lines = text.lines();
            lines
                .filter(|line| line.starts_with("forebay_requests_total{"))
                .map(|line| line.split_once("status=").unwrap().1.to_owned())
                .collect()
        };
        let expected = [format!("\"{status}\"}} 1")];
        eventually(&format!("{case}: counted"), || !requests().is_empty());
        assert_eq!(requests(), expected, "{case}");
        let counted = || proxy.metric("forebay_responses_cut_total{worker=\"0\"}");
        eventually(&format!("{case}: cut {cut}"), || counted() == cut);
    }
}
