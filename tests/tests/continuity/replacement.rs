//! One process takes the place of another.

use std::{
    fs::Permissions,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr as UnixAddr, UnixListener},
        },
    },
    time::{Duration, Instant},
};

use ingress_lab::{
    client::curl, eventually, forebay::Launch, lab::PLAIN_HOST, origin::Origin, skipped,
};
use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};

use crate::{clients::Clients, site::Site};

/// How often a process is replaced; `FOREBAY_REPLACEMENTS` asks for more.
const REPLACEMENTS: usize = 5;

/// Two pods, which serve the lab's Services.
fn pods() -> [Origin; 2] {
    ["s1-a", "s2-a"].map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap())
}

fn site([s1, s2]: &[Origin; 2]) -> Site {
    Site::new(&[("s1", "s1-a", s1.address()), ("s2", "s2-a", s2.address())])
}

#[test]
fn replacements_of_the_process_lose_no_request_of_any_kind() {
    let replacements =
        std::env::var("FOREBAY_REPLACEMENTS").map_or(REPLACEMENTS, |count| count.parse().unwrap());
    let pods = pods();
    let site = site(&pods);
    let mut running = site.serve();
    let (http, https) = (running.http_addr(), running.https_addr());
    let clients = Clients::start(http, https, &site.ca());
    // More workers than before, as many, and fewer; before the old process hears that it is to end,
    // and after.
    let turns = [
        ("3", true),
        ("3", false),
        ("1", true),
        ("2", false),
        ("2", true),
    ];
    for (workers, surges) in turns.into_iter().cycle().take(replacements) {
        let successor = site.beside(http, https, &["--workers", workers]);
        let successor = if surges {
            let successor = successor.start().unwrap();
            running.terminate().unwrap();
            successor
        } else {
            running.terminate().unwrap();
            successor.start().unwrap()
        };
        let status = running.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", running.log_text());
        running = successor;
    }
    clients.expect_no_loss();
}

#[test]
fn a_successor_that_never_serves_costs_no_request() {
    let pods = pods();
    let site = site(&pods);
    let running = site.serve();
    let (http, https) = (running.http_addr(), running.https_addr());
    let clients = Clients::start(http, https, &site.ca());
    for _ in 0..2 {
        // It waits for the API server, which is not there.
        let kubeconfig = site.path().join("kubeconfig");
        std::fs::write(&kubeconfig, NOWHERE).unwrap();
        let (http, https) = (http.to_string(), https.to_string());
        let mut stuck = Launch::new(&["--http", &http, "--https", &https])
            .args(&["--kubeconfig", kubeconfig.to_str().unwrap()])
            .start_unready()
            .unwrap();
        stuck.wait_for("listening").unwrap();
        let goal = pods[0].requests() + 2_000;
        eventually("the load goes on", || pods[0].requests() >= goal);
        stuck.kill();
    }
    clients.expect_no_loss();
}

pub(crate) const NOWHERE: &str = "\
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
";

#[test]
fn a_process_of_another_user_gets_no_socket_and_takes_none() {
    if !rustix::process::geteuid().is_root() {
        return skipped("another user needs root");
    }
    const STRANGER: [&str; 5] = ["setpriv", "--reuid", "65534", "--clear-groups", "--"];
    let pods = pods();
    let site = site(&pods);
    // The stranger reads it too.
    let readable = Permissions::from_mode(0o755);
    std::fs::set_permissions(site.path(), readable).unwrap();
    let running = site.serve();
    let (http, https) = (running.http_addr(), running.https_addr());
    let mut stranger = site
        .beside(http, https, &[])
        .wrapped_by(&STRANGER)
        .start_unready()
        .unwrap();
    // The kernel refuses it the port too.
    assert_eq!(stranger.wait().unwrap().code(), Some(2));
    assert!(
        stranger.log_text().contains("belongs to user 0"),
        "{}",
        stranger.log_text()
    );
    running
        .wait_for("cannot pass the listening sockets to the successor")
        .unwrap();
}

