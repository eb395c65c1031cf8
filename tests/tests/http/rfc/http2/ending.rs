//! When streams and connections end, and when they do not (RFC 9113 sections 5.2 and 6.8).

use std::{
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ingress_lab::eventually;
use ingress_proxy::worker::WorkerSettings;

use super::{
    case::get,
    frame::{Connection, END_HEADERS, END_STREAM, HEADERS, Outcome, RST_STREAM},
    hpack,
};
use crate::{
    proxy::{Cluster, Proxy, settings},
    wire::{Endpoint, read_head},
};

const BRIEF: Duration = Duration::from_millis(200);

#[test]
fn a_request_that_crosses_the_goaway_of_an_idle_connection_is_served_to_its_end() {
    let endpoint = Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        // Slower than all that ends a connection which serves nothing.
        thread::sleep(5 * BRIEF);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let _ = stream.write_all(answer);
    });
    let settings = WorkerSettings {
        idle_timeout: BRIEF,
        shutdown_grace: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut connection = Connection::open(proxy.http);
    connection.goaway().unwrap();
    // The PING that came along is not answered yet: to the proxy, the client has not seen GOAWAY.
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &request());
    let answer = Outcome::Answer {
        status: 200,
        body: "hello".to_owned(),
    };
    assert_eq!(connection.outcome(1), Ok(answer));
}

#[test]
fn a_request_that_leaves_just_after_the_answer_to_the_last_ping_is_served() {
    let endpoint = Endpoint::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut connection = Connection::open(proxy.http);
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &request());
    let answer = Outcome::Answer {
        status: 200,
        body: "hello".to_owned(),
    };
    assert_eq!(connection.outcome(1).as_ref(), Ok(&answer));
    proxy.shut_down();
    connection.goaway().unwrap();
    // As clients do that answer a PING before what waits in their queue.
    connection.answer_ping().unwrap();
    connection.send(HEADERS, END_HEADERS | END_STREAM, 3, &request());
    assert_eq!(connection.outcome(3), Ok(answer));
}

#[test]
fn a_client_that_takes_one_frame_at_a_time_is_slow_and_not_stalled() {
    const FRAME: u32 = 16 * 1024;
    const FIRST_WINDOW: usize = 65_535;
    let endpoint = flooding();
    let settings = WorkerSettings {
        write_timeout: 5 * BRIEF / 2,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut connection = Connection::open(proxy.http);
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &request());
    connection.data(1, FIRST_WINDOW).unwrap();
    for round in 0..10 {
        // The pace of a slow client, well within the limit for each frame.
        thread::sleep(BRIEF);
        connection.open_window(1, FRAME);
        let taken = connection.data(1, FRAME as usize);
        assert_eq!(taken, Ok(()), "round {round}");
    }
}

#[test]
fn a_stream_of_a_client_that_reads_slowly_waits_for_its_turn() {
    let endpoint = flooding();
    let settings = WorkerSettings {
        write_timeout: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut connection = Connection::open(proxy.http);
    connection.shrink_receive_buffer();
    connection.send(HEADERS, END_HEADERS | END_STREAM, 1, &request());
    connection.open_window(1, 1 << 30);
    // What the kernel has in its buffer takes this client longer than the limit, and hyper is not
    // asked for more meanwhile.
    let began = Instant::now();
    while began.elapsed() < 12 * BRIEF {
        thread::sleep(BRIEF / 15);
        assert_eq!(connection.data(1, 32 * 1024), Ok(()));
    }
}

#[test]
fn a_client_that_resets_stream_after_stream_is_let_go() {
    // No endpoint is asked for more than this on behalf of nobody; a client may leave now and then.
    const MOST: u32 = 300;
    const LEAST: u32 = 150;
    const BATCH: u32 = 25;
    let (hold, _held) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, stream| drop(hold.send(stream)));
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let is_gone = || proxy.metric("forebay_downstream_connections{worker=\"0\"}") == 0;
    let mut connection = Connection::open(proxy.http);
    eventually("it is connected", || !is_gone());
    let mut asked = 0;
    while asked < MOST {
        let streams = (asked..asked + BATCH).map(|place| 2 * place + 1);
        for stream in streams.clone() {
            connection.send(HEADERS, END_HEADERS | END_STREAM, stream, &request());
        }
        let connects = || proxy.metric("forebay_upstream_connects_total{worker=\"0\"}");
        let all = u64::from(asked + BATCH);
        eventually("the endpoint is asked", || connects() == all || is_gone());
        if is_gone() {
            break;
        }
        for stream in streams {
            // CANCEL (RFC 9113 section 7).
            connection.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        }
        asked += BATCH;
    }
    eventually("the connection is closed", is_gone);
    assert!(asked >= LEAST, "after {asked} streams");
}

#[test]
fn a_slow_client_gets_the_rest_of_streams_that_the_proxy_is_done_with() {
    const STREAMS: u32 = 100;
    let endpoint = Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        // Less than the window of a stream: hyper takes all of it at once.
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
        let _ = stream.write_all(&[&answer[..], &[b'x'; 60_000]].concat());
    });
    let settings = WorkerSettings {
        idle_timeout: BRIEF,
        shutdown_grace: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut connection = Connection::open(proxy.http);
    connection.shrink_receive_buffer();
    for stream in (1..).step_by(2).take(STREAMS as usize) {
        connection.send(HEADERS, END_HEADERS | END_STREAM, stream, &request());
        connection.open_window(stream, 1 << 20);
    }
    // Far longer than a connection may be idle.
    let ended = connection.ends(STREAMS, BRIEF / 30);
    assert_eq!(ended, Ok(()));
}

fn flooding() -> Endpoint {
    Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    })
}

fn request() -> Vec<u8> {
    get::<&str, &str>(&[])
        .iter()
        .flat_map(|(name, value)| hpack::field(name, value))
        .collect()
}
