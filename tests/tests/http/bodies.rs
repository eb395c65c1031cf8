//! Bodies stream both ways: never a whole one in memory.

use std::{
    io::{Read, Write},
    net::Shutdown,
    process::{Command, Stdio},
};

use ingress_lab::{eventually, origin::Origin};
use ingress_model::{Policy, RoutePolicy};

use crate::{
    proxy::{Cluster, Proxy},
    wire::{Endpoint, Wire, read_head},
};

const SIZE: usize = 64 * 1024 * 1024;
/// Set where a test runs in a process of its own.
const ALONE: &str = "FOREBAY_TEST_ALONE";

/// Most of this process' memory that was ever resident, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// Body bytes from a position on, a multiple of 8: each eight of them hold their own position, so
/// that a piece that is lost, repeated or moved shows.
fn content(position: usize, size: usize) -> Vec<u8> {
    (position..position + size)
        .step_by(8)
        .flat_map(|word| (word as u64).to_le_bytes())
        .collect()
}

/// Compares a body that comes in pieces with [`content`].
#[derive(Default)]
struct Check {
    received: usize,
    /// The start of a word whose end is still to come.
    word: Vec<u8>,
}

impl Check {
    fn take(&mut self, piece: &[u8]) {
        self.word.extend_from_slice(piece);
        let whole = self.word.len() / 8 * 8;
        let expected = content(self.received, whole);
        // `assert_eq` would print both.
        assert!(
            self.word[..whole] == expected[..],
            "other bytes than were sent, after the first {}",
            self.received
        );
        self.received += whole;
        self.word.drain(..whole);
    }
}

/// Runs the test `name` again in a process of its own, which no other test shares.
fn alone(name: &str) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        // Its report of the tests is not ours; what fails is told on the other stream.
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

#[test]
fn large_bodies_stream_both_ways_in_little_memory() {
    const PIECE: usize = 64 * 1024;
    // Memory is counted by process.
    if std::env::var_os(ALONE).is_none() {
        return alone("bodies::large_bodies_stream_both_ways_in_little_memory");
    }
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let unlimited = Policy {
        route: RoutePolicy {
            body_limit: None,
            ..RoutePolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(
        &Cluster::default()
            .route("", "/", "web", &[origin.address()], unlimited)
            .0,
    );
    let before = peak_memory();
    for framing in [
        format!("Content-Length: {SIZE}"),
        "Transfer-Encoding: chunked".to_owned(),
    ] {
        let mut wire = Wire::connect(proxy.http);
        wire.send(format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n"
        ));
        let mut sender = wire.stream().try_clone().unwrap();
        let chunked = framing.contains("chunked");
        let thread = std::thread::spawn(move || {
            for position in (0..SIZE).step_by(PIECE) {
                if chunked {
                    sender.write_all(b"10000\r\n").unwrap();
                }
                sender.write_all(&content(position, PIECE)).unwrap();
                if chunked {
                    sender.write_all(b"\r\n").unwrap();
                }
            }
            sender
                .write_all(if chunked { b"0\r\n\r\n" } else { b"" })
                .unwrap();
        });
        let head = wire.head();
        assert_eq!(head.status, 200);
        let mut check = Check::default();
        wire.body(&head, |piece| check.take(piece));
        thread.join().unwrap();
        assert_eq!((check.received, check.word.len()), (SIZE, 0), "{framing}");
        assert!(wire.is_closed(), "{framing}");
    }
    let grown = peak_memory() - before;
    assert!(grown < SIZE / 2, "{grown} bytes for bodies of {SIZE}");
}

#[test]
fn a_body_without_a_length_ends_with_its_connection() {
    let endpoint = Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
            .unwrap();
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    assert_eq!(wire.get("/", "").text(), "until the end");
    assert_eq!(
        wire.get("/", "").text(),
        "until the end",
        "the client's connection lived on"
    );
}

#[test]
fn answers_to_head_and_without_content_have_no_body() {
    let endpoint = Endpoint::start(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let answer: &[u8] = if head.starts_with("HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            } else if head.contains("/304") {
                b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"
            } else {
                b"HTTP/1.1 204 No Content\r\n\r\n"
            };
            stream.write_all(answer).unwrap();
        }
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.head();
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    wire.send("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().status, 304);
    assert_eq!(wire.get("/", "").status, 204);
    assert_eq!(
        proxy.metric("forebay_upstream_connects_total{worker=\"0\"}"),
        1
    );
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    wire.send(
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(wire.head().status, 100);
    wire.send("body");
    assert_eq!(wire.answer().text(), "body");
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    wire.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(wire.head().status, 200);
    let mut chunk = [0; 8];
    wire.read(&mut chunk);
    assert_eq!(&chunk, b"3\r\none\r\n");
    wire.send("3\r\ntwo\r\n0\r\n\r\n");
    let mut rest = [0; 13];
    wire.read(&mut rest);
    assert_eq!(&rest, b"3\r\ntwo\r\n0\r\n\r\n");
}

#[test]
fn a_client_that_goes_away_stops_the_endpoint() {
    let (closed, is_closed) = std::sync::mpsc::channel();
    let endpoint = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        closed.send(()).unwrap();
        // Returns once the proxy has closed.
        let _ = stream.read(&mut [0]);
        closed.send(()).unwrap();
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    is_closed.recv().unwrap();
    wire.stream().shutdown(Shutdown::Both).unwrap();
    is_closed
        .recv_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    eventually("no connection is open", || {
        proxy.metric("forebay_downstream_connections{worker=\"0\"}") == 0
    });
}
