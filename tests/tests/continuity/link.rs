//! What an agent and a proxy do to each other at the link: after restarts, and taken over.

use std::{
    io::{IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use ingress_lab::{
    client::curl,
    eventually,
    forebay::{Forebay, Launch},
    lab::PLAIN_HOST,
    origin::Origin,
};
use ingress_model::{
    Transport,
    wire::{self, FromProxy, Place},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

use crate::{clients::Clients, pair::Pair, site::Site};

fn pods() -> [Origin; 2] {
    ["s1-a", "s2-a"].map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap())
}

fn site([s1, s2]: &[Origin; 2]) -> Site {
    Site::new(&[("s1", "s1-a", s1.address()), ("s2", "s2-a", s2.address())])
}

fn get(http: SocketAddr) -> u16 {
    let url = format!("http://{http}/");
    let host = format!("Host: {PLAIN_HOST}");
    curl(&["--max-time", "5", "-H", &host, &url])
        .unwrap()
        .status
}

/// Another proxy for the agent of `pair`.
fn proxy(pair: &Pair, workers: &str) -> Launch {
    Launch::of("proxy", &["--link", pair.link().to_str().unwrap()])
        .args(&["--metrics", "off", "--workers", workers])
        .args(&["--lame-duck", "2s"])
        .args(&["--state-dir", pair.state().to_str().unwrap()])
}

fn loses_its_proxy(pair: &mut Pair) {
    pair.proxy.kill();
    eventually("the agent has no proxy", || {
        pair.agent.status().unwrap()["proxy"] == "away"
    });
}

/// A proxy that a client has taken over.
struct Hostile(UnixStream);

impl Hostile {
    fn connect(pair: &Pair) -> Self {
        let stream = UnixStream::connect(pair.link()).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        Self(stream)
    }

    fn pass(&self, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        let frame = [0, 0, 0, 0, 2];
        let data = [IoSlice::new(&frame)];
        let sent = sendmsg(&self.0, &data, &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }

    fn say(&mut self, message: &FromProxy) {
        let body = wire::write(message).unwrap();
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let frame = [&length[..], &[0], &body].concat();
        self.0.write_all(&frame).unwrap();
    }

    fn hello(&mut self, workers: u16, sockets: Vec<Place>) {
        self.say(&FromProxy::Hello {
            version: wire::VERSION,
            workers,
            sockets,
        });
    }

    /// The body of the next message; none if the agent has closed the link.
    fn hear(&mut self) -> Vec<u8> {
        let mut header = [0; 5];
        if self.0.read_exact(&mut header).is_err() {
            return Vec::new();
        }
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}

/// Sockets that listen at a port of 127.0.0.1.
fn listeners(address: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", address.port());
    let rows = table.lines().map(|row| row.split_whitespace());
    let rows = rows.filter(|row| {
        let fields: Vec<_> = row.clone().take(4).collect();
        matches!(fields[..], [_, at, _, "0A"] if at == local)
    });
    rows.count()
}

#[test]
fn a_proxy_serves_its_last_good_state_while_its_agent_has_none() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let (http, https) = (pair.proxy.http_addr(), pair.proxy.https_addr());
    pair.agent.kill();
    pair.proxy.kill();
    let kubeconfig = site.path().join("kubeconfig");
    std::fs::write(&kubeconfig, crate::replacement::NOWHERE).unwrap();
    let _agent = Launch::of("agent", &["--link", pair.link().to_str().unwrap()])
        .args(&["--metrics", "off"])
        .args(&["--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(&["--http", &http.to_string(), "--https", &https.to_string()])
        .start_unready()
        .unwrap();
    pair.proxy.restart().unwrap();
    assert_eq!(get(http), 200);
}

#[test]
fn a_proxy_that_comes_back_with_more_workers_has_a_socket_for_each() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let http = pair.proxy.http_addr();
    for (workers, expected) in [("4", 4), ("1", 4), ("5", 5)] {
        loses_its_proxy(&mut pair);
        pair.proxy = proxy(&pair, workers).start().unwrap();
        assert_eq!(listeners(http), expected, "{workers} workers");
        assert_eq!(get(http), 200, "{workers} workers");
    }
}

#[test]
fn an_agent_holds_no_socket_that_it_was_not_to_bind() {
    let pods = pods();
    let site = site(&pods);
    let [http, https] = {
        let pair = Pair::serve(site.path());
        [pair.proxy.http_addr(), pair.proxy.https_addr()]
    };
    let mut pair = Pair::start(site.path(), http, https);
    loses_its_proxy(&mut pair);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut hostile = Hostile::connect(&pair);
    hostile.pass(&[other.as_fd(), other.as_fd()]);
    let place = |is_steered| Place {
        transport: Transport::Plain,
        address,
        is_steered,
    };
    hostile.hello(2, vec![place(false), place(true)]);
    assert!(!hostile.hear().is_empty(), "it is welcome");
    drop(other);
    eventually("nobody holds the socket", || listeners(address) == 0);
}

#[test]
fn sockets_that_a_proxy_hands_over_harm_no_proxy_after_it() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    loses_its_proxy(&mut pair);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let mut hostile = Hostile::connect(&pair);
    hostile.pass(&[connected.as_fd()]);
    hostile.hello(
        2,
        vec![Place {
            transport: Transport::Plain,
            address: connected.local_addr().unwrap(),
            is_steered: false,
        }],
    );
    hostile.hear();
    drop(hostile);
    eventually("the agent has no proxy", || {
        pair.agent.status().unwrap()["proxy"] == "away"
    });
    pair.proxy.restart().unwrap();
    assert_eq!(get(pair.proxy.http_addr()), 200);
}

#[test]
fn a_hello_with_no_or_too_many_workers_is_refused() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    pair.proxy.kill();
    pair.agent.kill();
    pair.agent.restart_unready().unwrap();
    for workers in [0, u16::MAX] {
        eventually("the agent has no proxy", || {
            pair.agent
                .status()
                .is_ok_and(|status| status["proxy"] == "away")
        });
        let mut hostile = Hostile::connect(&pair);
        hostile.hello(workers, Vec::new());
        let answer = hostile.hear();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("workers"), "{workers}: {answer:?}");
    }
    pair.proxy.restart().unwrap();
    assert_eq!(get(pair.proxy.http_addr()), 200);
}

#[test]
fn a_proxy_that_reads_nothing_does_not_stop_the_agent() {
    let pods = pods();
    let site = site(&pods);
    // More than a socket takes.
    let hosts: String = (0..4000)
        .map(|number| {
            format!(
                "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n\
                 metadata: {{name: many-{number}, namespace: lab}}\n\
                 spec: {{rules: [{{host: {number}.many.example, http: {{paths: [{{path: /, \
                 pathType: Prefix, backend: {{service: {{name: s1, port: {{number: 80}}}}}}}}]}}}}]}}\n"
            )
        })
        .collect();
    site.write("many.yaml", &hosts);
    let mut pair = Pair::serve(site.path());
    loses_its_proxy(&mut pair);
    let mut deaf = Hostile::connect(&pair);
    deaf.hello(2, Vec::new());
    eventually("the agent has more to say than is read", || {
        rustix::io::ioctl_fionread(&deaf.0).unwrap() > 100_000
    });
    let mut other = Hostile::connect(&pair);
    other.hello(2, Vec::new());
    let answer = other.hear();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("it has another proxy"), "{answer:?}");
    drop(deaf);
    eventually("the agent has no proxy", || {
        pair.agent.status().unwrap()["proxy"] == "away"
    });
    pair.proxy.restart().unwrap();
    assert_eq!(get(pair.proxy.http_addr()), 200);
}

