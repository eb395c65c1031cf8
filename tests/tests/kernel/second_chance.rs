//! `steer` and the sockets of a machine: which connections are here, and what becomes of the others.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use ingress_ebpf::{
    abi::{CHANCES, CHANCES_SHIFT},
    fixtures::{
        Action, Owner, VIP, VIP6, World,
        packet::{CLIENT, CLIENT6, Packet},
    },
    reason::Reason,
};
use ingress_lab::{
    programs::{Programs, undoing_object},
    skipped,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{can_run, machine};

/// A machine that has the client's and the virtual addresses, so that connections are its own.
fn with_addresses(test: impl FnOnce() + Send + 'static) {
    machine("chances").run(move || {
        for address in [
            CLIENT.into(),
            VIP.into(),
            IpAddr::from(CLIENT6),
            VIP6.into(),
        ] {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let arguments = ["addr", "add", &format!("{address}/{length}"), "dev", "lo"];
            let mut command = Command::new("ip");
            command.args(arguments);
            if address.is_ipv6() {
                command.arg("nodad");
            }
            assert!(command.status().unwrap().success(), "{command:?}");
        }
        test();
    });
}

/// Connects from a port of the client's.
fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn a_connection_that_is_here_stays_and_any_other_goes_to_the_next_hop() {
    if !can_run() {
        return;
    }
    with_addresses(|| {
        let world = World::new().with_hops([Owner::Udp, Owner::Six]);
        let programs = Programs::load(&world).unwrap();
        for base in [Packet::default(), Packet::default().six()] {
            let port = world.port_owned_by(base.source, Owner::Own);
            let packet = Packet {
                source_port: port,
                ..base.clone()
            };
            let steered = || {
                let before = programs.counters().unwrap();
                let run = programs.run("steer", &packet.bytes(), 1).unwrap();
                let after = programs.counters().unwrap();
                let grown = before.iter().zip(&after).find(|(b, a)| b.1 != a.1);
                (run.action, grown.unwrap().0.0)
            };
            let away = (Action::Transmit, Reason::SecondChance);
            let here = (Action::Pass, Reason::Own);
            assert_eq!(steered(), away, "nobody listens");
            let listener = TcpListener::bind((base.destination, 443)).unwrap();
            assert_eq!(steered(), away, "a listener has no connection");
            let to = (base.destination, 443).into();
            let client = connect((base.source, port).into(), to);
            assert_eq!(steered(), here, "it waits to be accepted");
            let (server, _) = listener.accept().unwrap();
            drop(listener);
            assert_eq!(steered(), here);
            // The side that closes last keeps nothing.
            drop(client);
            drop(server);
            assert_eq!(steered(), away, "it has ended");
        }
    });
}

/// Flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP header of 20 bytes, with a checksum: from `ports[0]` to `ports[1]`.
fn segment(ends: [IpAddr; 2], ports: [u16; 2], numbers: [u32; 2], flags: u8) -> Vec<u8> {
    let mut segment = ports.map(u16::to_be_bytes).concat();
    segment.extend(numbers.map(u32::to_be_bytes).concat());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo: Vec<u8> = ends
        .iter()
        .flat_map(|end| match end {
            IpAddr::V4(end) => end.octets().to_vec(),
            IpAddr::V6(end) => end.octets().to_vec(),
        })
        .collect();
    pseudo.extend([0, 6, 0, 20]);
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// Opens a connection by hand and leaves it at that; the number that the listener began with. The
/// client's kernel, which knows of no such connection, answers with a reset, which a listener that
/// keeps nothing does not mind.
fn half_open(client: SocketAddr, server: SocketAddr, number: u32) -> u32 {
    let domain = Domain::for_address(client);
    let mut raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    raw.bind(&SocketAddr::new(client.ip(), 0).into()).unwrap();
    let ends = [client.ip(), server.ip()];
    let syn = segment(ends, [client.port(), server.port()], [number, 0], SYN);
    let to = SocketAddr::new(server.ip(), 0);
    raw.send_to(&syn, &to.into()).unwrap();
    let mut bytes = [0; 256];
    loop {
        let length = raw.read(&mut bytes).unwrap();
        // With its IPv4 header, but without one of IPv6.
        let header = if client.is_ipv4() { 20 } else { 0 };
        let segment = &bytes[header..length];
        let ports = [server.port(), client.port()]
            .map(u16::to_be_bytes)
            .concat();
        if segment[..4] == ports && segment[13] == SYN | ACK {
            return u32::from_be_bytes(segment[4..8].try_into().unwrap());
        }
    }
}

#[test]
fn the_last_segment_of_a_handshake_stays_where_its_cookie_is_from() {
    if !can_run() {
        return;
    }
    with_addresses(|| {
        // Always, and not only for want of room.
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        let world = World::new().with_hops([Owner::Udp, Owner::Six]);
        let programs = Programs::load(&world).unwrap();
        for base in [Packet::default(), Packet::default().six()] {
            let port = world.port_owned_by(base.source, Owner::Own);
            let packet = Packet {
                source_port: port,
                payload: vec![],
                ..base.clone()
            };
            let server = SocketAddr::new(base.destination, 443);
            let _listener = TcpListener::bind(server).unwrap();
            let number = half_open((base.source, port).into(), server, 1000);
            let acknowledged = |number: u32, flags| {
                let mut frame = packet.bytes();
                let at = packet.transport_at();
                frame[at + 4..at + 8].copy_from_slice(&1001_u32.to_be_bytes());
                frame[at + 8..at + 12].copy_from_slice(&number.to_be_bytes());
                frame[at + 13] = flags;
                programs.run("steer", &frame, 1).unwrap().action
            };
            let next = number.wrapping_add(1);
            assert_eq!(acknowledged(next, ACK), Action::Pass, "{base:?}");
            assert_eq!(acknowledged(next ^ 1 << 20, ACK), Action::Transmit);
            let reset = 0x04;
            assert_eq!(acknowledged(next, ACK | reset), Action::Transmit);
        }
    });
}

#[test]
fn a_flood_of_packets_without_connections_is_sent_on_no_faster_than_the_limit() {
    if !can_run() {
        return;
    }
    if !undoing_object().exists() {
        return skipped("no object that undoes (cargo xtask test builds it)");
    }
    with_addresses(|| {
        const FLOOD: u32 = 2_000_000;
        let world = World::new().with_hops([Owner::Udp, Owner::Six]);
        let programs = Programs::load_undoing(&world).unwrap();
        let base = Packet::default();
        let packet = Packet {
            source_port: world.port_owned_by(base.source, Owner::Own),
            ..base
        };
        let began = Instant::now();
        programs.run("steer", &packet.bytes(), FLOOD).unwrap();
        // One that begins before and one that ends after.
        let windows = (began.elapsed().as_nanos() >> CHANCES_SHIFT) as u64 + 2;
        let counters = programs.counters().unwrap();
        let of = |wanted| counters.iter().find(|(reason, _)| *reason == wanted);
        let [sent, dropped] =
            [Reason::SecondChance, Reason::NoChance].map(|reason| of(reason).unwrap().1);
        println!("{sent} sent on, {dropped} dropped in {windows} windows");
        assert_eq!(sent + dropped, u64::from(FLOOD));
        // A test run may change the CPU between two of its parts.
        let cpus = std::thread::available_parallelism().unwrap().get() as u64;
        assert!(sent <= windows * CHANCES * cpus, "{sent} in {windows}");
        assert!(sent >= CHANCES, "{sent}");
    });
}

#[test]
fn a_look_for_a_connection_is_counted_as_no_connection() {
    if !can_run() {
        return;
    }
    with_addresses(|| {
        let world = World::new().with_hops([Owner::Udp, Owner::Six]);
        let mut programs = Programs::load(&world).unwrap();
        programs.attach_assign().unwrap();
        for base in [Packet::default(), Packet::default().six()] {
            let packet = Packet {
                source_port: world.port_owned_by(base.source, Owner::Own),
                ..base
            };
            let before = programs.counters().unwrap();
            let run = programs.run("steer", &packet.bytes(), 1).unwrap();
            assert_eq!(run.action, Action::Transmit);
            let after = programs.counters().unwrap();
            let grown = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1);
            let grown: Vec<_> = grown.map(|(_, after)| after.0).collect();
            assert_eq!(grown, [Reason::SecondChance]);
        }
    });
}
