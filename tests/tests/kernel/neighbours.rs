//! What becomes of the kernel's own table of neighbours.

use std::{mem::offset_of, net::Ipv4Addr};

use aya::maps::{Array, Map, MapData};
use ingress_agent::{
    kernel::{Forward, KernelPart, NodeSettings, Sockets, detach},
    membership::Membership,
};
use ingress_ebpf::abi::{NODES, Node, node_flags};
use ingress_lab::{eventually, lab::Namespace};

use super::{
    PINS, block_on, can_run, install,
    install::{ip, ip_here, pin},
    machine, settings,
    takeover::Follower,
};

/// A node with an interface, and another one at its end.
fn pair(name: &str) -> (Namespace, Namespace) {
    let (node, peer) = (machine(name), Namespace::new("peer").unwrap());
    node.veth("up0", &peer, "up1").unwrap();
    for (namespace, interface, last) in [(&node, "up0", 11), (&peer, "up1", 12)] {
        let address = Ipv4Addr::new(198, 18, 0, last);
        namespace.address(interface, address, 24).unwrap();
    }
    (node, peer)
}

fn with(nodes: &[(&str, u8)]) -> NodeSettings {
    let nodes = nodes.iter();
    let nodes = nodes.map(|(name, last)| ((*name).to_owned(), Ipv4Addr::new(198, 18, 0, *last)));
    NodeSettings {
        membership: Membership::fixed(nodes.collect()),
        interfaces: vec!["up0".to_owned()],
        ..settings()
    }
}

fn neighbours(node: &Namespace) -> String {
    ip(node, &["-d", "neigh", "show", "dev", "up0"])
}

#[test]
fn an_entry_that_somebody_made_permanent_stays_so() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("permanent");
    let entry = ["198.18.0.12", "lladdr", "02:00:00:00:00:77", "dev", "up0"];
    let add = [&["neigh", "add"], &entry[..], &["nud", "permanent"]].concat();
    ip(&node, &add);
    install(&node, with(&[("n1", 11), ("n2", 12)])).unwrap();
    let known = neighbours(&node);
    assert!(
        known.contains("02:00:00:00:00:77") && known.contains("PERMANENT"),
        "{known}"
    );
}

#[test]
fn the_kernel_keeps_no_neighbour_fresh_for_nodes_that_are_gone() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("forgotten");
    let both = with(&[("n1", 11), ("n2", 12)]);
    install(&node, both.clone()).unwrap();
    let managed = |node: &Namespace| neighbours(node).contains("managed");
    assert!(managed(&node), "{}", neighbours(&node));
    install(&node, with(&[("n1", 11)])).unwrap();
    assert!(!managed(&node), "{}", neighbours(&node));

    install(&node, both).unwrap();
    node.run(|| block_on(detach(PINS.as_ref())).unwrap());
    assert!(!managed(&node), "{}", neighbours(&node));
}

/// What `NODES` says of whether the nodes of the unit that was filled first are reached, by their ids.
fn reached<const COUNT: usize>(node: &Namespace) -> [bool; COUNT] {
    node.run(|| {
        let map = Map::Array(MapData::from_pin(pin("NODES")).unwrap());
        let nodes: Array<_, [u8; size_of::<Node>()]> = map.try_into().unwrap();
        std::array::from_fn(|id| {
            let node = nodes.get(&((NODES + id) as u32), 0).unwrap();
            u16::from(node[offset_of!(Node, flags)]) & node_flags::RESOLVED != 0
        })
    })
}

#[test]
fn a_peer_that_the_kernel_refuses_to_reach_harms_no_other() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("refused");
    // Who takes a machine out of the network does so, and each has an error of its own.
    for (kind, last) in [("blackhole", 13), ("prohibit", 14), ("unreachable", 15)] {
        ip(&node, &["route", "add", kind, &format!("198.18.0.{last}")]);
    }
    let nodes = [("n1", 11), ("n2", 12), ("n3", 13), ("n4", 14), ("n5", 15)];
    install(&node, with(&nodes)).unwrap();
    assert_eq!(reached(&node), [false, true, false, false, false]);
    let follower = Follower::start(&node, with(&nodes));
    eventually("it is said", || {
        follower.says().is_some_and(|said| said.contains("n3"))
    });
    follower.end();
}

#[test]
fn the_kernel_keeps_no_neighbour_fresh_that_has_left_the_set() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("left");
    let (both, alone) = (with(&[("n1", 11), ("n2", 12)]), with(&[("n1", 11)]));
    node.run(move || {
        block_on(async {
            let kernel_part = KernelPart::prepare(&both).await.unwrap();
            kernel_part.go_live(&Sockets::default()).await.unwrap();
            let managed = || ip_here(&["-d", "neigh", "show", "dev", "up0"]).contains("managed");
            assert!(managed());
            kernel_part.apply(&alone.membership).await.unwrap();
            assert!(!managed());
        });
    });
}

/// The words of `PEER_MACS` that are not zero.
fn peer_macs() -> Vec<(u32, u32)> {
    let map = Map::Array(MapData::from_pin(pin("PEER_MACS")).unwrap());
    let words: Array<_, u32> = map.try_into().unwrap();
    let words = (0..words.len()).map(|index| (index, words.get(&index, 0).unwrap()));
    words.filter(|(_, word)| *word != 0).collect()
}

#[test]
fn a_process_that_is_not_live_changes_nothing_for_the_one_that_is() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("unlive");
    let by_udp = with(&[("n1", 11), ("n2", 12)]);
    let by_mac = NodeSettings {
        forward: Forward::L2,
        ..by_udp.clone()
    };
    node.run(move || {
        block_on(async {
            let serving = KernelPart::prepare(&by_mac).await.unwrap();
            serving.go_live(&Sockets::default()).await.unwrap();
            let known = peer_macs();
            assert_eq!(known.len(), 1);
            let preparing = KernelPart::prepare(&by_udp).await.unwrap();
            preparing
                .apply(&with(&[("n1", 11)]).membership)
                .await
                .unwrap();
            assert_eq!(peer_macs(), known, "or a frame may go to and fro");
        });
    });
}

#[test]
fn a_peer_that_nobody_answers_for_is_named() {
    if !can_run() {
        return;
    }
    let (node, _peer) = pair("silent");
    let follower = Follower::start(&node, with(&[("n1", 11), ("n2", 12), ("n3", 13)]));
    eventually("it is said", || {
        follower
            .says()
            .is_some_and(|said| said.starts_with("n3 (198.18.0.13) cannot be reached"))
    });
    follower.end();
}
