//! One process takes the place of another.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use ingress_lab::{
    eventually,
    forebay::{Forebay, Launch},
    lab::{PLAIN_HOST, write_manifests},
    origin::Origin,
};
use tempfile::TempDir;

use crate::clients::Clients;

/// How often a process is replaced; `FOREBAY_REPLACEMENTS` asks for more.
const REPLACEMENTS: usize = 4;

/// What a process serves: two pods.
struct Site {
    folder: TempDir,
    pods: [Origin; 2],
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let pods =
            ["s1-a", "s2-a"].map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap());
        let [s1, s2] = &pods;
        write_manifests(
            folder.path(),
            &[("s1", "s1-a", s1.address()), ("s2", "s2-a", s2.address())],
        )
        .unwrap();
        Self { folder, pods }
    }

    /// The first process, on ports that the kernel picks.
    fn first(&self) -> Forebay {
        Launch::manifests(self.folder.path())
            .args(&["--workers", "2"])
            .start()
            .unwrap()
    }

    /// One more process on the ports of another.
    fn beside(&self, http: SocketAddr, https: SocketAddr, args: &[&str]) -> Launch {
        let (http, https) = (http.to_string(), https.to_string());
        let folder = self.folder.path().to_str().unwrap();
        Launch::new(&["--http", &http, "--https", &https])
            .args(&["--admin", "127.0.0.1:0", "--manifests", folder])
            .args(args)
    }

    fn ca(&self) -> impl AsRef<Path> {
        self.folder.path().join("ca.crt")
    }
}

#[test]
fn replacements_of_the_process_lose_no_request_of_any_kind() {
    let replacements =
        std::env::var("FOREBAY_REPLACEMENTS").map_or(REPLACEMENTS, |count| count.parse().unwrap());
    let site = Site::new();
    let mut running = site.first();
    let (http, https) = (running.http_addr(), running.https_addr());
    let clients = Clients::start(http, https, site.ca().as_ref());
    // More workers than before, as many, and fewer.
    for workers in ["3", "3", "1", "2"].iter().cycle().take(replacements) {
        let successor = site
            .beside(http, https, &["--workers", workers])
            .start()
            .unwrap();
        running.terminate().unwrap();
        let status = running.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", running.log_text());
        running = successor;
    }
    clients.expect_no_loss();
}

#[test]
fn a_successor_that_never_serves_costs_no_request() {
    let site = Site::new();
    let running = site.first();
    let (http, https) = (running.http_addr(), running.https_addr());
    let clients = Clients::start(http, https, site.ca().as_ref());
    for _ in 0..2 {
        // It waits for the API server, which is not there.
        let kubeconfig = site.folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, NOWHERE).unwrap();
        let (http, https) = (http.to_string(), https.to_string());
        let mut stuck = Launch::new(&["--http", &http, "--https", &https])
            .args(&[
                "--admin",
                "127.0.0.1:0",
                "--kubeconfig",
                kubeconfig.to_str().unwrap(),
            ])
            .start_unready()
            .unwrap();
        stuck.wait_for("listening").unwrap();
        let goal = site.pods[0].requests() + 2_000;
        eventually("the load goes on", || site.pods[0].requests() >= goal);
        stuck.kill();
    }
    clients.expect_no_loss();
}

const NOWHERE: &str = "\
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
";

#[test]
fn a_websocket_outlives_its_process_until_the_grace_ends() {
    const GRACE: Duration = Duration::from_secs(2);
    let site = Site::new();
    let mut running = Launch::manifests(site.folder.path())
        .args(&["--shutdown-grace", "2s", "--lame-duck", "1s"])
        .start()
        .unwrap();
    let mut socket = TcpStream::connect(running.http_addr()).unwrap();
    write!(
        socket,
        "GET /chat HTTP/1.1\r\nHost: {PLAIN_HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let _successor = site
        .beside(running.http_addr(), running.https_addr(), &[])
        .start()
        .unwrap();
    let end = Instant::now() + GRACE;
    running.terminate().unwrap();
    let mut turns = 0;
    loop {
        let mut back = [0; 4];
        if socket
            .write_all(b"ping")
            .and_then(|()| socket.read_exact(&mut back))
            .is_err()
        {
            break;
        }
        assert_eq!(&back, b"ping");
        turns += 1;
    }
    assert!(Instant::now() >= end, "ended early, after {turns} turns");
    running.wait().unwrap();
}
