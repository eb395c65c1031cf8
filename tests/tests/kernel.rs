//! The kernel programs in a real kernel: frame by frame in test runs, then attached in a network namespace.

#![expect(clippy::unwrap_used, reason = "a test may end so, in its own functions too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use aya::maps::{Array, MapData};
use ingress_ebpf::fixtures::{World, cases, outcome};
use ingress_tests::{
    eventually,
    lab::{self, Namespace},
    programs::Programs,
    skipped,
};
use ingress_userspace::kernel::{Dataplane, Forward, KernelError, Reason, Settings, WorkerSockets, XdpMode, object};

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

#[test]
fn steer_does_with_each_case_what_the_table_says() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, false).unwrap();
    for case in cases(&world) {
        let before = programs.counters().unwrap();
        let run = programs.run("steer", &case.frame, 1).unwrap();
        let after = programs.counters().unwrap();
        let grown: Vec<_> =
            before.iter().zip(&after).filter(|(b, a)| a.1 != b.1).map(|(b, a)| (a.0, a.1 - b.1)).collect();
        assert_eq!(run.action, case.expected.action, "{}", case.name);
        assert_eq!(run.frame, case.expected.frame, "{}", case.name);
        assert_eq!(grown, [(case.expected.reason, 1)], "{}", case.name);
    }
}

#[test]
fn steer_does_with_a_frame_cut_anywhere_what_the_host_does() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, false).unwrap();
    for case in cases(&world) {
        // The kernel runs no frame without an Ethernet header.
        for length in 14..case.frame.len().min(160) {
            let frame = &case.frame[..length];
            let expected = outcome(&world, frame);
            let run = programs.run("steer", frame, 1).unwrap();
            assert_eq!((run.action, &run.frame), (expected.action, &expected.frame), "{} cut to {length}", case.name);
        }
    }
}

#[test]
fn undoing_puts_each_frame_back_as_it_was() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, true).unwrap();
    for case in cases(&world) {
        let run = programs.run("steer", &case.frame, 3).unwrap();
        assert_eq!((run.action, run.frame), (case.expected.action, case.frame), "{}", case.name);
    }
}

#[test]
fn programs_stay_within_the_verifier_budget() {
    if !can_run() {
        return;
    }
    let programs = Programs::load(&World::new(), false).unwrap();
    let counts = programs.verified_instructions().unwrap();
    println!("verified instructions: {counts:?}");
    assert!(counts.iter().all(|(_, count)| *count > 0 && *count < 20_000), "{counts:?}");
}

fn settings() -> Settings {
    Settings {
        vips: vec![VIP],
        interfaces: vec![],
        mode: XdpMode::Native,
        forward: Forward::Udp,
        node_name: "n1".to_owned(),
        nodes: [("n1".to_owned(), Ipv4Addr::new(198, 18, 0, 11))].into(),
        pin_dir: PINS.into(),
    }
}

/// Runs a future on the calling thread, and so in its network namespace.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A machine whose loopback interface is up, as Linux hosts have it.
fn machine(name: &str) -> Namespace {
    let namespace = Namespace::new(name).unwrap();
    namespace.up("lo").unwrap();
    namespace
}

fn install(namespace: &Namespace, settings: Settings) -> Result<(), KernelError> {
    namespace.run(move || block_on(Dataplane::install(&settings)).map(drop))
}

/// Accepts on the first of two sockets that has a connection, and says which it was and who connected.
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

fn count(dataplane: &Dataplane, reason: Reason) -> u64 {
    dataplane.counters().unwrap().into_iter().find(|(found, _)| *found == reason).unwrap().1
}

#[test]
fn assign_gives_each_port_of_a_vip_to_its_workers() {
    if !can_run() {
        return;
    }
    machine("assign").run(|| {
        block_on(async {
            let dataplane = Dataplane::install(&settings()).await.unwrap();
            let sockets = dataplane.bind_listeners(2).unwrap();
            dataplane.register(&sockets).unwrap();
            let mut seen = [0; 2];
            for port in [80, 443].into_iter().cycle().take(40) {
                let mut client = connect(port).unwrap();
                let listeners: Vec<_> =
                    sockets.iter().map(|pair| if port == 80 { &pair.http } else { &pair.https }).collect();
                let (worker, mut server, peer) = accept(&listeners);
                assert_eq!(peer, client.local_addr().unwrap(), "the worker sees the client");
                assert_eq!(server.local_addr().unwrap(), (VIP, port).into(), "the worker sees the VIP");
                server.set_nonblocking(false).unwrap();
                client.write_all(b"ping").unwrap();
                let mut bytes = [0; 4];
                server.read_exact(&mut bytes).unwrap();
                assert_eq!(&bytes, b"ping");
                seen[worker] += 1;
            }
            assert!(seen.iter().all(|count| *count > 0), "connections of each worker: {seen:?}");
            assert_eq!(count(&dataplane, Reason::Assigned), 40);
        });
    });
}

