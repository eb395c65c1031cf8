//! What an install finds and leaves: pins, links, routes, neighbours.

use std::{
    mem::offset_of,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, Map, MapData},
    programs::{links::PinnedLink, loaded_programs},
};
use ingress_agent::{
    kernel::{Extent, KernelError, KernelPart, NodeSettings, Sockets, XdpMode, detach, withdraw},
    membership::Membership,
};
use ingress_ebpf::abi::{Interfaces, Meta, NODES, Node, SCHEMA, node_flags};
use ingress_lab::{eventually, lab::Namespace};

use socket2::SockRef;

use super::{PINS, VIP, accept, block_on, can_run, connect, install, machine, settings, v4};

/// Where an object of this name is pinned.
pub(super) fn pin(name: &str) -> PathBuf {
    PathBuf::from(format!("{PINS}/v{SCHEMA}/{name}"))
}

/// What `ip -d link` says of an interface.
pub(super) fn link(namespace: &Namespace, interface: &str) -> String {
    ip(namespace, &["-d", "link", "show", interface])
}

/// Names of the XDP programs on an interface of this thread's namespace.
pub(super) fn programs_on(interface: &str) -> Vec<String> {
    let dump = ip_here(&["-d", "link", "show", interface]);
    let name_of = |rest: &str| {
        let id: u32 = rest.split(' ').next().unwrap().parse().unwrap();
        let mut loaded = loaded_programs().filter_map(Result::ok);
        let program = loaded.find(|program| program.id() == id).unwrap();
        program.name_as_str().unwrap().to_owned()
    };
    dump.split("prog/xdp id ").skip(1).map(name_of).collect()
}

