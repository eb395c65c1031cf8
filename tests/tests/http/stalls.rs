//! What stands still is ended: each wait has a limit of its own.

use std::{
    convert::Infallible,
    io::{Read, Write},
    pin::Pin,
    sync::mpsc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use ingress_lab::{eventually, origin::Origin};
use ingress_model::{Policy, RoutePolicy, Update, UpstreamPolicy};
use ingress_proxy::worker::WorkerSettings;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    http2::{self, LIMIT, get, http2},
    proxy::{Cluster, Proxy, settings},
    wire::{BlackHole, Endpoint, Wire, read_head},
};

/// A limit short enough to wait for.
const BRIEF: Duration = Duration::from_millis(300);
/// A body that no buffer holds.
const HUGE: u64 = 1 << 30;
const OPEN: &str = "forebay_downstream_connections{worker=\"0\"}";
const RETRIES: &str = "forebay_retries_total{worker=\"0\"}";

fn cluster(endpoints: &[std::net::SocketAddr], policy: Policy) -> Update {
    Cluster::default()
        .route("", "/", "web", endpoints, policy)
        .0
}

/// A worker that does not wait for connections that stay open.
fn ends_soon() -> WorkerSettings {
    WorkerSettings {
        shutdown_grace: BRIEF,
        ..settings()
    }
}

/// An endpoint may be silent for so long.
fn read_timeout(limit: Duration) -> Policy {
    Policy {
        upstream: UpstreamPolicy {
            read_timeout: limit,
            ..UpstreamPolicy::default()
        },
        ..Policy::default()
    }
}

/// An endpoint that sends without an end, side by side; it tells when the proxy stops it.
fn flooding() -> (Endpoint, mpsc::Receiver<()>) {
    let (stopped, has_stopped) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, mut stream| {
        let stopped = stopped.clone();
        std::thread::spawn(move || {
            read_head(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
            // The test may be over.
            let _ = stopped.send(());
        });
    });
    (endpoint, has_stopped)
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let (endpoint, has_stopped) = flooding();
    let settings = WorkerSettings {
        write_timeout: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut wire = Wire::connect(proxy.http);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    has_stopped
        .recv_timeout(LIMIT)
        .expect("the endpoint still sends");
    eventually("no connection is open", || proxy.metric(OPEN) == 0);
    // What the kernel holds still comes; then the connection ends, long before the body does.
    let mut received = 0;
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = wire.stream().read(&mut buffer) {
        received += count as u64;
    }
    assert!(received < HUGE / 2, "{received} bytes came");
}

#[test]
fn a_client_that_takes_little_at_a_time_is_slow_and_not_stalled() {
    let (endpoint, _stopped) = flooding();
    let settings = WorkerSettings {
        write_timeout: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let mut wire = Wire::connect(proxy.http);
    // As of a client far away, which tells all the time how far it is.
    set_socket_recv_buffer_size(wire.stream(), 128 * 1024).unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // The kernel buffers megabytes before it lets the proxy send again: that takes this client far
    // longer than the limit.
    let mut piece = vec![0; 32 * 1024];
    let began = Instant::now();
    while began.elapsed() < 10 * BRIEF {
        std::thread::sleep(BRIEF / 20);
        wire.read(&mut piece);
    }
    assert_eq!(proxy.metric(OPEN), 1, "it was let go");
}

#[test]
fn an_endpoint_that_takes_little_at_a_time_is_slow_and_not_stalled() {
    let (took, taken) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, mut stream| {
        // As of a pod that works on what it reads.
        set_socket_recv_buffer_size(&stream, 128 * 1024).unwrap();
        read_head(&mut stream);
        let mut piece = vec![0; 32 * 1024];
        let began = Instant::now();
        while began.elapsed() < 10 * BRIEF {
            std::thread::sleep(BRIEF / 20);
            if stream.read_exact(&mut piece).is_err() {
                return;
            }
        }
        took.send(()).unwrap();
    });
    let policy = Policy {
        route: RoutePolicy {
            body_limit: None,
            ..RoutePolicy::default()
        },
        upstream: UpstreamPolicy {
            send_timeout: BRIEF,
            ..UpstreamPolicy::default()
        },
    };
    let proxy = Proxy::start(&cluster(&[endpoint.address], policy));
    let mut wire = Wire::connect(proxy.http);
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let upload = wire.stream().try_clone().unwrap();
    std::thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        while (&upload).write_all(&piece).is_ok() {}
    });
    assert!(taken.recv_timeout(20 * BRIEF).is_ok(), "it was let go");
}

