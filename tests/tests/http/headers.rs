//! What reaches the endpoint, and what comes back to the client, as ingress-nginx does it.

use std::time::Duration;

use ingress_lab::origin::Origin;
use ingress_model::{Policy, RoutePolicy};
use ingress_proxy::worker::WorkerSettings;

use crate::{
    proxy::{Cluster, Proxy, settings},
    wire::{Endpoint, Wire, ask},
};

fn origin() -> Origin {
    Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap()
}

#[test]
fn forwarding_fields_are_ours_and_not_the_clients() {
    let origin = origin();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    let forged = "X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-For: 192.0.2.67\r\nX-Real-IP: 192.0.2.66\r\n\
                  X-Forwarded-Proto: https\r\nX_Forwarded_Proto: https\r\nForwarded: for=192.0.2.66\r\nProxy: x\r\n\
                  X-Request-ID: mine\r\nAccept: a/b\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n";
    let echo = wire.get("/a//b%2Fc?q=1%20", forged).echo();
    assert_eq!(
        (echo.path.as_str(), echo.version.as_str()),
        ("/a//b%2Fc?q=1%20", "HTTP/1.1")
    );
    let port = proxy.http.port().to_string();
    for (name, value) in [
        ("host", "shop.example"),
        ("x-request-id", "mine"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-forwarded-for", "192.0.2.66, 192.0.2.67"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", &port),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-scheme", "http"),
        ("x-scheme", "http"),
        ("accept", "a/b"),
    ] {
        assert_eq!(
            echo.headers.get(name).map(String::as_str),
            Some(value),
            "{name} of {:?}",
            echo.headers
        );
    }
    for name in [
        "x-gone",
        "x_forwarded_proto",
        "forwarded",
        "proxy",
        "connection",
    ] {
        assert!(
            !echo.headers.contains_key(name),
            "{name} of {:?}",
            echo.headers
        );
    }
}

#[test]
fn a_request_without_an_identity_is_given_one() {
    let origin = origin();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    let mut identity = || wire.get("/", "").echo().headers["x-request-id"].clone();
    let (first, second) = (identity(), identity());
    assert_ne!(first, second);
    assert!(
        first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{first}"
    );
}

#[test]
fn fields_of_one_hop_stay_on_the_endpoints_side() {
    let endpoint = Endpoint::answering(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         X-Powered-By: y\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let answer = Wire::connect(proxy.http).get("/", "");
    assert_eq!(
        (answer.header("server"), answer.header("x-powered-by")),
        ("forebay", "y")
    );
    assert_eq!(
        (answer.header("set-cookie"), answer.text().as_str()),
        ("a=1", "ok")
    );
    assert!(answer.headers.contains_key("date"));
    for name in ["x-hop", "keep-alive", "connection"] {
        assert!(!answer.headers.contains_key(name), "{name} of {answer:?}");
    }
}

#[test]
fn a_traced_response_says_which_way_it_went() {
    let origin = origin();
    let settings = WorkerSettings {
        trace_node: Some("n1".into()),
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[origin.address()]), settings);
    let answer = Wire::connect(proxy.http).get("/", "");
    let expected = format!(
        "node=n1 worker=0 ingress=shop/web backend=shop/web:80 endpoint={} pod=pod-1",
        origin.address()
    );
    assert_eq!(answer.header("x-forebay"), expected);
}

#[test]
fn plain_requests_for_a_tls_host_are_sent_to_https() {
    let origin = origin();
    let mut cluster = Cluster::default().route(
        "shop.example",
        "/",
        "web",
        &[origin.address()],
        Policy::default(),
    );
    cluster.certificate("shop.example");
    let proxy = Proxy::start(&cluster.0);
    let mut wire = Wire::connect(proxy.http);
    for (target, host, location) in [
        ("/", "shop.example", "https://shop.example"),
        ("/a/", "Shop.example:8080", "https://shop.example/a"),
        ("/a?b=/", "shop.example", "https://shop.example/a?b="),
        ("/a%20b?c", "shop.example", "https://shop.example/a%20b?c"),
    ] {
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = wire.answer();
        assert_eq!(
            (answer.status, answer.header("location")),
            (308, location),
            "{target} {host}"
        );
    }
    assert_eq!(wire.get("/.well-known/acme-challenge/x", "").status, 200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_rewrite_replaces_the_path_and_keeps_the_query() {
    let origin = origin();
    let policy = Policy {
        route: RoutePolicy {
            rewrite_target: Some("/".into()),
            ..RoutePolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(
        &Cluster::default()
            .route("shop.example", "/foos1", "s1", &[origin.address()], policy)
            .0,
    );
    let echo = Wire::connect(proxy.http).get("/foos1/x?a=b", "").echo();
    assert_eq!(echo.path, "/?a=b");
}

#[test]
fn cookies_arrive_as_one_field() {
    let origin = origin();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let echo = Wire::connect(proxy.http)
        .get("/", "Cookie: a=1\r\nCookie: b=2\r\n")
        .echo();
    assert_eq!(echo.headers["cookie"], "a=1; b=2");
}

#[test]
fn old_clients_are_answered_and_let_go() {
    let origin = origin();
    let proxy = Proxy::start(&Cluster::of(&[origin.address()]));
    let mut wire = Wire::connect(proxy.http);
    wire.stream()
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    wire.send("GET /bytes/10 HTTP/1.0\r\n\r\n");
    assert_eq!(wire.answer().body.len(), 10);
    assert!(wire.is_closed());
    assert_eq!(
        ask(proxy.http, "GET /status/404 HTTP/1.0\r\n\r\n").status,
        404
    );
}
