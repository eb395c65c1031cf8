//! What becomes of the kernel's own table of neighbours.

use std::net::Ipv4Addr;

use ingress_agent::{
    kernel::{NodeSettings, detach},
    membership::Membership,
};
use ingress_lab::lab::Namespace;

use super::{PINS, block_on, can_run, install, install::ip, machine, settings};

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