#[test]
fn an_endpoint_that_takes_nothing_times_out() {
    let (hold, _held) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, stream| drop(hold.send(stream)));
    let policy = Policy {
        route: RoutePolicy {
            body_limit: None,
            ..RoutePolicy::default()
        },
        upstream: UpstreamPolicy {
            send_timeout: BRIEF,
            ..UpstreamPolicy::default()
        },
    };
    let proxy = Proxy::start(&cluster(&[endpoint.address], policy));
    let mut wire = Wire::connect(proxy.http);
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {HUGE}\r\n\r\n"
    ));
    let mut sender = wire.stream().try_clone().unwrap();
    // Ends with the connection.
    std::thread::spawn(move || while sender.write_all(&[b'x'; 64 * 1024]).is_ok() {});
    assert_eq!(wire.answer().status, 504);
    assert!(wire.is_closed(), "the rest of the body would be a request");
}

#[test]
fn an_endpoint_that_accepts_nothing_times_out() {
    let hole = BlackHole::start();
    let policy = Policy {
        upstream: UpstreamPolicy {
            connect_timeout: BRIEF,
            ..UpstreamPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(&cluster(&[hole.address], policy.clone()));
    let began = Instant::now();
    assert_eq!(Wire::connect(proxy.http).get("/", "").status, 504);
    assert!(began.elapsed() >= BRIEF, "after {:?}", began.elapsed());

    // With another endpoint at hand, that one answers, whichever of the two had the turn.
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let proxy = Proxy::start(&cluster(&[hole.address, origin.address()], policy));
    for _ in 0..2 {
        assert_eq!(Wire::connect(proxy.http).get("/", "").status, 200);
    }
    eventually("one retry is counted", || proxy.metric(RETRIES) == 1);
}

#[test]
fn every_try_has_its_own_time() {
    let hole = BlackHole::start();
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    // The first try takes as long as an answer may.
    let policy = Policy {
        upstream: UpstreamPolicy {
            connect_timeout: BRIEF,
            read_timeout: BRIEF,
            ..UpstreamPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::start(&cluster(&[hole.address, origin.address()], policy));
    for _ in 0..2 {
        assert_eq!(Wire::connect(proxy.http).get("/", "").status, 200);
    }
    eventually("one retry is counted", || proxy.metric(RETRIES) == 1);
}

#[test]
fn an_endpoint_that_says_nothing_times_out_though_its_clients_connection_may_idle_for_long() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let (hold, _held) = mpsc::channel();
    let silent = Endpoint::start(move |_, stream| drop(hold.send(stream)));
    let policy = read_timeout(BRIEF);
    let state = Cluster::default()
        .route("", "/", "web", &[origin.address()], Policy::default())
        .route("", "/silent", "silent", &[silent.address], policy)
        .0;
    let settings = WorkerSettings {
        idle_timeout: 10 * LIMIT,
        ..settings()
    };
    let proxy = Proxy::start_with(&state, settings);
    let mut wire = Wire::connect(proxy.http);
    for round in 1..=2 {
        assert_eq!(wire.get("/", "").status, 200, "round {round}");
        let asked = Instant::now();
        assert_eq!(wire.get("/silent", "").status, 504, "round {round}");
        let waited = asked.elapsed();
        // On a busy machine, the proxy may have read its clock shortly before the request came.
        assert!(
            (BRIEF / 2..LIMIT).contains(&waited),
            "round {round}: after {waited:?}"
        );
    }
}

#[test]
fn a_limit_counts_from_its_request_and_not_from_an_earlier_one() {
    let (hold, _held) = mpsc::channel();
    let silent = Endpoint::start(move |_, stream| drop(hold.send(stream)));
    let policy = read_timeout(BRIEF);
    let proxy = Proxy::start(&cluster(&[silent.address], policy));
    let mut wire = Wire::connect(proxy.http);
    // One reading of the proxy's clock serves several tasks. Were it not given up when the proxy waits,
    // one of these requests would count as old when it comes.
    for request in 1..=4 {
        let asked = Instant::now();
        assert_eq!(wire.get("/", "").status, 504, "request {request}");
        let waited = asked.elapsed();
        assert!(waited >= BRIEF / 2, "request {request}: after {waited:?}");
    }
}

#[test]
fn an_endpoint_that_falls_silent_within_its_answer_breaks_it_off() {
    let (hold, _held) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        let part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(part).unwrap();
        hold.send(stream).unwrap();
    });
    let policy = read_timeout(BRIEF);
    let proxy = Proxy::start(&cluster(&[endpoint.address], policy));
    let mut wire = Wire::connect(proxy.http);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wire.head().status, 200);
    let mut rest = [0; 10];
    wire.read(&mut rest);
    assert_eq!(&rest, b"5\r\nhello\r\n");
    assert!(wire.is_closed(), "the body was given an end");
}

