//! Who asks a machine for a virtual IP, and when it answers.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use ingress_agent::{
    kernel::{Announce, Announced, KernelPart, NodeSettings, Sockets, detach},
    membership::Membership,
};
use ingress_ebpf::owners::Owners;
use ingress_lab::{
    lab::{Namespace, ip},
    skipped,
};

use super::{VIP, block_on, can_run, machine, settings};

/// Of this node, and of another that is not there.
const NODES: [(&str, Ipv4Addr); 2] = [
    ("n1", Ipv4Addr::new(198, 18, 0, 11)),
    ("n2", Ipv4Addr::new(198, 18, 0, 12)),
];
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// A set of both in which these own connections.
fn owned_by(owners: &[u16], epoch: u64) -> Membership {
    let nodes = NODES.map(|(name, address)| (name.to_owned(), address));
    Membership {
        owners: Owners::of(owners.iter().copied()),
        epoch,
        ..Membership::fixed(nodes.into())
    }
}

fn announced(kernel_part: &KernelPart) -> Vec<Announced> {
    kernel_part.announced().borrow().clone()
}

/// A node, a client beside it, and what keeps the client's port open for what XDP sends.
fn segment() -> (Namespace, Namespace, OwnedFd) {
    let (node, client) = (machine("node"), machine("client"));
    node.veth("up0", &client, "up1").unwrap();
    node.address("up0", NODES[0].1, 24).unwrap();
    client.address("up1", CLIENT, 24).unwrap();
    ip(&client, &["route", "add", &VIP.to_string(), "dev", "up1"]).unwrap();
    let port = client.accept_xdp_frames("up1").unwrap();
    (node, client, port)
}

/// Whether a client that knows nothing finds the virtual IP.
fn finds(client: &Namespace) -> bool {
    ip(client, &["neighbour", "flush", "dev", "up1"]).unwrap();
    client.run(|| {
        let to = SocketAddr::new(IpAddr::V4(VIP), 80);
        drop(TcpStream::connect_timeout(&to, Duration::from_millis(300)));
    });
    let found = ip(
        client,
        &["neighbour", "show", &VIP.to_string(), "dev", "up1"],
    )
    .unwrap();
    found.contains("lladdr")
}

#[test]
fn a_node_answers_while_the_set_says_that_it_announces_and_no_more_once_it_ends() {
    if !can_run() {
        return;
    }
    let (node, client, _port) = segment();
    for (key, value) in [
        ("net/ipv4/conf/all/arp_ignore", "0"),
        ("net/ipv4/conf/all/arp_announce", "2"),
    ] {
        node.sysctl(key, value).unwrap();
    }
    node.run(move || {
        block_on(async {
            let settings = NodeSettings {
                interfaces: vec!["up0".to_owned()],
                announce: Announce::L2,
                membership: owned_by(&[0], 1),
                ..settings()
            };
            let kernel_part = KernelPart::prepare(&settings).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let by = |node: &str| {
                vec![Announced {
                    vip: VIP.into(),
                    node: node.to_owned(),
                    is_here: node == "n1",
                }]
            };
            assert_eq!(announced(&kernel_part), by("n1"));
            assert!(finds(&client));
            kernel_part.apply(&owned_by(&[1], 2)).await.unwrap();
            assert_eq!(announced(&kernel_part), by("n2"));
            assert!(!finds(&client));
            // Of the two, it has the higher hash.
            kernel_part.apply(&owned_by(&[0, 1], 3)).await.unwrap();
            assert_eq!(announced(&kernel_part), by("n1"));
            assert!(finds(&client));
            kernel_part.stop_announcing().unwrap();
            assert_eq!(announced(&kernel_part), by("n2"));
            assert!(!finds(&client));
            // Whatever it is told later, unless nobody else would take over.
            kernel_part.apply(&owned_by(&[0, 1], 4)).await.unwrap();
            assert!(!finds(&client));
            kernel_part.apply(&owned_by(&[0], 5)).await.unwrap();
            assert!(finds(&client));
            drop(kernel_part);

            // The next one begins anew.
            let alone = NodeSettings {
                membership: Membership::alone("n1"),
                ..settings
            };
            let kernel_part = KernelPart::prepare(&alone).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            assert!(finds(&client));
            kernel_part.stop_announcing().unwrap();
            assert!(finds(&client), "there is nobody else");
        });
    });
}

#[test]
fn without_announcing_nothing_is_said_and_the_kernel_answers_as_it_is_told() {
    if !can_run() {
        return;
    }
    let (node, client, _port) = segment();
    let both = |value: &'static str| {
        for scope in ["all", "up0"] {
            node.sysctl(&format!("net/ipv4/conf/{scope}/arp_ignore"), value)
                .unwrap();
        }
    };
    let installed = super::install(
        &node,
        NodeSettings {
            interfaces: vec!["up0".to_owned()],
            ..settings()
        },
    );
    installed.unwrap();
    both("1");
    assert!(!finds(&client));
    both("0");
    assert!(finds(&client));
}

#[test]
fn questions_for_more_virtual_ips_than_one_socket_has_groups_for_are_all_heard() {
    if !can_run() {
        return;
    }
    const VIPS: u16 = 200;
    let (node, _client, _port) = segment();
    // Room for less than half of them.
    if node.sysctl("net/core/optmem_max", "4096").is_err() {
        return skipped("the kernel has one net.core.optmem_max for all namespaces");
    }
    let vips = (1..=VIPS).map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 3, 0, 0, 0x77, last).into());
    let settings = NodeSettings {
        vips: vips.collect(),
        interfaces: vec!["up0".to_owned()],
        announce: Announce::L2,
        ..settings()
    };
    node.run(move || {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let groups = fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            let of_vips = groups.lines().filter(|line| {
                line.contains(" up0 ") && line.contains("ff0200000000000000000001ff77")
            });
            assert_eq!(of_vips.count(), usize::from(VIPS), "{groups}");
            drop(kernel_part);
        });
    });
}

#[test]
fn a_node_whose_programs_were_detached_does_not_say_that_it_announces() {
    if !can_run() {
        return;
    }
    let (node, _client, _port) = segment();
    let settings = NodeSettings {
        interfaces: vec!["up0".to_owned()],
        announce: Announce::L2,
        ..settings()
    };
    node.run(move || {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            assert!(!announced(&kernel_part).is_empty());
            detach(&settings.pin_dir).await.unwrap();
            let mut told = kernel_part.announced();
            let nothing = told.wait_for(Vec::is_empty);
            let nothing = tokio::time::timeout(Duration::from_secs(10), nothing);
            tokio::select! {
                () = kernel_part.follow() => {}
                nothing = nothing => assert!(nothing.is_ok(), "it still says so"),
            }
        });
    });
}
