//! What a process that fails, hangs or wants something else does to the one that serves.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::Command,
};

use aya::{
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use ingress_agent::{
    kernel::{Extent, KernelError, KernelPart, NodeSettings, Sockets, XdpMode, detach, withdraw},
    membership::Membership,
};
use ingress_ebpf::abi::{ENCAP_PORT, Interfaces, SCHEMA, VIP_SLOTS, VipSlot4, entries};
use ingress_lab::{eventually, lab::Namespace};

use super::{
    PINS, VIP, accept, block_on, can_run, connect,
    install::{ip, ip_here, pin, programs_on},
    machine, settings, v4,
};

/// A machine with the interface `up0`.
fn node(name: &str) -> (Namespace, Namespace) {
    let (node, router) = (machine(name), Namespace::new("router").unwrap());
    node.veth("up0", &router, "up1").unwrap();
    (node, router)
}

fn on(interface: &str) -> NodeSettings {
    NodeSettings {
        interfaces: vec![interface.to_owned()],
        ..settings()
    }
}

/// So many addresses, of which none is that of the other test.
fn vips(count: u32, first: Ipv4Addr) -> Vec<IpAddr> {
    (0..count)
        .map(|index| Ipv4Addr::from(u32::from(first) + index).into())
        .collect()
}

/// How many keys `VIPS4` has.
fn vip_keys() -> usize {
    let map = Map::HashMap(MapData::from_pin(pin("VIPS4")).unwrap());
    let map: HashMap<_, [u8; 8], [u8; 8]> = map.try_into().unwrap();
    map.keys().count()
}

#[test]
fn a_process_that_cannot_go_live_takes_no_connection_from_the_one_that_serves() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("fails");
    node.run(|| {
        block_on(async {
            let serving = KernelPart::prepare(&settings()).await.unwrap();
            let old = v4(&serving, 1);
            serving.go_live(&old).await.unwrap();
            let other = NodeSettings {
                vips: vec![Ipv4Addr::new(198, 51, 100, 11).into()],
                ..on("up0")
            };
            let failing = KernelPart::prepare(&other).await.unwrap();
            let new = v4(&failing, 1);
            // By the time, the name is that of an interface whose driver runs no XDP.
            ip_here(&["link", "del", "up0"]);
            ip_here(&["link", "add", "up0", "type", "bridge"]);
            assert!(failing.go_live(&new).await.is_err());
            drop((failing, new));
            let client = connect(80).unwrap();
            let (_, _, peer) = accept(&[&old.four[0].http]);
            assert_eq!(peer, client.local_addr().unwrap());
            let routes = ip_here(&["route", "show", "table", "local"]);
            assert!(!routes.contains("198.51.100.11"), "{routes}");
        });
    });
}

#[test]
fn one_pin_that_cannot_be_removed_keeps_no_program_where_it_is() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("stays");
    node.run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&on("up0")).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            // Before and behind whatever order the directory has.
            let strays = ["links/0", "links/zz", "v1/0", &format!("v{SCHEMA}/0")];
            let strays = strays.map(|stray| format!("{PINS}/{stray}"));
            strays
                .iter()
                .for_each(|stray| fs::create_dir_all(stray).unwrap());
            let removed = detach(PINS.as_ref()).await;
            assert!(
                matches!(removed, Err(KernelError::Remove { .. })),
                "{removed:?}"
            );
            assert_eq!(programs_on("up0"), Vec::<String>::new());
            let routes = ip_here(&["route", "show", "table", "local"]);
            assert!(!routes.contains(&VIP.to_string()), "{routes}");
            assert!(!pin("META").exists());
            strays
                .iter()
                .for_each(|stray| fs::remove_dir(stray).unwrap());
            drop(kernel_part);
            let left = detach(PINS.as_ref()).await.unwrap();
            assert!(left.is_empty(), "{left:?}");
        });
    });
}

