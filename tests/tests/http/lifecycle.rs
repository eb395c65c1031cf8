//! New tables, new certificates and the end of a worker: no request that is under way notices.

use std::{io::Read, time::Duration};

use ingress_lab::{eventually, origin::Origin};
use ingress_model::{Policy, UpstreamPolicy};
use ingress_proxy::worker::WorkerSettings;

use crate::{
    proxy::{Cluster, Proxy, settings},
    wire::Wire,
};

fn origin(pod: &str) -> Origin {
    Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap()
}

#[test]
fn a_connection_outlives_a_change_of_the_table() {
    let (first, second) = (origin("a"), origin("b"));
    let proxy = Proxy::start(&Cluster::of(&[first.address()]));
    let mut wire = Wire::connect(proxy.http);
    let mut waiting = Wire::connect(proxy.http);
    waiting.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.get("/", "").header("x-pod"), "a");
    eventually("the endpoint holds a request", || first.held() == 1);
    proxy.publish(&Cluster::of(&[second.address()]));
    eventually("requests go to the new endpoint", || {
        wire.get("/", "").header("x-pod") == "b"
    });
    first.release();
    assert_eq!(waiting.answer().header("x-pod"), "a");
    proxy.publish(&Cluster::default().0);
    eventually("the route is gone", || wire.get("/", "").status == 404);
}

#[test]
fn shutdown_lets_requests_finish_and_takes_no_new_ones() {
    let origin = origin("a");
    let proxy = Proxy::start_with(
        &Cluster::of(&[origin.address()]),
        WorkerSettings {
            shutdown_grace: Duration::from_secs(20),
            ..settings()
        },
    );
    let mut idle = Wire::connect(proxy.http);
    assert_eq!(idle.get("/", "").status, 200);
    let mut silent = Wire::connect(proxy.http);
    let mut busy = Wire::connect(proxy.http);
    busy.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the endpoint holds a request", || origin.held() == 1);
    proxy.shut_down();
    assert!(idle.is_closed() && silent.is_closed());
    eventually("no new connection is taken", || {
        std::net::TcpStream::connect(proxy.http).is_err()
    });
    assert!(!proxy.has_ended());
    origin.release();
    let answer = busy.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    eventually("the worker has ended", || proxy.has_ended());
}

#[test]
fn shutdown_ends_with_the_grace() {
    let origin = origin("a");
    let grace = Duration::from_millis(200);
    let proxy = Proxy::start_with(
        &Cluster::of(&[origin.address()]),
        WorkerSettings {
            shutdown_grace: grace,
            ..settings()
        },
    );
    let mut busy = Wire::connect(proxy.http);
    busy.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the endpoint holds a request", || origin.held() == 1);
    proxy.shut_down();
    eventually("the worker has ended", || proxy.has_ended());
    assert!(busy.is_closed());
    origin.release();
}

#[test]
fn a_websocket_survives_changes_of_the_table() {
    let origin = origin("a");
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    wire.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = wire.head();
    assert_eq!(
        (
            answer.status,
            answer.header("upgrade").to_ascii_lowercase().as_str()
        ),
        (101, "websocket")
    );
    let open = || proxy.metric("forebay_downstream_connections{worker=\"0\"}");
    for turn in 0..100_u8 {
        assert_eq!(open(), 1, "connections in turn {turn} of the tunnel");
        if turn % 10 == 0 {
            proxy.publish(
                &Cluster::default()
                    .route(
                        &format!("h{turn}.example"),
                        "/",
                        "x",
                        &[],
                        Policy::default(),
                    )
                    .0,
            );
        }
        wire.send([turn; 3]);
        let mut back = [0; 3];
        wire.read(&mut back);
        assert_eq!(back, [turn; 3]);
    }
    drop(wire);
    eventually("the tunnel has ended", || open() == 0);
}

#[test]
fn a_websocket_in_which_nothing_moves_ends() {
    let origin = origin("a");
    let policy = Policy {
        upstream: UpstreamPolicy {
            read_timeout: Duration::from_secs(1),
            ..UpstreamPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(
        &Cluster::default()
            .route("", "/", "web", &[origin.address()], policy)
            .0,
    );
    let mut wire = Wire::connect(proxy.http);
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(wire.head().status, 101);
    assert!(wire.is_closed());
}

#[test]
fn an_upgrade_that_is_no_websocket_is_a_plain_request() {
    let origin = origin("a");
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    let answer = wire.get(
        "/",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
    );
    assert_eq!(answer.status, 200);
    let headers = answer.echo().headers;
    assert!(
        !headers.contains_key("upgrade") && !headers.contains_key("http2-settings"),
        "{headers:?}"
    );
}

#[test]
fn what_was_sent_before_the_end_of_a_tunnel_arrives() {
    let origin = origin("a");
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    // The first bytes of the tunnel come along with the request.
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly",
    );
    assert_eq!(wire.head().status, 101);
    let mut back = [0; 5];
    wire.read(&mut back);
    assert_eq!(&back, b"early");
    wire.stream().shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    wire.stream().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}