#[tokio::test]
async fn an_http2_client_without_a_window_holds_no_endpoint() {
    const STREAMS: usize = 10;
    let (endpoint, has_stopped) = flooding();
    let settings = WorkerSettings {
        write_timeout: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[endpoint.address]), settings);
    let io = TcpStream::connect(proxy.http).await.unwrap();
    // It goes on answering PINGs: the connection is alive, its streams are not.
    let (mut sender, _connection) = http2::without_window(io).await;
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let answer = sender.send_request(get("http://a/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        bodies.push(answer.into_body());
    }
    for (stream, body) in bodies.into_iter().enumerate() {
        let ended = timeout(LIMIT, body.collect()).await;
        let ended = ended.unwrap_or_else(|_| panic!("stream {stream} still waits"));
        assert!(ended.is_err(), "stream {stream} was given an end");
    }
    for stream in 0..STREAMS {
        has_stopped
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("the endpoint still sends for stream {stream}"));
    }
}

#[tokio::test]
async fn an_http2_request_has_its_limit_on_a_connection_that_another_has_waited_on() {
    let limit = 3 * BRIEF;
    let (go_on, goes_on) = mpsc::channel();
    let (hold, _held) = mpsc::channel();
    let endpoint = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head).unwrap();
        goes_on.recv().unwrap();
        stream.write_all(b"ok").unwrap();
        read_head(&mut stream);
        // The second request has no answer.
        let _ = hold.send(stream);
    });
    let policy = read_timeout(limit);
    let proxy = Proxy::start_with(&cluster(&[endpoint.address], policy), ends_soon());
    let io = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, _connection) = http2(io).await;
    let answer = sender.send_request(get("http://a/")).await.unwrap();
    // The proxy waits for the body once its client has the head.
    go_on.send(()).unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "ok");
    let asked = Instant::now();
    let answer = timeout(LIMIT, sender.send_request(get("http://a/"))).await;
    assert_eq!(answer.expect("it still waits").unwrap().status(), 504);
    let waited = asked.elapsed();
    assert!(waited >= limit / 2, "after {waited:?}");
    let connects = proxy.metric("forebay_upstream_connects_total{worker=\"0\"}");
    assert_eq!(connects, 1);
}

#[tokio::test]
async fn an_endpoint_that_sends_piece_by_piece_to_an_http2_client_is_waited_for() {
    // Long enough for a machine that does other things meanwhile.
    let limit = 5 * BRIEF;
    let endpoint = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).unwrap();
        // Two of these waits are longer than the limit, which counts from the last piece.
        for _ in 0..4 {
            std::thread::sleep(limit * 2 / 3);
            // The proxy may have given up.
            let _ = stream.write_all(b"x");
        }
    });
    let policy = read_timeout(limit);
    let proxy = Proxy::start_with(&cluster(&[endpoint.address], policy), ends_soon());
    let io = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, _connection) = http2(io).await;
    let answer = sender.send_request(get("http://a/")).await.unwrap();
    let body = answer.into_body().collect().await;
    assert_eq!(body.expect("it was cut").to_bytes(), "xxxx");
}