#[test]
fn maps_of_another_version_that_cannot_be_removed_keep_nobody_from_serving() {
    if !can_run() {
        return;
    }
    machine("stray").run(|| {
        block_on(async {
            let stray = PathBuf::from(format!("{PINS}/v1/stray"));
            fs::create_dir_all(&stray).unwrap();
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            let sockets = v4(&kernel_part, 1);
            kernel_part.go_live(&sockets).await.unwrap();
            fs::remove_dir(&stray).unwrap();
        });
    });
}

#[test]
fn more_virtual_ips_than_the_maps_have_room_for_are_refused_before_anything_changes() {
    if !can_run() {
        return;
    }
    machine("many").run(|| {
        block_on(async {
            let most = entries::VIPS as u32 / 3;
            let with = |count| NodeSettings {
                vips: vips(count, Ipv4Addr::new(10, 1, 0, 0)),
                ..settings()
            };
            match KernelPart::prepare(&with(most + 1)).await {
                Err(KernelError::Settings(said)) => {
                    assert!(said.contains(&most.to_string()), "{said}");
                }
                other => panic!("{:?}", other.map(drop)),
            }
            // As many as there can be, and then as many others.
            let kernel_part = KernelPart::prepare(&with(most)).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            assert_eq!(vip_keys(), 3 * most as usize);
            let others = NodeSettings {
                vips: vips(most, Ipv4Addr::new(10, 2, 0, 0)),
                ..settings()
            };
            let kernel_part = KernelPart::prepare(&others).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            assert_eq!(vip_keys(), 3 * most as usize);
            assert_eq!(kernel_part.vip_counters().unwrap().len(), most as usize);
        });
    });
}

#[test]
fn a_virtual_ip_begins_with_counters_of_its_own() {
    if !can_run() {
        return;
    }
    machine("counted").run(|| {
        block_on(async {
            let with = |vips: &[u8]| NodeSettings {
                vips: vips
                    .iter()
                    .map(|last| Ipv4Addr::new(198, 51, 100, *last).into())
                    .collect(),
                ..settings()
            };
            let kernel_part = KernelPart::prepare(&with(&[10, 11])).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let map = MapData::from_pin(pin("VIP_COUNTERS")).unwrap();
            let mut counters = PerCpuArray::<_, [u64; 4]>::try_from(Map::PerCpuArray(map)).unwrap();
            let cpus = nr_cpus().unwrap();
            for index in 0..2 {
                let seven = PerCpuValues::try_from(vec![[7; 4]; cpus]).unwrap();
                counters.set(index, seven, 0).unwrap();
            }
            let packets = |kernel_part: &KernelPart| -> Vec<_> {
                let counted = kernel_part.vip_counters().unwrap().into_iter();
                counted
                    .map(|(vip, counters)| (vip.to_string(), counters.packets))
                    .collect()
            };
            let seen = 7 * cpus as u64;
            // One stays, another comes in the place of the first.
            let next = KernelPart::prepare(&with(&[11, 12])).await.unwrap();
            next.go_live(&Sockets::default()).await.unwrap();
            assert_eq!(
                packets(&next),
                [
                    ("198.51.100.11".to_owned(), seen),
                    ("198.51.100.12".to_owned(), 0)
                ]
            );
        });
    });
}

#[test]
fn a_mode_that_the_interface_refuses_leaves_the_program_that_runs() {
    if !can_run() {
        return;
    }
    let node = machine("mode");
    node.run(|| {
        block_on(async {
            // Its driver runs no XDP.
            ip_here(&["link", "add", "br0", "type", "bridge"]);
            let in_mode = |mode| NodeSettings { mode, ..on("br0") };
            let serving = KernelPart::prepare(&in_mode(XdpMode::Generic))
                .await
                .unwrap();
            serving.go_live(&Sockets::default()).await.unwrap();
            assert_eq!(programs_on("br0"), ["steer"]);
            let refused = KernelPart::prepare(&in_mode(XdpMode::Native)).await;
            assert!(
                matches!(refused, Err(KernelError::Mode { .. })),
                "{refused:?}"
            );
            assert_eq!(programs_on("br0"), ["steer"]);
        });
    });
}