#[test]
fn a_vip_never_leads_to_another_socket_of_the_host() {
    if !can_run() {
        return;
    }
    machine("closed").run(|| {
        block_on(async {
            let dataplane = Dataplane::install(&settings()).await.unwrap();
            let everywhere = TcpListener::bind("0.0.0.0:22").unwrap();
            let web = TcpListener::bind("0.0.0.0:80").unwrap();
            assert!(TcpStream::connect("127.0.0.1:22").is_ok(), "other addresses are left alone");
            assert!(connect(22).is_err(), "port 22 of the VIP is closed");
            assert!(connect(80).is_err(), "port 80 of the VIP has no worker yet");
            assert!(count(&dataplane, Reason::ClosedPort) > 0);
            assert!(count(&dataplane, Reason::NoListener) > 0);
            drop((everywhere, web));
        });
    });
}

#[test]
fn new_sockets_take_over_at_once_and_old_connections_stay() {
    if !can_run() {
        return;
    }
    machine("handover").run(|| {
        block_on(async {
            let first = Dataplane::install(&settings()).await.unwrap();
            let old: Vec<WorkerSockets> = first.bind_listeners(1).unwrap();
            first.register(&old).unwrap();
            let mut client = connect(80).unwrap();
            let (_, mut server, _) = accept(&[&old[0].http]);
            server.set_nonblocking(false).unwrap();

            // As a second process would: the same pins, sockets of its own.
            let second = Dataplane::install(&settings()).await.unwrap();
            let new = second.bind_listeners(1).unwrap();
            second.register(&new).unwrap();
            let _another = connect(80).unwrap();
            let (index, ..) = accept(&[&old[0].http, &new[0].http]);
            assert_eq!(index, 1, "new connections go to the new socket");
            drop((first, old));

            client.write_all(b"still").unwrap();
            let mut bytes = [0; 5];
            server.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"still");
            assert_eq!(count(&second, Reason::Assigned), 2, "counters outlive the process");
        });
    });
}

#[test]
fn a_pin_of_another_layout_is_refused() {
    if !can_run() {
        return;
    }
    let namespace = Namespace::new("layout").unwrap();
    namespace.run(|| {
        std::fs::create_dir_all(format!("{PINS}/v1")).unwrap();
        let other = Array::<MapData, u64>::create(7, 0).unwrap();
        other.pin(format!("{PINS}/v1/SELF")).unwrap();
    });
    match install(&namespace, settings()) {
        Err(KernelError::Layout { path, field, found, expected }) => {
            assert_eq!(path, PathBuf::from(format!("{PINS}/v1/SELF")));
            assert_eq!((field, found, expected), ("value size", 8, 48));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pins_outside_a_bpffs_are_refused() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { pin_dir: directory.path().join("pins"), ..settings() };
    let namespace = Namespace::new("bpffs").unwrap();
    assert!(matches!(install(&namespace, settings), Err(KernelError::NotBpffs(_))));
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn a_restart_updates_the_links_and_a_new_mode_replaces_them() {
    if !can_run() {
        return;
    }
    let (node, router) = (Namespace::new("node").unwrap(), Namespace::new("router").unwrap());
    node.veth("up0.7", &router, "up1").unwrap();
    node.up("up0.7").unwrap();
    let on = |mode| Settings { interfaces: vec!["up0.7".to_owned()], mode, ..settings() };
    let programs = || {
        let dump = node.run(|| std::process::Command::new("ip").args(["-d", "link", "show", "up0.7"]).output());
        String::from_utf8(dump.unwrap().stdout).unwrap()
    };
    let id = |dump: &str| dump.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);

    install(&node, on(XdpMode::Native)).unwrap();
    let first = programs();
    assert!(first.contains(" xdp ") && !first.contains("xdpgeneric"), "{first}");
    install(&node, on(XdpMode::Native)).unwrap();
    let second = programs();
    assert_ne!(id(&first), id(&second), "the program was replaced");
    install(&node, on(XdpMode::Generic)).unwrap();
    assert!(programs().contains("xdpgeneric"), "{}", programs());
}

#[test]
fn another_xdp_program_on_the_interface_is_left_alone() {
    if !can_run() {
        return;
    }
    let (node, router) = (Namespace::new("taken").unwrap(), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    let _other = node.accept_xdp_frames("up0").unwrap();
    let settings = Settings { interfaces: vec!["up0".to_owned()], ..settings() };
    match install(&node, settings) {
        Err(KernelError::OtherXdp(interface)) => assert_eq!(interface, "up0"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_cannot_work_are_named() {
    if !can_run() {
        return;
    }
    let namespace = Namespace::new("settings").unwrap();
    let nowhere = Settings { interfaces: vec!["nowhere".to_owned()], ..settings() };
    assert!(matches!(install(&namespace, nowhere), Err(KernelError::NoInterface(name)) if name == "nowhere"));
    let stranger = Settings { node_name: "n9".to_owned(), ..settings() };
    assert!(matches!(install(&namespace, stranger), Err(KernelError::Settings(_))));
}
