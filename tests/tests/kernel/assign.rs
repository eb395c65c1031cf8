//! `assign` in a network namespace: which socket a connection to a VIP meets.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

use ingress_agent::kernel::{KernelPart, Reason, Sockets};

use super::{VIP, accept, block_on, can_run, connect, count, machine, settings, v4};

#[test]
fn assign_gives_each_port_of_a_vip_to_its_workers() {
    if !can_run() {
        return;
    }
    machine("assign").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            let sockets = v4(&kernel_part, 2);
            kernel_part.go_live(&sockets).await.unwrap();
            let mut seen = [0; 2];
            for port in [80, 443].into_iter().cycle().take(40) {
                let mut client = connect(port).unwrap();
                let listeners: Vec<_> = sockets
                    .four
                    .iter()
                    .map(|pair| if port == 80 { &pair.http } else { &pair.https })
                    .collect();
                let (worker, mut server, peer) = accept(&listeners);
                assert_eq!(
                    peer,
                    client.local_addr().unwrap(),
                    "the worker sees the client"
                );
                assert_eq!(
                    server.local_addr().unwrap(),
                    (VIP, port).into(),
                    "the worker sees the VIP"
                );
                server.set_nonblocking(false).unwrap();
                client.write_all(b"ping").unwrap();
                let mut bytes = [0; 4];
                server.read_exact(&mut bytes).unwrap();
                assert_eq!(&bytes, b"ping");
                seen[worker] += 1;
            }
            assert!(
                seen.iter().all(|count| *count > 0),
                "connections of each worker: {seen:?}"
            );
            assert_eq!(count(&kernel_part, Reason::Assigned), 40);
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
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let everywhere = TcpListener::bind("0.0.0.0:22").unwrap();
            let web = TcpListener::bind("0.0.0.0:80").unwrap();
            assert!(
                TcpStream::connect("127.0.0.1:22").is_ok(),
                "other addresses are left alone"
            );
            assert!(connect(22).is_err(), "port 22 of the VIP is closed");
            assert!(connect(80).is_err(), "port 80 of the VIP has no worker yet");
            assert!(count(&kernel_part, Reason::ClosedPort) > 0);
            assert!(count(&kernel_part, Reason::NoListener) > 0);
            drop((everywhere, web));
        });
    });
}

#[test]
fn a_datagram_to_a_vip_never_leads_to_a_socket_of_the_host() {
    if !can_run() {
        return;
    }
    machine("datagrams").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let everywhere = UdpSocket::bind("0.0.0.0:5353").unwrap();
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            // Over loopback they arrive in order, before the calls return.
            for port in [5353, 80] {
                client.send_to(b"stray", (VIP, port)).unwrap();
            }
            client.send_to(b"meant", "127.0.0.1:5353").unwrap();
            let mut bytes = [0; 5];
            everywhere.recv(&mut bytes).unwrap();
            assert_eq!(&bytes, b"meant");
            assert!(count(&kernel_part, Reason::ClosedPort) >= 2);
        });
    });
}

#[test]
fn a_connection_to_a_vip_keeps_its_port_from_no_ordinary_socket() {
    if !can_run() {
        return;
    }
    machine("ports").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            let sockets = v4(&kernel_part, 1);
            kernel_part.go_live(&sockets).await.unwrap();
            let client = connect(80).unwrap();
            let (_, server, _) = accept(&[&sockets.four[0].http]);
            let ordinary = TcpListener::bind("0.0.0.0:80");
            assert!(ordinary.is_ok(), "{ordinary:?}");
            drop((client, server));
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
            let first = KernelPart::prepare(&settings()).await.unwrap();
            let old = v4(&first, 1);
            first.go_live(&old).await.unwrap();
            let mut client = connect(80).unwrap();
            let (_, mut server, _) = accept(&[&old.four[0].http]);
            server.set_nonblocking(false).unwrap();

            // As a second process would: the same pins, sockets of its own.
            let second = KernelPart::prepare(&settings()).await.unwrap();
            let new = v4(&second, 1);
            second.go_live(&new).await.unwrap();
            let _another = connect(80).unwrap();
            let (index, ..) = accept(&[&old.four[0].http, &new.four[0].http]);
            assert_eq!(index, 1, "new connections go to the new socket");
            drop((first, old));

            client.write_all(b"still").unwrap();
            let mut bytes = [0; 5];
            server.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"still");
            assert_eq!(
                count(&second, Reason::Assigned),
                2,
                "counters outlive the process"
            );
        });
    });
}

#[test]
fn the_share_of_a_worker_that_is_gone_goes_to_the_others() {
    if !can_run() {
        return;
    }
    machine("share").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            let mut sockets = v4(&kernel_part, 3);
            kernel_part.go_live(&sockets).await.unwrap();
            // Closing a socket empties its slot.
            drop(sockets.four.remove(1));
            let mut seen = [0; 2];
            for _ in 0..60 {
                let client = connect(80).unwrap();
                let (worker, _, peer) = accept(&[&sockets.four[0].http, &sockets.four[1].http]);
                assert_eq!(peer, client.local_addr().unwrap());
                seen[worker] += 1;
            }
            assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
            assert_eq!(count(&kernel_part, Reason::NoListener), 0);
        });
    });
}

#[test]
fn a_process_that_stops_keeps_what_came_and_leaves_what_comes_to_the_next() {
    if !can_run() {
        return;
    }
    machine("stops").run(|| {
        block_on(async {
            let first = KernelPart::prepare(&settings()).await.unwrap();
            let old = v4(&first, 1);
            first.go_live(&old).await.unwrap();
            let before = connect(80).unwrap();
            assert!(first.stop().unwrap());
            assert!(!first.stop().unwrap(), "it has none to stop");
            assert!(connect(80).is_err(), "nobody listens");
            // It still has what came.
            let (_, server, peer) = accept(&[&old.four[0].http]);
            assert_eq!(peer, before.local_addr().unwrap());
            assert_eq!(count(&first, Reason::NoListener), 1);

            let second = KernelPart::prepare(&settings()).await.unwrap();
            let new = v4(&second, 1);
            second.go_live(&new).await.unwrap();
            let after = connect(80).unwrap();
            let (served, _, peer) = accept(&[&old.four[0].http, &new.four[0].http]);
            assert_eq!((served, peer), (1, after.local_addr().unwrap()));
            assert!(!first.stop().unwrap(), "they are another's");
            let _more = connect(80).unwrap();
            drop(server);
        });
    });
}
