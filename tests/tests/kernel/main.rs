//! The kernel programs in a real kernel.
//!
//! `frames`: one by one in test runs. `assign`: connections on a machine of the lab. `install`:
//! pins, links, restarts. `takeover`: what a process that fails, hangs or wants something else does
//! to the one that serves. `neighbours`: the kernel's table of them. `second_chance`: frames and the
//! sockets of a machine. `announce`: who asks a machine for a virtual IP.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end so, in its own functions too"
)]

mod announce;
mod assign;
mod frames;
mod install;
mod neighbours;
mod second_chance;
mod takeover;

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use ingress_agent::{
    kernel::{
        Announce, Forward, IpVersion, KernelError, KernelPart, NodeSettings, Reason, Sockets,
        XdpMode, object,
    },
    membership::Membership,
};
use ingress_lab::{
    eventually,
    lab::{self, Namespace},
    skipped,
};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PINS: &str = "/sys/fs/bpf/forebay-test";

/// Whether the machine lets the tests load programs; says so if not.
fn can_run() -> bool {
    let reason = match (lab::available(), object()) {
        (Err(reason), _) => reason,
        (Ok(()), None) => "built without the kernel object (cargo xtask build-ebpf)".to_owned(),
        (Ok(()), Some(_)) => return true,
    };
    skipped(&reason);
    false
}

fn settings() -> NodeSettings {
    NodeSettings {
        vips: vec![VIP.into()],
        interfaces: vec![],
        mode: XdpMode::Native,
        forward: Forward::Udp,
        announce: Announce::None,
        node_name: "n1".to_owned(),
        membership: Membership::fixed([("n1".to_owned(), Ipv4Addr::new(198, 18, 0, 11))].into()),
        hash_seed: 1,
        pin_dir: PINS.into(),
    }
}

/// Runs a future on the calling thread, and so in its network namespace.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A machine whose loopback interface is up, as Linux hosts have it.
fn machine(name: &str) -> Namespace {
    let namespace = Namespace::new(name).unwrap();
    namespace.up("lo").unwrap();
    namespace
}

/// Sockets of so many workers for virtual IPs of IPv4.
fn v4(kernel_part: &KernelPart, workers: usize) -> Sockets {
    Sockets {
        four: kernel_part.bind_listeners(workers, IpVersion::V4).unwrap(),
        six: Vec::new(),
    }
}

/// Prepares and goes live without a worker.
fn install(namespace: &Namespace, settings: NodeSettings) -> Result<(), KernelError> {
    namespace.run(move || {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings).await?;
            kernel_part.go_live(&Sockets::default()).await
        })
    })
}

/// Accepts on the first of two sockets that has a connection, and says which it was and who
/// connected.
fn accept(sockets: &[&TcpListener]) -> (usize, TcpStream, SocketAddr) {
    let mut accepted = None;
    eventually("a worker's socket has the connection", || {
        for (index, socket) in sockets.iter().enumerate() {
            match socket.accept() {
                Ok((stream, peer)) => accepted = Some((index, stream, peer)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        accepted.is_some()
    });
    accepted.unwrap()
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&(VIP, port).into(), Duration::from_millis(300))
}

fn count(kernel_part: &KernelPart, reason: Reason) -> u64 {
    kernel_part
        .counters()
        .unwrap()
        .into_iter()
        .find(|(found, _)| *found == reason)
        .unwrap()
        .1
}