#[test]
fn a_process_that_cannot_be_replaced_without_loss_says_so_and_serves() {
    let pods = pods();
    let site = site(&pods);
    let (port, _reserved) = reserve();
    let _squatter = squat(port);
    let forebay = site
        .beside(port, ([127, 0, 0, 1], 0).into(), &[])
        .start()
        .unwrap();
    let status = forebay.status().unwrap();
    let degraded = status["data_plane"]["degraded"]
        .as_str()
        .unwrap_or_default();
    assert!(degraded.contains("cannot offer the sockets"), "{status}");
    let answer = curl(&[
        "-H",
        &format!("Host: {PLAIN_HOST}"),
        &format!("http://{port}/"),
    ]);
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn a_process_that_passes_on_some_of_its_sockets_is_not_replaced() {
    let pods = pods();
    let site = site(&pods);
    let (port, _reserved) = reserve();
    let squatter = squat(port);
    let mut running = site
        .beside(port, ([127, 0, 0, 1], 0).into(), &[])
        .start()
        .unwrap();
    drop(squatter);
    let _successor = site
        .beside(port, running.https_addr(), &[])
        .start()
        .unwrap();
    running.terminate().unwrap();
    running.wait().unwrap();
    let log = running.log();
    let end = log
        .iter()
        .find(|line| line["replaced"].is_boolean())
        .unwrap();
    assert_eq!(end["replaced"], false, "{end}");
}

#[test]
fn a_process_that_does_not_serve_yet_passes_its_sockets_on() {
    let pods = pods();
    let site = site(&pods);
    let (port, _reserved) = reserve();
    // It waits for the API server, which is not there.
    let kubeconfig = site.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NOWHERE).unwrap();
    let stuck = Launch::new(&["--http", &port.to_string(), "--https", "127.0.0.1:0"])
        .args(&["--kubeconfig", kubeconfig.to_str().unwrap()])
        .start_unready()
        .unwrap();
    stuck.wait_for("listening").unwrap();
    let successor = site
        .beside(port, ([127, 0, 0, 1], 0).into(), &[])
        .start()
        .unwrap();
    let status = successor.status().unwrap();
    assert!(status["data_plane"]["degraded"].is_null(), "{status}");
    let answer = curl(&[
        "-H",
        &format!("Host: {PLAIN_HOST}"),
        &format!("http://{port}/"),
    ]);
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn a_worker_without_connections_accepts_while_another_has_some() {
    let pods = pods();
    let site = site(&pods);
    let mut running = Launch::manifests(site.path())
        .args(&["--workers", "2"])
        .args(&["--shutdown-grace", "6s", "--lame-duck", "4s"])
        .start()
        .unwrap();
    // Keeps one of the workers busy.
    let _socket = websocket(running.http_addr());
    let begun = Instant::now();
    running.terminate().unwrap();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        let mut client = TcpStream::connect(running.http_addr()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        write!(
            client,
            "GET / HTTP/1.1\r\nHost: {PLAIN_HOST}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer);
        assert!(
            end.is_ok() && answer.starts_with(b"HTTP/1.1 200 "),
            "{asked} answered, then {end:?} after {:?}",
            begun.elapsed()
        );
        asked += 1;
    }
    running.kill();
}

#[test]
fn an_address_that_is_given_twice_is_served_once() {
    let pods = pods();
    let site = site(&pods);
    let port = site.serve().http_addr().to_string();
    let forebay = Launch::new(&["--http", &port, "--http", &port, "--https", "127.0.0.1:0"])
        .args(&["--manifests", site.path().to_str().unwrap()])
        .start()
        .unwrap();
    let status = forebay.status().unwrap();
    assert!(status["data_plane"]["degraded"].is_null(), "{status}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 2, "{status}");
}

#[test]
fn a_websocket_outlives_its_process_until_the_grace_ends() {
    const GRACE: Duration = Duration::from_secs(2);
    let pods = pods();
    let site = site(&pods);
    let mut running = Launch::manifests(site.path())
        .args(&["--shutdown-grace", "2s", "--lame-duck", "1s"])
        .start()
        .unwrap();
    let mut socket = websocket(running.http_addr());
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

/// A WebSocket through the proxy to a pod that sends back what it gets.
fn websocket(proxy: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(proxy).unwrap();
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
    socket
}

/// Keeps a port for whoever shares it, and takes no connection.
fn reserve() -> (SocketAddr, OwnedFd) {
    let reserved = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseport(&reserved, true).unwrap();
    rustix::net::bind(&reserved, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = getsockname(&reserved).unwrap().try_into().unwrap();
    (address, reserved)
}

/// Takes the name at which the process that serves HTTP at `address` waits for its successor.
fn squat(address: SocketAddr) -> UnixListener {
    let name = UnixAddr::from_abstract_name(format!("forebay/1/http/{address}")).unwrap();
    UnixListener::bind_addr(&name).unwrap()
}
