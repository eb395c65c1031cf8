//! One retry, where it is safe.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use ingress_lab::{eventually, origin::Origin};
use ingress_model::{RetryCauses, RetryPolicy, UpstreamPolicy};

use crate::{
    proxy::{Cluster, Proxy},
    wire::{Endpoint, Refusing, Wire, ask, read_head},
};

fn retries(proxy: &Proxy) -> u64 {
    proxy.metric("forebay_retries_total{worker=\"0\"}")
}

#[test]
fn a_refused_connection_is_tried_on_another_endpoint() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let refusing = Refusing::start();
    let proxy = Proxy::start(&Cluster::of(&[refusing.address, origin.address()]));
    let post = || {
        // A body too: no endpoint has seen any of it.
        let answer = ask(
            proxy.http,
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        );
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    };
    // Each endpoint has the first turn of one of two requests, whichever turn comes first: a retry
    // that took a turn of its own would send both to the dead one.
    (0..2).for_each(|_| post());
    eventually("the retry is counted", || retries(&proxy) == 1);
    // In turn, the dead endpoint would be tried by half of these.
    (0..20).for_each(|_| post());
    assert!(
        retries(&proxy) <= 3,
        "an endpoint that refuses is tried again at once: {} retries",
        retries(&proxy)
    );
    assert_eq!(
        retries(&proxy),
        proxy.metric("forebay_upstream_connects_failed_total{worker=\"0\"}")
    );
}

fn retrying(endpoints: &[SocketAddr], retry: RetryPolicy) -> Proxy {
    let policy = UpstreamPolicy {
        retry,
        ..UpstreamPolicy::default()
    };
    let cluster = Cluster::default().route("", "/", "web", endpoints, policy.into());
    Proxy::start(&cluster.0)
}

#[test]
fn a_policy_that_tries_once_or_after_nothing_shows_the_failure() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let off = RetryPolicy {
        causes: RetryCauses::none(),
        ..RetryPolicy::default()
    };
    let once = RetryPolicy {
        tries: 1,
        ..RetryPolicy::default()
    };
    for retry in [off, once] {
        let refusing = Refusing::start();
        let proxy = retrying(&[refusing.address, origin.address()], retry.clone());
        let mut statuses = [0; 2].map(|_| Wire::connect(proxy.http).get("/", "").status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{retry:?}");
    }
}

#[test]
fn a_response_with_a_status_that_the_policy_names_is_thrown_away_while_another_endpoint_is_left() {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let retry = RetryPolicy {
        causes: RetryCauses {
            statuses: [503].into(),
            ..RetryCauses::default()
        },
        ..RetryPolicy::default()
    };
    let well = Endpoint::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let busy = [(); 2].map(|()| Endpoint::answering(BUSY));
    let proxy = retrying(
        &[busy[0].address, busy[1].address, well.address],
        retry.clone(),
    );
    let mut wire = Wire::connect(proxy.http);
    for turn in 0..6 {
        let answer = wire.get("/", "");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "ok"),
            "turn {turn}"
        );
    }
    // A body that is on its way is sent once.
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses = [0; 3].map(|_| ask(proxy.http, post).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503]);
    // The last one is the answer. An endpoint serves one connection at a time.
    drop((wire, proxy));
    let proxy = retrying(&[busy[0].address, busy[1].address], retry);
    let answer = Wire::connect(proxy.http).get("/", "");
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    eventually("the retry is counted", || retries(&proxy) == 1);
}

#[test]
fn endpoints_have_their_turns_over_kept_connections() {
    let origins: Vec<_> = ["a", "b"]
        .map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap())
        .into_iter()
        .collect();
    let proxy = Proxy::start(&Cluster::of(&[origins[0].address(), origins[1].address()]));
    let mut wire = Wire::connect(proxy.http);
    let pods: Vec<_> = (0..10)
        .map(|_| wire.get("/", "").header("x-pod").to_owned())
        .collect();
    for pod in ["a", "b"] {
        assert_eq!(pods.iter().filter(|own| *own == pod).count(), 5, "{pods:?}");
    }
    assert_eq!(
        proxy.metric("forebay_upstream_connects_total{worker=\"0\"}"),
        2
    );
    assert_eq!(
        proxy.metric("forebay_upstream_reused_total{worker=\"0\"}"),
        8
    );
}

/// Answers the first request of each connection, then closes once it has read the second.
fn closing_on_reuse(seen: &Arc<AtomicUsize>) -> Endpoint {
    let seen = Arc::clone(seen);
    Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        seen.fetch_add(1, SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if read_head(&mut stream).is_some() {
            seen.fetch_add(1, SeqCst);
        }
    })
}

#[test]
fn a_kept_connection_that_dies_unanswered_is_replaced() {
    let seen = Arc::new(AtomicUsize::new(0));
    let endpoint = closing_on_reuse(&seen);
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    for _ in 0..3 {
        assert_eq!(wire.get("/", "").status, 200);
    }
    eventually("both retries are counted", || retries(&proxy) == 2);
    assert_eq!(seen.load(SeqCst), 5);
}

#[test]
fn a_request_that_may_have_been_acted_on_is_not_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let endpoint = closing_on_reuse(&seen);
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    wire.send(post);
    assert_eq!(wire.answer().status, 200);
    wire.send(post);
    assert_eq!(wire.answer().status, 502);
    assert_eq!(seen.load(SeqCst), 2);
}
