//! What never reaches an endpoint, and what a bad endpoint is answered with.

use std::{io::Write, time::Duration};

use ingress_lab::{eventually, origin::Origin};
use ingress_model::{Policy, RoutePolicy, UpstreamPolicy};
use ingress_proxy::worker::WorkerSettings;

use crate::{
    proxy::{Cluster, Proxy, settings},
    wire::{Endpoint, Refusing, Wire, ask, read_head},
};

#[test]
fn what_no_rule_names_is_not_found() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let cluster = Cluster::default().route(
        "shop.example",
        "/a",
        "web",
        &[origin.address()],
        Policy::default(),
    );
    let proxy = Proxy::start(&cluster.0);
    let mut wire = Wire::connect(proxy.http);
    assert_eq!(wire.get("/a/b", "").status, 200);
    let answer = wire.get("/ab", "X-Request-ID: seen\r\n");
    assert_eq!((answer.status, answer.header("server")), (404, "forebay"));
    assert!(answer.text().contains("seen"), "{}", answer.text());
    assert_eq!(
        ask(proxy.http, "GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n").status,
        404
    );
    let unrouted =
        "forebay_requests_total{namespace=\"\",ingress=\"\",service=\"\",status=\"404\"}";
    eventually("both are counted", || proxy.metric(unrouted) == 2);
}

#[test]
fn a_backend_without_endpoints_is_unavailable() {
    let proxy = Proxy::start(&Cluster::of(&[]));
    assert_eq!(Wire::connect(proxy.http).get("/", "").status, 503);
}

#[test]
fn bad_endpoints_are_bad_gateways() {
    for response in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        let endpoint = Endpoint::answering(response);
        let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
        assert_eq!(
            Wire::connect(proxy.http).get("/", "").status,
            502,
            "{response:?}"
        );
    }
    let closing = Endpoint::start(|_, mut stream| drop(read_head(&mut stream)));
    let refusing = Refusing::start();
    for address in [closing.address, refusing.address] {
        let proxy = Proxy::start(&Cluster::of(&[address]));
        assert_eq!(Wire::connect(proxy.http).get("/", "").status, 502);
    }
}

#[test]
fn an_endpoint_that_keeps_silent_times_out() {
    let (hold, held) = std::sync::mpsc::channel();
    let silent = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        hold.send(stream).unwrap();
    });
    let policy = Policy {
        upstream: UpstreamPolicy {
            read_timeout: Duration::from_secs(1),
            ..UpstreamPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(
        &Cluster::default()
            .route("", "/", "web", &[silent.address], policy)
            .0,
    );
    assert_eq!(Wire::connect(proxy.http).get("/", "").status, 504);
    drop(held);
}

#[test]
fn a_body_over_the_limit_is_too_large() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let policy = Policy {
        route: RoutePolicy {
            body_limit: Some(10),
            ..RoutePolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(
        &Cluster::default()
            .route("", "/", "web", &[origin.address()], policy)
            .0,
    );
    for (request, status) in [
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
            200,
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n0123456789a",
            413,
        ),
        (
            "POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n",
            413,
        ),
    ] {
        assert_eq!(ask(proxy.http, request).status, status, "{request:?}");
    }
}

#[test]
fn a_client_that_sends_no_head_or_no_body_is_let_go() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let short = Duration::from_millis(300);
    let settings = WorkerSettings {
        head_timeout: short,
        idle_timeout: short,
        body_timeout: short,
        handshake_timeout: short,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[origin.address()]), settings);
    for (address, start) in [
        (proxy.http, ""),
        (proxy.http, "GET / HT"),
        (proxy.https, ""),
        (proxy.https, "\x16\x03"),
    ] {
        let mut wire = Wire::connect(address);
        wire.send(start);
        if start.starts_with("GET") {
            assert_eq!(wire.answer().status, 408);
        }
        assert!(wire.is_closed(), "{start:?} on {address}");
    }
    let mut idle = Wire::connect(proxy.http);
    assert_eq!(idle.get("/", "").status, 200);
    assert!(idle.is_closed());
    let slow = ask(
        proxy.http,
        "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
    );
    assert_eq!(slow.status, 408);
}

#[test]
fn a_response_that_breaks_off_is_not_passed_off_as_whole() {
    let (arrived, has_arrived) = std::sync::mpsc::channel();
    let breaking = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
        has_arrived.recv().unwrap();
    });
    let proxy = Proxy::start(&Cluster::of(&[breaking.address]));
    let mut wire = Wire::connect(proxy.http);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    let mut rest = [0; 10];
    wire.read(&mut rest);
    assert_eq!(&rest, b"5\r\nhello\r\n");
    arrived.send(()).unwrap();
    assert!(wire.is_closed(), "the body was given an end");
}

#[test]
fn a_route_that_leads_back_to_the_proxy_ends_after_ten_rounds() {
    let proxy = Proxy::start(&Cluster::of(&[]));
    proxy.publish(&Cluster::of(&[proxy.http]));
    assert_eq!(Wire::connect(proxy.http).get("/", "").status, 508);
    eventually("every round is counted", || {
        proxy.metric("forebay_downstream_connections_total{worker=\"0\"}") == 11
    });
    // Whoever says so is not one of the rounds, and cannot be told from one: it harms only itself.
    let answer = Wire::connect(proxy.http).get("/", "X-Forebay-Hops: 10\r\n");
    assert_eq!(answer.status, 508);
}