/// Ids of the maps that a program on an interface of this thread's namespace reads.
fn maps_on(interface: &str) -> Vec<u32> {
    let dump = ip_here(&["-d", "link", "show", interface]);
    let id = dump.split("prog/xdp id ").nth(1).unwrap();
    let id: u32 = id.split(' ').next().unwrap().parse().unwrap();
    let mut loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    let program = loaded.find(|program| program.id() == id).unwrap();
    program.map_ids().unwrap().unwrap()
}

#[test]
fn a_process_that_wants_another_mode_steers_by_what_is_there_until_it_goes_live() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("modes");
    node.run(|| {
        block_on(async {
            let serving = KernelPart::prepare(&on("up0")).await.unwrap();
            serving.go_live(&Sockets::default()).await.unwrap();
            let before = maps_on("up0");
            let other = NodeSettings {
                mode: XdpMode::Generic,
                ..on("up0")
            };
            let _prepared = KernelPart::prepare(&other).await.unwrap();
            assert_eq!(programs_on("up0"), ["steer"]);
            // One that found another, and no virtual IP in it, would keep packets for other nodes here.
            let of_its_own = ["VIP_SLOTS4", "VIP_SLOTS6"];
            let mut maps = aya::maps::loaded_maps().filter_map(Result::ok);
            let after = maps_on("up0");
            let new = maps.find(|map| {
                let name = map.name_as_str().unwrap_or_default();
                of_its_own.contains(&name)
                    && after.contains(&map.id())
                    && !before.contains(&map.id())
            });
            assert!(new.is_none(), "{new:?}");
        });
    });
    node.run(|| {
        let map = Map::Array(MapData::from_pin(pin("VIP_SLOTS4")).unwrap());
        let slots: Array<_, [u8; size_of::<VipSlot4>()]> = map.try_into().unwrap();
        assert_eq!(slots.len() as usize, VIP_SLOTS);
    });
}

/// The interfaces that `INTERFACES` has.
fn steered_on() -> Vec<u8> {
    let map = Map::Array(MapData::from_pin(pin("INTERFACES")).unwrap());
    let map: Array<_, [u8; size_of::<Interfaces>()]> = map.try_into().unwrap();
    map.get(&0, 0).unwrap().to_vec()
}

#[test]
fn a_mac_address_that_changes_before_a_process_goes_live_is_known_when_it_does() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("changed");
    node.run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&on("up0")).await.unwrap();
            ip_here(&["link", "set", "up0", "address", "02:00:00:00:00:77"]);
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let mac = [2, 0, 0, 0, 0, 0x77];
            let known = steered_on();
            assert!(known.windows(6).any(|window| window == mac), "{known:?}");
        });
    });
}

#[test]
fn a_process_that_hangs_while_it_changes_the_pins_keeps_nobody_waiting_for_what_is_left() {
    if !can_run() {
        return;
    }
    machine("hangs").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            drop(kernel_part);
            let links = fs::File::open(format!("{PINS}/links")).unwrap();
            links.lock().unwrap();
            let begun = std::time::Instant::now();
            let removed = withdraw(PINS.as_ref(), Extent::Programs).await;
            assert!(begun.elapsed().as_secs() < 2, "{removed:?}");
            assert_eq!(removed.unwrap(), None);
            drop(links);
            let removed = withdraw(PINS.as_ref(), Extent::Programs).await.unwrap();
            assert_eq!(removed.unwrap().programs.len(), 1);
        });
    });
}