#[test]
fn a_socket_that_lingers_does_not_stop_the_agent() {
    let pods = pods();
    let site = site(&pods);
    let pair = Pair::serve(site.path());
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connected = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    connected.set_nonblocking(true).unwrap();
    // Nobody reads it: the last close waits until somebody does.
    while connected.write(&[0; 65536]).is_ok() {}
    sockopt::set_socket_linger(&connected, Some(Duration::from_secs(600))).unwrap();
    let mut hostile = Hostile::connect(&pair);
    hostile.pass(&[connected.as_fd()]);
    drop(connected);
    // Not what begins: the agent lets go of everything.
    hostile.say(&FromProxy::Closed);
    assert_eq!(hostile.hear(), b"");
    let (code, _) = pair.agent.ask("/readyz").unwrap();
    assert_eq!(code, 200);
}

#[test]
fn a_proxy_that_asks_for_whole_states_without_end_gets_few() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    loses_its_proxy(&mut pair);
    let mut hostile = Hostile::connect(&pair);
    hostile.hello(2, Vec::new());
    let begun = std::time::Instant::now();
    let mut frames = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        hostile.say(&FromProxy::Resync);
        // Descriptors, the welcome, then nothing but states.
        assert!(!hostile.hear().is_empty() || frames < 3, "the link is open");
        frames += 1;
    }
    assert!((5..=20).contains(&frames), "{frames} frames");
}

#[test]
fn an_agent_that_came_back_beside_a_successor_offers_its_sockets_once_that_is_gone() {
    let pods = pods();
    let site = site(&pods);
    let mut running = Pair::serve(site.path());
    let (http, https) = (running.proxy.http_addr(), running.proxy.https_addr());
    let kubeconfig = site.path().join("kubeconfig");
    std::fs::write(&kubeconfig, crate::replacement::NOWHERE).unwrap();
    let stuck = Pair::of(&["--kubeconfig", kubeconfig.to_str().unwrap()], http, https);
    stuck.agent.wait_for("a proxy is there").unwrap();
    let degraded = |agent: &Forebay| agent.status().unwrap()["data_plane"]["degraded"].clone();
    running.agent.kill();
    running.agent.restart_unready().unwrap();
    running.agent.wait_for("a proxy is there").unwrap();
    // The other has its doors, and answers nobody before it serves.
    let why = degraded(&running.agent);
    let why = why.as_str().unwrap_or_default();
    assert!(why.contains("cannot offer the sockets"), "{why:?}");
    drop(stuck);
    eventually("it has doors of its own", || {
        degraded(&running.agent).is_null()
    });
    let clients = Clients::start(http, https, &site.ca());
    let _successor = Pair::start(site.path(), http, https);
    assert_eq!(running.end(), (Some(0), Some(0)));
    clients.expect_no_loss();
}
