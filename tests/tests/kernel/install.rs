//! What an install finds and leaves: pins, links, routes, neighbours.

use std::{
    mem::offset_of,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
};

use aya::maps::{Array, Map, MapData};
use ingress_agent::kernel::{
    Extent, KernelError, KernelPart, NodeSettings, XdpMode, detach, withdraw,
};
use ingress_ebpf::abi::{Node, SCHEMA, SelfNode, node_flags};
use ingress_lab::{eventually, lab::Namespace};

use super::{PINS, VIP, accept, block_on, can_run, connect, install, machine, settings};

/// Where an object of this name is pinned.
fn pin(name: &str) -> PathBuf {
    PathBuf::from(format!("{PINS}/v{SCHEMA}/{name}"))
}

/// What `ip -d link` says of an interface.
fn link(namespace: &Namespace, interface: &str) -> String {
    ip(namespace, &["-d", "link", "show", interface])
}

fn ip(namespace: &Namespace, arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(arguments);
    let output = namespace.run(move || command.output()).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn local_routes(namespace: &Namespace) -> String {
    ip(namespace, &["route", "show", "table", "local"])
}

#[test]
fn a_pin_of_another_layout_is_refused() {
    if !can_run() {
        return;
    }
    let namespace = Namespace::new("layout").unwrap();
    namespace.run(|| {
        std::fs::create_dir_all(pin("")).unwrap();
        let other = Array::<MapData, u64>::create(7, 0).unwrap();
        other.pin(pin("SELF")).unwrap();
    });
    match install(&namespace, settings()) {
        Err(KernelError::Layout {
            path,
            field,
            found,
            expected,
        }) => {
            assert_eq!(path, pin("SELF"));
            assert_eq!(
                (field, found, expected),
                ("value size", 8, size_of::<SelfNode>() as u64)
            );
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
    let settings = NodeSettings {
        pin_dir: directory.path().join("pins"),
        ..settings()
    };
    let namespace = Namespace::new("bpffs").unwrap();
    assert!(matches!(
        install(&namespace, settings),
        Err(KernelError::NotBpffs(_))
    ));
    assert!(
        std::fs::read_dir(directory.path())
            .unwrap()
            .next()
            .is_none(),
        "nothing is left behind"
    );
}

#[test]
fn a_restart_updates_the_links_and_a_new_mode_replaces_them() {
    if !can_run() {
        return;
    }
    let (node, router) = (
        Namespace::new("node").unwrap(),
        Namespace::new("router").unwrap(),
    );
    node.veth("up0.7", &router, "up1").unwrap();
    node.up("up0.7").unwrap();
    let on = |mode| NodeSettings {
        interfaces: vec!["up0.7".to_owned()],
        mode,
        ..settings()
    };
    let programs = || link(&node, "up0.7");
    let id = |dump: &str| {
        dump.split("prog/xdp id ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned)
    };

    install(&node, on(XdpMode::Native)).unwrap();
    let first = programs();
    assert!(
        first.contains(" xdp ") && !first.contains("xdpgeneric"),
        "{first}"
    );
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
    let (node, router) = (
        Namespace::new("taken").unwrap(),
        Namespace::new("router").unwrap(),
    );
    node.veth("up0", &router, "up1").unwrap();
    let _other = node.accept_xdp_frames("up0").unwrap();
    let settings = NodeSettings {
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };
    match install(&node, settings) {
        Err(error @ KernelError::OtherXdp(_)) => {
            let said = error.to_string();
            for advice in [
                "bpftool net show dev up0",
                "bpftool link detach id",
                "ip link set dev up0 xdp off",
                "forebay detach",
            ] {
                assert!(said.contains(advice), "{said}");
            }
        }
        other => panic!("{other:?}"),
    }
    // What the advice is for: this one is held by a link, which the other command leaves alone.
    let mut off = Command::new("ip");
    off.args(["link", "set", "dev", "up0", "xdp", "off"]);
    let off = node.run(move || off.output()).unwrap();
    assert!(!off.status.success() && link(&node, "up0").contains(" xdp "));
}

#[test]
fn detach_frees_an_interface_whose_name_has_changed() {
    if !can_run() {
        return;
    }
    let (node, router) = (
        Namespace::new("renamed").unwrap(),
        Namespace::new("router").unwrap(),
    );
    node.veth("up0", &router, "up1").unwrap();
    let on = |name: &str| NodeSettings {
        interfaces: vec![name.to_owned()],
        ..settings()
    };
    install(&node, on("up0")).unwrap();
    ip(&node, &["link", "set", "up0", "down"]);
    ip(&node, &["link", "set", "up0", "name", "up9"]);
    ip(&node, &["link", "set", "up9", "up"]);
    let refused = install(&node, on("up9"));
    assert!(
        matches!(refused, Err(KernelError::OtherXdp(_))),
        "{refused:?}"
    );
    node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    install(&node, on("up9")).unwrap();
}

#[test]
fn settings_that_cannot_work_are_named() {
    if !can_run() {
        return;
    }
    let namespace = Namespace::new("settings").unwrap();
    let nowhere = NodeSettings {
        interfaces: vec!["nowhere".to_owned()],
        ..settings()
    };
    assert!(
        matches!(install(&namespace, nowhere), Err(KernelError::NoInterface(name)) if name == "nowhere")
    );
    let stranger = NodeSettings {
        node_name: "n9".to_owned(),
        ..settings()
    };
    assert!(matches!(
        install(&namespace, stranger),
        Err(KernelError::Settings(_))
    ));
}

#[test]
fn a_vip_that_is_an_address_of_the_host_is_refused_before_anything_is_installed() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("own"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    node.address("up0", VIP, 24).unwrap();
    let before = local_routes(&node);
    match install(&node, settings()) {
        Err(error @ KernelError::OwnAddress { .. }) => {
            let said = error.to_string();
            assert!(
                said.contains("198.51.100.10") && said.contains("up0"),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(node.run(|| !pin("").exists()), "nothing is pinned");
    assert_eq!(local_routes(&node), before);
    let of_a_node = NodeSettings {
        vips: vec![Ipv4Addr::new(198, 18, 0, 11)],
        ..settings()
    };
    match install(&node, of_a_node) {
        Err(KernelError::Settings(said)) => assert!(said.contains("n1"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_route_of_others_for_a_vip_stays_when_the_vip_goes() {
    if !can_run() {
        return;
    }
    let node = machine("others");
    let other = Ipv4Addr::new(198, 51, 100, 11);
    let with = |vips: &[Ipv4Addr]| NodeSettings {
        vips: vips.to_vec(),
        ..settings()
    };
    ip(
        &node,
        &["route", "add", "local", "198.51.100.11", "dev", "lo"],
    );
    install(&node, with(&[VIP, other])).unwrap();
    let both = local_routes(&node);
    assert!(
        both.contains(&VIP.to_string()) && both.contains(&other.to_string()),
        "{both}"
    );
    // By a later install that has another one, and by a withdrawal of all.
    let third = Ipv4Addr::new(198, 51, 100, 12);
    install(&node, with(&[third])).unwrap();
    let third_only = local_routes(&node);
    assert!(!third_only.contains(&VIP.to_string()), "{third_only}");
    assert!(third_only.contains(&other.to_string()), "{third_only}");
    let removed = node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    assert_eq!(removed.vips, [third]);
    let none = local_routes(&node);
    assert!(none.contains(&other.to_string()) && !none.contains(&third.to_string()));
}

#[test]
fn an_address_that_the_host_gets_later_outlives_the_vip() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("later"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    install(&node, settings()).unwrap();
    node.address("up0", VIP, 24).unwrap();
    let removed = node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    assert_eq!(removed.vips, [VIP]);
    let routes = local_routes(&node);
    assert!(routes.contains("local 198.51.100.10 dev up0"), "{routes}");
}

#[test]
fn an_install_goes_on_from_whatever_pins_an_earlier_one_left() {
    if !can_run() {
        return;
    }
    machine("converge").run(|| {
        block_on(async {
            KernelPart::install(&settings()).await.unwrap();
            let pins = || {
                std::fs::read_dir(pin(""))
                    .unwrap()
                    .map(|pin| pin.unwrap().path())
            };
            let all: Vec<_> = pins().collect();
            assert_eq!(all.len(), 11, "ten maps and a link: {all:?}");
            for missing in &all {
                std::fs::remove_file(missing).unwrap();
                let kernel_part = KernelPart::install(&settings()).await.unwrap();
                let sockets = kernel_part.bind_listeners(1).unwrap();
                kernel_part.register(&sockets).unwrap();
                let client = connect(80).unwrap();
                let (_, _, peer) = accept(&[&sockets[0].http]);
                assert_eq!(
                    peer,
                    client.local_addr().unwrap(),
                    "without {}",
                    missing.display()
                );
            }
            assert_eq!(pins().count(), all.len());
        });
    });
}

#[test]
fn without_what_a_failed_install_left_plain_sockets_get_the_vip() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("fallback"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    install(&node, settings()).unwrap();
    let _other = node.accept_xdp_frames("up0").unwrap();
    let refused = install(
        &node,
        NodeSettings {
            interfaces: vec!["up0".to_owned()],
            ..settings()
        },
    );
    assert!(
        matches!(refused, Err(KernelError::OtherXdp(_))),
        "{refused:?}"
    );
    node.run(|| {
        let removed = block_on(withdraw(PINS.as_ref(), Extent::Programs)).unwrap();
        let programs = removed.unwrap().programs;
        assert_eq!(programs, ["assign from the network namespace"]);
        let plain = TcpListener::bind("0.0.0.0:80").unwrap();
        let client = connect(80).unwrap();
        assert_eq!(plain.accept().unwrap().1, client.local_addr().unwrap());
    });
}

#[test]
fn nobody_takes_away_what_a_process_serves_by() {
    if !can_run() {
        return;
    }
    machine("in use").run(|| {
        block_on(async {
            let first = KernelPart::install(&settings()).await.unwrap();
            let second = KernelPart::install(&settings()).await.unwrap();
            for user in [first, second] {
                let removed = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
                assert_eq!(removed, None, "somebody serves");
                user.leave();
            }
            let removed = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
            let removed = removed.unwrap();
            assert_eq!((removed.vips, removed.maps), (vec![VIP], 10));
            let again = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
            assert!(again.unwrap().is_empty());
        });
    });
}

#[test]
fn detach_asks_nobody_and_an_install_can_follow() {
    if !can_run() {
        return;
    }
    machine("detach").run(|| {
        block_on(async {
            let _serving = KernelPart::install(&settings()).await.unwrap();
            assert!(!detach(PINS.as_ref()).await.unwrap().is_empty());
            assert!(detach(PINS.as_ref()).await.unwrap().is_empty());
            let kernel_part = KernelPart::install(&settings()).await.unwrap();
            let sockets = kernel_part.bind_listeners(1).unwrap();
            kernel_part.register(&sockets).unwrap();
            let client = connect(80).unwrap();
            let (_, _, peer) = accept(&[&sockets[0].http]);
            assert_eq!(peer, client.local_addr().unwrap());
        });
    });
}

#[test]
fn an_interface_that_is_no_longer_named_is_left() {
    if !can_run() {
        return;
    }
    let (node, router) = (
        Namespace::new("left").unwrap(),
        Namespace::new("router").unwrap(),
    );
    for (here, there) in [("up0", "down0"), ("up1", "down1")] {
        node.veth(here, &router, there).unwrap();
    }
    let on = |names: &[&str]| NodeSettings {
        interfaces: names.iter().map(|&name| name.to_owned()).collect(),
        ..settings()
    };
    install(&node, on(&["up0", "up1"])).unwrap();
    assert!(link(&node, "up0").contains(" xdp ") && link(&node, "up1").contains(" xdp "));
    install(&node, on(&["up1"])).unwrap();
    assert!(
        !link(&node, "up0").contains(" xdp "),
        "{}",
        link(&node, "up0")
    );
    assert!(link(&node, "up1").contains(" xdp "));
}

#[test]
fn a_peer_that_appears_or_changes_its_mac_address_is_followed() {
    if !can_run() {
        return;
    }
    let (node, peer) = (machine("follower"), Namespace::new("peer").unwrap());
    node.veth("up0", &peer, "up1").unwrap();
    node.address("up0", Ipv4Addr::new(198, 18, 0, 11), 24)
        .unwrap();
    let nodes = [("n1", 11), ("n2", 12)]
        .map(|(name, last)| (name.to_owned(), Ipv4Addr::new(198, 18, 0, last)));
    let settings = NodeSettings {
        nodes: nodes.into(),
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (installed, ready) = std::sync::mpsc::channel();
    // A thread started from the node's own is in its namespaces.
    let follower = node.run(move || {
        std::thread::spawn(move || {
            block_on(async {
                let kernel_part = KernelPart::install(&settings).await.unwrap();
                installed.send(()).unwrap();
                tokio::select! { () = kernel_part.follow() => {}, _ = stopped => {} }
            });
        })
    });
    ready.recv().unwrap();
    assert_eq!(resolved(&node), None, "nobody has the peer's address yet");
    peer.address("up1", Ipv4Addr::new(198, 18, 0, 12), 24)
        .unwrap();
    eventually("the peer is resolved", || resolved(&node).is_some());
    let changed = [2, 0, 0, 0, 0, 0x77];
    assert_ne!(resolved(&node), Some(changed));
    ip(
        &peer,
        &["link", "set", "up1", "address", "02:00:00:00:00:77"],
    );
    eventually("the peer's new MAC address is known", || {
        // The peer asks for the node's address, and the kernel learns the peer's from the question.
        ip(&peer, &["neigh", "flush", "all"]);
        peer.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", "198.18.0.11:9"))
            .unwrap();
        resolved(&node) == Some(changed)
    });
    drop(stop);
    follower.join().unwrap();
}

/// The MAC address that `NODES` has for the second node, once it has one.
fn resolved(node: &Namespace) -> Option<[u8; 6]> {
    node.run(|| {
        let map = MapData::from_pin(pin("NODES")).unwrap();
        let nodes: Array<_, [u8; size_of::<Node>()]> = Map::Array(map).try_into().unwrap();
        let node = nodes.get(&1, 0).unwrap();
        let (flags, mac) = (offset_of!(Node, flags), offset_of!(Node, mac));
        let known = u16::from(node[flags]) & node_flags::V4 != 0;
        known.then(|| node[mac..mac + 6].try_into().unwrap())
    })
}