/// Follows as a process does, on a thread of its own; what it says, and how to end it.
pub(super) struct Follower {
    condition: tokio::sync::watch::Receiver<Option<String>>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(node: &Namespace, settings: NodeSettings) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (live, is_live) = std::sync::mpsc::channel();
        // A thread started from the node's own is in its namespaces.
        let thread = node.run(move || {
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
        Self {
            condition,
            stop,
            thread,
        }
    }

    pub(super) fn says(&self) -> Option<String> {
        self.condition.borrow().clone()
    }

    pub(super) fn end(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}

#[test]
fn pins_that_somebody_removes_are_missed() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("removed");
    let follower = Follower::start(&node, on("up0"));
    node.run(|| fs::remove_dir_all(PINS).unwrap());
    eventually("it is said", || follower.says().is_some());
    follower.end();
}

#[test]
fn a_program_of_others_in_the_place_of_the_own_one_is_noticed() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("foreign");
    let follower = Follower::start(&node, on("up0"));
    node.run(|| {
        let links = fs::read_dir(format!("{PINS}/links")).unwrap();
        for link in links.flatten() {
            if link.file_name().to_string_lossy().starts_with("steer") {
                fs::remove_file(link.path()).unwrap();
            }
        }
    });
    let _other = loop {
        // The kernel detaches some time after the last handle is gone.
        if let Ok(other) = node.accept_xdp_frames("up0") {
            break other;
        }
    };
    eventually("it is said", || follower.says().is_some());
    follower.end();
}

#[test]
fn a_process_whose_maps_are_gone_touches_no_interface_any_more() {
    if !can_run() {
        return;
    }
    let (node, router) = node("superseded");
    let follower = Follower::start(&node, on("up0"));
    node.run(|| block_on(detach(PINS.as_ref())).unwrap());
    ip(&node, &["link", "del", "up0"]);
    eventually("it is said", || follower.says().is_some());
    node.veth("up0", &router, "up1").unwrap();
    // What it does about it, it does within two looks.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(node.run(|| programs_on("up0")), Vec::<String>::new());
    follower.end();
}

#[test]
fn an_older_version_that_waits_for_its_turn_finds_its_directory() {
    if !can_run() {
        return;
    }
    machine("rollback").run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&settings()).await.unwrap();
            drop(kernel_part);
            fs::rename(pin(""), format!("{PINS}/v1")).unwrap();
            let lock = fs::File::open(format!("{PINS}/links")).unwrap();
            lock.lock().unwrap();
            let settings = settings();
            let mut prepare = Box::pin(KernelPart::prepare(&settings));
            // Until it waits for the lock.
            let waits = std::time::Duration::from_millis(500);
            assert!(tokio::time::timeout(waits, &mut prepare).await.is_err());
            // As another version's process does that goes live.
            let own = format!("{PINS}/v{SCHEMA}");
            let _ = fs::remove_dir(&own);
            drop(lock);
            prepare.await.unwrap();
        });
    });
}

#[test]
fn programs_that_a_process_has_given_up_are_put_on_no_interface_again() {
    if !can_run() {
        return;
    }
    let (node, router) = node("given up");
    let (made, is_made) = std::sync::mpsc::channel::<()>();
    let (gone, is_gone) = std::sync::mpsc::channel();
    let thread = node.run(move || {
        std::thread::spawn(move || {
            block_on(async {
                let kernel_part = KernelPart::prepare(&on("up0")).await.unwrap();
                kernel_part.go_live(&Sockets::default()).await.unwrap();
                kernel_part.leave();
                withdraw(PINS.as_ref(), Extent::Programs).await.unwrap();
                let mut link = Command::new("ip");
                assert!(
                    link.args(["link", "del", "up0"])
                        .status()
                        .unwrap()
                        .success()
                );
                gone.send(()).unwrap();
                is_made.recv().unwrap();
                let looks = std::time::Duration::from_millis(2500);
                let _ = tokio::time::timeout(looks, kernel_part.follow()).await;
                programs_on("up0")
            })
        })
    });
    is_gone.recv().unwrap();
    node.veth("up0", &router, "up1").unwrap();
    made.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), Vec::<String>::new());
}