pub(super) fn ip(namespace: &Namespace, arguments: &[&str]) -> String {
    let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
    namespace.run(move || ip_here(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// Runs `ip` in this thread's namespace.
pub(super) fn ip_here(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn local_routes(namespace: &Namespace) -> String {
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
        other.pin(pin("INTERFACES")).unwrap();
    });
    match install(&namespace, settings()) {
        Err(KernelError::Layout {
            path,
            field,
            found,
            expected,
        }) => {
            assert_eq!(path, pin("INTERFACES"));
            assert_eq!(
                (field, found, expected),
                ("value size", 8, size_of::<Interfaces>() as u64)
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
fn an_interface_whose_name_has_changed_keeps_its_link() {
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
    let before = links(&node);
    ip(&node, &["link", "set", "up0", "down"]);
    ip(&node, &["link", "set", "up0", "name", "up9"]);
    ip(&node, &["link", "set", "up9", "up"]);
    install(&node, on("up9")).unwrap();
    assert!(link(&node, "up9").contains(" xdp "));
    assert_eq!(links(&node), before);
    let removed = node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    assert!(
        removed.programs.contains(&"steer from up9".to_owned()),
        "{removed:?}"
    );
}

#[test]
fn two_interfaces_whose_names_differ_in_a_dot_have_links_of_their_own() {
    if !can_run() {
        return;
    }
    let (node, router) = (
        Namespace::new("dotted").unwrap(),
        Namespace::new("router").unwrap(),
    );
    let names = ["up0.7", "up0_7"];
    for (index, name) in names.into_iter().enumerate() {
        node.veth(name, &router, &format!("down{index}")).unwrap();
    }
    let both = NodeSettings {
        interfaces: names.map(str::to_owned).into(),
        ..settings()
    };
    for _ in 0..2 {
        install(&node, both.clone()).unwrap();
        for name in names {
            assert!(link(&node, name).contains(" xdp "), "{name}");
        }
    }
}

/// The pins of all links.
fn links(namespace: &Namespace) -> Vec<String> {
    namespace.run(links_here)
}

/// The same on this thread's machine.
fn links_here() -> Vec<String> {
    let pins = std::fs::read_dir(format!("{PINS}/links")).unwrap();
    let names = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn nothing_changes_for_a_packet_until_a_process_goes_live() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("prepared"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    let settings = NodeSettings {
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };
    node.run(move || {
        block_on(async {
            let routes = || ip_here(&["route", "show", "table", "local"]);
            let before = routes();
            let prepared = KernelPart::prepare(&settings).await.unwrap();
            assert_eq!(routes(), before);
            assert_eq!(programs_on("up0"), ["pass"]);
            prepared.go_live(&Sockets::default()).await.unwrap();
            assert!(routes().contains(&VIP.to_string()));
            assert_eq!(programs_on("up0"), ["steer"]);
        });
    });
}

#[test]
fn a_version_with_other_maps_takes_over_without_a_gap() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("schemas"), Namespace::new("router").unwrap());
    node.veth("up.0", &router, "up1").unwrap();
    let settings = NodeSettings {
        interfaces: vec!["up.0".to_owned()],
        ..settings()
    };
    node.run(move || {
        block_on(async {
            let before = KernelPart::prepare(&settings).await.unwrap();
            let old = v4(&before, 1);
            before.go_live(&old).await.unwrap();
            // As versions up to schema 2 left it: links beside the maps, by the interface's name.
            let earlier = PathBuf::from(format!("{PINS}/v1"));
            std::fs::rename(pin(""), &earlier).unwrap();
            for link in std::fs::read_dir(format!("{PINS}/links")).unwrap() {
                let link = link.unwrap();
                let name = match link.file_name().to_str().unwrap() {
                    "assign" => "assign_link",
                    _ => "steer_link_up_0",
                };
                std::fs::rename(link.path(), earlier.join(name)).unwrap();
            }

            let after = KernelPart::prepare(&settings).await.unwrap();
            let new = v4(&after, 1);
            let client = connect(80).unwrap();
            let (served, _, peer) = accept(&[&old.four[0].http, &new.four[0].http]);
            assert_eq!((served, peer), (0, client.local_addr().unwrap()));
            after.go_live(&new).await.unwrap();
            let client = connect(80).unwrap();
            let (served, _, peer) = accept(&[&old.four[0].http, &new.four[0].http]);
            assert_eq!((served, peer), (1, client.local_addr().unwrap()));
            assert!(!earlier.exists(), "nobody reads its maps");
        });
    });
    assert_eq!(node.run(|| programs_on("up.0")), ["steer"]);
    let removed = node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    assert_eq!(removed.programs.len(), 2, "{removed:?}");
    assert!(!link(&node, "up.0").contains(" xdp "));
}

#[test]
fn an_interface_that_is_made_anew_is_steered_on_again() {
    if !can_run() {
        return;
    }
    let (node, router) = (machine("anew"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    let settings = NodeSettings {
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (live, is_live) = std::sync::mpsc::channel();
    // A thread started from the node's own is in its namespaces.
    let follower = node.run(move || {
        std::thread::spawn(move || {
            block_on(async {
                let kernel_part = KernelPart::prepare(&settings).await.unwrap();
                kernel_part.go_live(&Sockets::default()).await.unwrap();
                live.send(kernel_part.condition()).unwrap();
                tokio::select! { () = kernel_part.follow() => {}, _ = stopped => {} }
            });
        })
    });
    let condition = is_live.recv().unwrap();
    assert_eq!(*condition.borrow(), None);
    ip(&node, &["link", "del", "up0"]);
    eventually("it is said", || condition.borrow().is_some());
    let said = condition.borrow().clone();
    assert_eq!(said.unwrap(), "the interface up0 is gone");
    node.veth("up0", &router, "up1").unwrap();
    eventually("it is steered on", || link(&node, "up0").contains(" xdp "));
    assert_eq!(node.run(|| programs_on("up0")), ["steer"]);
    eventually("all is well", || condition.borrow().is_none());

    // But not where somebody wants it so.
    node.run(|| block_on(detach(PINS.as_ref()))).unwrap();
    eventually("it is said", || condition.borrow().is_some());
    assert!(!link(&node, "up0").contains(" xdp "));
    drop(stop);
    follower.join().unwrap();
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
        vips: vec![Ipv4Addr::new(198, 18, 0, 11).into()],
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
        vips: vips.iter().map(|vip| (*vip).into()).collect(),
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
            let first = KernelPart::prepare(&settings()).await.unwrap();
            first.go_live(&Sockets::default()).await.unwrap();
            let pins = || {
                let links = PathBuf::from(format!("{PINS}/links"));
                [pin(""), links]
                    .into_iter()
                    .flat_map(|directory| std::fs::read_dir(directory).unwrap())
                    .map(|pin| pin.unwrap().path())
            };
            let all: Vec<_> = pins().collect();
            assert_eq!(all.len(), 18, "seventeen maps and a link: {all:?}");
            for missing in &all {
                std::fs::remove_file(missing).unwrap();
                let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
                let sockets = v4(&kernel_part, 1);
                kernel_part.go_live(&sockets).await.unwrap();
                let client = connect(80).unwrap();
                let (_, _, peer) = accept(&[&sockets.four[0].http]);
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
    // Again and again below: a command that another test starts has this process' marks, too, until
    // it has become that command.
    machine("in use").run(|| {
        block_on(async {
            let first = KernelPart::prepare(&settings()).await.unwrap();
            let second = KernelPart::prepare(&settings()).await.unwrap();
            second.go_live(&Sockets::default()).await.unwrap();
            let serving = links_here();
            for user in [&first, &second] {
                let removed = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
                assert_eq!(removed, None, "somebody serves");
                assert_eq!(links_here(), serving);
                user.leave();
            }
            // Both have connections still: the virtual IPs stay.
            let patience = Instant::now() + Duration::from_secs(10);
            while !links_here().is_empty() {
                let removed = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
                assert_eq!(removed, None, "somebody has connections");
                assert!(Instant::now() < patience, "{:?}", links_here());
            }
            let routes = ip_here(&["route", "show", "table", "local"]);
            assert!(routes.contains(&VIP.to_string()), "{routes}");
            drop((first, second));
            let removed = loop {
                let removed = withdraw(PINS.as_ref(), Extent::All).await.unwrap();
                if let Some(removed) = removed {
                    break removed;
                }
                assert!(Instant::now() < patience, "somebody serves");
            };
            assert_eq!((removed.vips, removed.maps), (vec![VIP.into()], 17));
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
    let (node, router) = (machine("detach"), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    node.run(|| {
        block_on(async {
            let on = NodeSettings {
                interfaces: vec!["up0".to_owned()],
                ..settings()
            };
            let serving = KernelPart::prepare(&on).await.unwrap();
            serving.go_live(&Sockets::default()).await.unwrap();
            // Somebody who looks at the links has them open: unpinning alone would detach none.
            let open: Vec<_> = std::fs::read_dir(format!("{PINS}/links"))
                .unwrap()
                .map(|link| PinnedLink::from_pin(link.unwrap().path()).unwrap())
                .collect();
            let removed = detach(PINS.as_ref()).await.unwrap();
            assert_eq!(
                removed.programs,
                ["assign from the network namespace", "steer from up0"]
            );
            assert_eq!((removed.vips, removed.maps), (vec![VIP.into()], 17));
            assert_eq!(programs_on("up0"), Vec::<String>::new());
            let plain = TcpListener::bind((VIP, 80));
            assert!(plain.is_err(), "the address is not local any more");
            assert_eq!(std::fs::read_dir(pin("")).unwrap().count(), 0);
            drop(open);
            assert!(detach(PINS.as_ref()).await.unwrap().is_empty());
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            let sockets = v4(&kernel_part, 1);
            kernel_part.go_live(&sockets).await.unwrap();
            let client = connect(80).unwrap();
            let (_, _, peer) = accept(&[&sockets.four[0].http]);
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

/// `steer` could only drop what is too long for the way to its owner.
#[test]
fn clients_are_told_of_segments_that_fit_the_way_between_nodes() {
    if !can_run() {
        return;
    }
    let (node, peer) = (machine("mss"), Namespace::new("peer").unwrap());
    node.veth("up0", &peer, "up1").unwrap();
    node.veth("back0", &peer, "back1").unwrap();
    ip(&node, &["link", "set", "back0", "mtu", "1400"]);
    node.address("back0", Ipv4Addr::new(198, 18, 0, 11), 24)
        .unwrap();
    peer.address("back1", Ipv4Addr::new(198, 18, 0, 12), 24)
        .unwrap();
    let nodes = [("n1", 11), ("n2", 12)]
        .map(|(name, last)| (name.to_owned(), Ipv4Addr::new(198, 18, 0, last)));
    let settings = NodeSettings {
        membership: Membership::fixed(nodes.into()),
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };
    node.run(move || {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings).await.unwrap();
            let sockets = v4(&kernel_part, 1);
            let mss = SockRef::from(&sockets.four[0].http).tcp_mss().unwrap();
            // Headers of TCP and IP, and those between nodes.
            assert_eq!(mss, 1400 - 40 - 36);
        });
    });
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
        membership: Membership::fixed(nodes.into()),
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (installed, ready) = std::sync::mpsc::channel();
    // A thread started from the node's own is in its namespaces.
    let follower = node.run(move || {
        std::thread::spawn(move || {
            block_on(async {
                let kernel_part = KernelPart::prepare(&settings).await.unwrap();
                kernel_part.go_live(&Sockets::default()).await.unwrap();
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

#[test]
fn a_process_that_another_one_has_replaced_writes_no_node_any_more() {
    if !can_run() {
        return;
    }
    let (node, peer) = (machine("replaced"), Namespace::new("peer").unwrap());
    node.veth("up0", &peer, "up1").unwrap();
    node.address("up0", Ipv4Addr::new(198, 18, 0, 11), 24)
        .unwrap();
    let with = |names: &[(&str, u8)]| NodeSettings {
        membership: Membership::fixed(
            names
                .iter()
                .map(|(name, last)| ((*name).to_owned(), Ipv4Addr::new(198, 18, 0, *last)))
                .collect(),
        ),
        interfaces: vec!["up0".to_owned()],
        ..settings()
    };
    // The second one has a node more, whose name comes first: all ids shift.
    let (before, after) = (
        with(&[("n1", 11), ("n2", 12)]),
        with(&[("n0", 10), ("n1", 11), ("n2", 12)]),
    );
    node.run(move || {
        block_on(async {
            let old = KernelPart::prepare(&before).await.unwrap();
            old.go_live(&Sockets::default()).await.unwrap();
            let new = KernelPart::prepare(&after).await.unwrap();
            new.go_live(&Sockets::default()).await.unwrap();
            let written = nodes_in_force();
            assert_eq!(written[..3], [10, 11, 12].map(|last| [198, 18, 0, last]));
            // Twice as long as it waits between two looks.
            let _ = tokio::time::timeout(Duration::from_millis(2500), old.follow()).await;
            assert_eq!(nodes_in_force(), written);
        });
    });
}

/// The addresses of the nodes that packets are steered by, in the order of their ids.
fn nodes_in_force() -> Vec<[u8; 4]> {
    let array = |name| Map::Array(MapData::from_pin(pin(name)).unwrap());
    let meta: Array<_, [u8; size_of::<Meta>()]> = array("META").try_into().unwrap();
    let meta = meta.get(&0, 0).unwrap();
    let unit = u32::from(meta[offset_of!(Meta, current)]);
    let nodes: Array<_, [u8; size_of::<Node>()]> = array("NODES").try_into().unwrap();
    let address = |id| {
        let node = nodes.get(&(unit * NODES as u32 + id), 0).unwrap();
        let at = offset_of!(Node, addresses.ip4);
        node[at..at + 4].try_into().unwrap()
    };
    (0..4).map(address).collect()
}

/// The MAC address that `NODES` has for the second node, once it has one.
fn resolved(node: &Namespace) -> Option<[u8; 6]> {
    node.run(|| {
        let map = MapData::from_pin(pin("NODES")).unwrap();
        let nodes: Array<_, [u8; size_of::<Node>()]> = Map::Array(map).try_into().unwrap();
        // The first unit that is filled is the second one.
        let node = nodes.get(&(NODES as u32 + 1), 0).unwrap();
        let (flags, mac) = (offset_of!(Node, flags), offset_of!(Node, macs));
        let known = u16::from(node[flags]) & node_flags::RESOLVED != 0;
        known.then(|| node[mac..mac + 6].try_into().unwrap())
    })
}

#[test]
fn a_route_that_a_crash_left_goes_with_the_next_install() {
    if !can_run() {
        return;
    }
    let node = machine("crash");
    let third = Ipv4Addr::new(198, 51, 100, 12);
    let other = NodeSettings {
        vips: vec![third.into()],
        ..settings()
    };
    install(&node, other).unwrap();
    // As if the process had ended before it wrote down that this one is a virtual IP.
    ip(
        &node,
        &[
            "route",
            "add",
            "local",
            "198.51.100.11",
            "dev",
            "lo",
            "table",
            "local",
            "proto",
            "70",
        ],
    );
    install(&node, settings()).unwrap();
    let routes = local_routes(&node);
    assert!(routes.contains(&VIP.to_string()), "{routes}");
    assert!(
        !routes.contains("198.51.100.11") && !routes.contains("198.51.100.12"),
        "{routes}"
    );
}

#[test]
fn detach_takes_routes_back_whose_pins_are_gone() {
    if !can_run() {
        return;
    }
    let node = machine("pinless");
    install(&node, settings()).unwrap();
    let removed = node.run(|| {
        std::fs::remove_dir_all(PINS).unwrap();
        block_on(detach(PINS.as_ref())).unwrap()
    });
    assert_eq!(removed.vips, [VIP]);
    assert!(!local_routes(&node).contains(&VIP.to_string()));
}

#[test]
fn addresses_that_no_client_can_connect_to_are_no_virtual_ips() {
    if !can_run() {
        return;
    }
    let node = machine("special");
    let (four, six) = (
        ["127.0.0.53", "0.0.0.0", "255.255.255.255", "224.0.0.5"],
        ["::1", "::", "ff02::1", "fe80::1", "::ffff:198.51.100.10"],
    );
    for vip in four.iter().chain(&six) {
        let settings = NodeSettings {
            vips: vec![vip.parse().unwrap()],
            ..settings()
        };
        let refused = install(&node, settings);
        assert!(
            matches!(refused, Err(KernelError::Settings(_))),
            "{vip}: {refused:?}"
        );
    }
}

#[test]
fn every_map_of_the_programs_is_pinned() {
    if !can_run() {
        return;
    }
    machine("pinned").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
        });
        let object = aya::Ebpf::load(ingress_agent::kernel::object().unwrap()).unwrap();
        for (name, _) in object.maps() {
            // Constants and such have a dot: each load has its own.
            if !name.starts_with('.') {
                assert!(
                    pin(name).exists(),
                    "{name} would be another one for each process"
                );
            }
        }
    });
}