/// A body of a request.
enum Sends {
    Nothing,
    /// It is announced and does not come.
    Never,
}

impl Body for Sends {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match *self {
            Self::Nothing => Poll::Ready(None),
            Self::Never => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[tokio::test]
async fn an_http2_client_that_sends_no_body_is_let_go() {
    let origin = Origin::start("pod-1", ([127, 0, 0, 1], 0).into()).unwrap();
    let settings = WorkerSettings {
        body_timeout: BRIEF,
        ..settings()
    };
    let proxy = Proxy::start_with(&Cluster::of(&[origin.address()]), settings);
    let io = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, _connection) = http2(io).await;
    let upload = Request::post("http://a/hold").body(Sends::Never).unwrap();
    let answer = timeout(LIMIT, sender.send_request(upload)).await;
    assert_eq!(answer.expect("it still waits").unwrap().status(), 408);
    // The connection is good for other streams.
    let other = Request::get("http://a/").body(Sends::Nothing).unwrap();
    let answer = sender.send_request(other).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn http2_answers_without_a_body_end_at_once_whatever_their_length() {
    let endpoint = Endpoint::start(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let status = match head.split(' ').nth(1) {
                Some("/304") => "304 Not Modified",
                Some("/204") => "204 No Content\r\nX: y",
                _ => "200 OK",
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let io = TcpStream::connect(proxy.http).await.unwrap();
    let (mut sender, _connection) = http2(io).await;
    for (method, path, status, length) in [
        ("HEAD", "/", 200, Some("5")),
        ("HEAD", "/304", 304, Some("5")),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/", 200, Some("5")),
        // Last: after a length with 204 the connection is not used again.
        ("GET", "/204", 204, None),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://a{path}"))
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = timeout(LIMIT, sender.send_request(request)).await;
        let answer = answer.expect("no answer").unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        let own = answer.headers().get("content-length");
        assert_eq!(
            own.map(|own| own.to_str().unwrap()),
            length,
            "{method} {path}"
        );
        let body = timeout(LIMIT, answer.into_body().collect()).await;
        let body = body.expect("no end").unwrap().to_bytes();
        assert_eq!(body, "", "{method} {path}");
    }
    // Nothing was left on the way: one connection did for all.
    let connects = proxy.metric("forebay_upstream_connects_total{worker=\"0\"}");
    assert_eq!(connects, 1);
}

#[test]
fn an_endpoint_that_says_that_it_works_is_waited_for() {
    let endpoint = Endpoint::start(|_, mut stream| {
        read_head(&mut stream);
        for _ in 0..4 {
            stream
                .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
                .unwrap();
            std::thread::sleep(BRIEF / 2);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        // The proxy may have given up.
        let _ = stream.write_all(answer);
    });
    let policy = read_timeout(BRIEF);
    let proxy = Proxy::start(&cluster(&[endpoint.address], policy));
    let mut wire = Wire::connect(proxy.http);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses: Vec<_> = (0..5).map(|_| wire.head().status).collect();
    assert_eq!(statuses, [102, 102, 102, 102, 200]);
}

#[test]
fn what_follows_interim_responses_that_the_client_has_not_taken_does_not_cut_them() {
    const REQUESTS: usize = 400;
    let (asked, is_asked) = mpsc::channel();
    let hint = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(950)
    );
    let endpoint = Endpoint::start(move |_, mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(hint.repeat(30).as_bytes());
        // They are on their way when the end comes, without a final answer: 502 is the proxy's own.
        std::thread::sleep(Duration::from_millis(5));
        let _ = asked.send(());
    });
    let proxy = Proxy::start(&Cluster::of(&[endpoint.address]));
    let mut wire = Wire::connect(proxy.http);
    wire.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS));
    // Until no more fits on the way to the client, or all are answered.
    while is_asked.recv_timeout(BRIEF).is_ok() {}
    let mut answered = 0;
    while answered < REQUESTS {
        let head = wire.head();
        match head.status {
            103 => assert_eq!(head.header("link").len(), 950),
            502 => wire.body(&head, |_| answered += 1),
            other => panic!("{other}"),
        }
    }
}