#[test]
fn a_process_that_outlives_the_one_that_replaced_it_serves_again() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("outlives");
    node.run(|| {
        block_on(async {
            let first = KernelPart::prepare(&on("up0")).await.unwrap();
            let old = v4(&first, 1);
            first.go_live(&old).await.unwrap();
            let others = NodeSettings {
                vips: vec![VIP.into(), Ipv4Addr::new(198, 51, 100, 11).into()],
                ..on("up0")
            };
            let second = KernelPart::prepare(&others).await.unwrap();
            let new = v4(&second, 1);
            second.go_live(&new).await.unwrap();
            let looks = std::time::Duration::from_millis(2500);
            let _ = tokio::time::timeout(looks, first.follow()).await;
            let client = connect(80).unwrap();
            let (served, _, _) = accept(&[&old.four[0].http, &new.four[0].http]);
            assert_eq!(served, 1, "the second one is there");
            drop((client, second, new));
            assert!(connect(80).is_err(), "nobody accepts");
            let _ = tokio::time::timeout(looks, first.follow()).await;
            let client = connect(80).unwrap();
            let (_, _, peer) = accept(&[&old.four[0].http]);
            assert_eq!(peer, client.local_addr().unwrap());
            let routes = ip_here(&["route", "show", "table", "local"]);
            assert!(!routes.contains("198.51.100.11"), "{routes}");

            // But not where it accepts nothing itself.
            let third = KernelPart::prepare(&on("up0")).await.unwrap();
            third.go_live(&v4(&third, 1)).await.unwrap();
            first.leave();
            drop(third);
            let _ = tokio::time::timeout(looks, first.follow()).await;
            assert!(connect(80).is_err(), "it has said that it accepts nothing");
        });
    });
}

#[test]
fn the_port_of_packets_between_nodes_is_given_to_no_other_socket() {
    if !can_run() {
        return;
    }
    machine("port").run(|| {
        block_on(async {
            let taken = || UdpSocket::bind(("0.0.0.0", ENCAP_PORT));
            drop(taken().unwrap());
            let first = KernelPart::prepare(&settings()).await.unwrap();
            assert!(taken().is_err());
            // As during a rollout.
            let second = KernelPart::prepare(&settings()).await.unwrap();
            drop(first);
            assert!(taken().is_err());
            drop(second);
            // Where another program has it, nodes still send each other packets.
            let _stranger = taken().unwrap();
            let third = KernelPart::prepare(&settings()).await.unwrap();
            third.go_live(&Sockets::default()).await.unwrap();
        });
    });
}

/// Else what comes in the moment goes to sockets that are about to close.
#[test]
fn a_process_stops_new_connections_while_it_looks_at_its_peers() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("stops");
    node.run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&on("up0")).await.unwrap();
            let sockets = v4(&kernel_part, 1);
            kernel_part.go_live(&sockets).await.unwrap();
            drop(connect(80).unwrap());
            // A peer that does not answer is waited for.
            let nodes = [("n1", 11), ("n2", 12)]
                .map(|(name, last)| (name.to_owned(), Ipv4Addr::new(198, 18, 0, last)));
            let membership = Membership::fixed(nodes.into());
            let mut apply = Box::pin(kernel_part.apply(&membership));
            let meanwhile = std::time::Duration::from_millis(200);
            assert!(tokio::time::timeout(meanwhile, &mut apply).await.is_err());
            assert!(kernel_part.stop().unwrap());
            assert!(connect(80).is_err());
            apply.await.unwrap();
            assert!(connect(80).is_err());
        });
    });
}

#[test]
fn what_was_detached_is_not_put_back_by_the_process_that_served() {
    if !can_run() {
        return;
    }
    let (node, _router) = node("detached");
    node.run(|| {
        block_on(async {
            let kernel_part = KernelPart::prepare(&on("up0")).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            detach(PINS.as_ref()).await.unwrap();
            // As an agent does when another proxy comes.
            let again = kernel_part.go_live(&v4(&kernel_part, 1)).await;
            assert!(matches!(again, Err(KernelError::Detached)), "{again:?}");
            assert_eq!(programs_on("up0"), Vec::<String>::new());
            let routes = ip_here(&["route", "show", "table", "local"]);
            assert!(!routes.contains(&VIP.to_string()), "{routes}");
        });
    });
}
