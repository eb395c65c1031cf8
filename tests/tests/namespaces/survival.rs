//! Long-lived connections while nodes drain, join, and take each step of a change one after the other.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use ingress_ebpf::owners::{Nodes, Owners};
use ingress_lab::{
    eventually,
    forebay::binary,
    lab::{self, CLIENT, Clients, Cluster, NextHop, Steering, VIP, VIP6},
    skipped,
};

/// The ids of `n1` to `n3`: nothing that could be a place in a list.
pub(super) const IDS: [u16; 3] = [40, 7, 23];

const V4: [IpAddr; 1] = [IpAddr::V4(VIP)];
pub(super) const BOTH: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];

/// A client that does not connect.
const V4_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(CLIENT), 40_000);

/// Connections that live through all of a test.
const KEPT: usize = 1000;

/// A cluster whose nodes have the same file, and what it says.
pub(super) struct Changing {
    pub(super) cluster: Cluster,
    pub(super) owners: Owners,
    epoch: u64,
}

impl Changing {
    pub(super) fn start(steering: Steering, owners: Owners) -> Self {
        let cluster = Cluster::start_with_nodes(steering, &nodes(&owners, 1)).unwrap();
        Self {
            cluster,
            owners,
            epoch: 1,
        }
    }

    /// Gives all nodes the next step, one after the other in this order. After each, `between` looks.
    pub(super) fn take(
        &mut self,
        step: Owners,
        order: [usize; 3],
        mut between: impl FnMut(&Cluster),
    ) {
        self.epoch += 1;
        self.owners = step;
        let text = nodes(&self.owners, self.epoch);
        for node in order {
            self.cluster.write_nodes(node, &text).unwrap();
            let forebay = &self.cluster.forebays[node];
            eventually("the node steers by the new owners", || {
                let epoch = forebay.metrics().unwrap().sum("forebay_steer_epoch", &[]);
                epoch == Some(self.epoch as f64)
            });
            between(&self.cluster);
        }
    }
}

/// All packets come by `n1`, and go on in UDP.
fn in_udp(has_ipv6: bool) -> Steering {
    Steering {
        next_hop: NextHop::Single,
        mode: "native",
        forward: "udp",
        has_ipv6,
    }
}

/// The file of nodes.
fn nodes(owners: &Owners, epoch: u64) -> String {
    let list = |set: &Nodes| format!("{:?}", set.iter().collect::<Vec<_>>());
    let mut text = "nodes:\n".to_owned();
    for (index, id) in IDS.iter().enumerate() {
        let (name, last) = (index + 1, index + 11);
        text += &format!("- {{id: {id}, name: n{name}, address: 198.18.1.{last}}}\n");
    }
    text += &format!("owners:\n  current: {}\n", list(owners.current()));
    if let Some(next) = owners.next() {
        text += &format!("  next: {}\n", list(next));
    }
    let earlier: Vec<_> = owners.earlier().iter().map(list).collect();
    text + &format!("  earlier: [{}]\nepoch: {epoch}\n", earlier.join(", "))
}

fn connections_survive(steering: Steering, vips: &'static [IpAddr]) {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(steering, Owners::of(IDS));
    let mut clients = Clients::of(vips);
    let before = clients.connect(&changing.cluster, KEPT).unwrap();
    assert_eq!(before.len(), 3, "{before:?}");

    // n3 drains, comes back, and n1 drains, each node hearing of each step at another time.
    let [n1, n2, n3] = IDS;
    let all: Nodes = IDS.into();
    for (next, orders) in [
        (Nodes::from([n1, n2]), [[0, 1, 2], [2, 0, 1]]),
        (all.clone(), [[1, 2, 0], [0, 2, 1]]),
        (Nodes::from([n2, n3]), [[2, 1, 0], [1, 0, 2]]),
    ] {
        if changing.owners.earlier().len() == 2 {
            // Nobody is cut: who has connections of the oldest set is in a later one too.
            let expired = changing.owners.expire();
            changing.take(expired, [0, 1, 2], |_| {});
            assert_eq!(clients.ask(), [""; 0], "after the oldest set had expired");
        }
        let steps = [
            changing.owners.prepare(next.clone()).unwrap(),
            changing
                .owners
                .prepare(next.clone())
                .unwrap()
                .commit()
                .unwrap(),
        ];
        for (step, order) in steps.into_iter().zip(orders) {
            let what = format!("{step:?}");
            let mut new = Clients::of(vips);
            changing.take(step, order, |cluster| {
                assert_eq!(clients.ask(), [""; 0], "while nodes took {what}");
                new.connect(cluster, 30).unwrap();
                assert_eq!(new.ask(), [""; 0], "new ones, while nodes took {what}");
            });
            clients.join(new);
        }
        let mut settled = Clients::of(vips);
        let owners = settled.connect(&changing.cluster, 60).unwrap();
        let expected: Vec<_> = IDS
            .iter()
            .zip(["n1", "n2", "n3"])
            .filter(|(id, _)| next.contains(id))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(owners.keys().collect::<Vec<_>>(), expected, "{owners:?}");
        clients.join(settled);
    }
    assert!(clients.len() > KEPT);
    let second_chances: f64 = changing
        .cluster
        .forebays
        .iter()
        .filter_map(|forebay| {
            let metrics = forebay.metrics().ok()?;
            metrics.sum(
                "forebay_steer_packets_total",
                &[("reason", "second_chance")],
            )
        })
        .sum();
    assert!(second_chances > 0.0, "nobody needed a second chance");
}

macro_rules! survives {
    ($($name:ident: $next_hop:ident, $forward:literal, $vips:ident;)+) => {$(
        #[test]
        fn $name() {
            let steering = Steering {
                next_hop: NextHop::$next_hop,
                mode: "native",
                forward: $forward,
                has_ipv6: $vips.iter().any(IpAddr::is_ipv6),
            };
            connections_survive(steering, &$vips);
        }
    )+};
}

survives! {
    a_thousand_connections_survive_drains_and_a_return_in_udp: Ecmp, "udp", V4;
    a_thousand_connections_survive_drains_and_a_return_by_mac: Ecmp, "l2", V4;
    a_thousand_connections_survive_drains_and_a_return_by_one_next_hop: Single, "udp", V4;
    a_thousand_connections_of_both_families_survive_drains_and_a_return_in_udp: Ecmp, "udp", BOTH;
    a_thousand_connections_of_both_families_survive_drains_and_a_return_by_mac: Single, "l2", BOTH;
}

/// That the tests above can fail.
#[test]
fn connections_of_a_node_that_leaves_at_once_are_lost() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(in_udp(false), Owners::of(IDS));
    let mut clients = Clients::of(&V4);
    let nodes = clients.connect(&changing.cluster, 90).unwrap();
    changing.take(Owners::of([IDS[0], IDS[1]]), [0, 1, 2], |_| {});
    let broken = clients.ask();
    assert!(
        broken.iter().all(|client| client.starts_with("of n3: ")),
        "{broken:?}"
    );
    assert_eq!(broken.len(), nodes["n3"]);
}

#[test]
fn a_file_of_nodes_that_cannot_be_used_changes_nothing_and_shows_in_the_status() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let changing = Changing::start(in_udp(false), Owners::of(IDS));
    let forebay = &changing.cluster.forebays[0];
    let degraded = || forebay.status().unwrap()["data_plane"]["degraded"].clone();
    assert!(degraded().is_null());
    let good = nodes(&changing.owners, 1);
    for (text, said) in [
        (
            "nodes: []\nepoch: 2".to_owned(),
            "nodes: there must be at least one",
        ),
        (
            nodes(&changing.owners, 0),
            "its epoch is 0, and 1 is in force",
        ),
        (nodes(&Owners::of([7]), 1), "each change needs a higher one"),
        (
            good.replace("n1", "n9").replace("epoch: 1", "epoch: 2"),
            "this node's name, n1",
        ),
    ] {
        changing.cluster.write_nodes(0, &text).unwrap();
        eventually("the status says it", || {
            degraded()
                .as_str()
                .is_some_and(|reason| reason.contains(said))
        });
        let epoch = forebay.metrics().unwrap().sum("forebay_steer_epoch", &[]);
        assert_eq!(epoch, Some(1.0));
        assert_eq!(
            Clients::of(&V4)
                .connect(&changing.cluster, 30)
                .unwrap()
                .len(),
            3
        );
    }
    changing.cluster.write_nodes(0, &good).unwrap();
    eventually("all is well again", || degraded().is_null());
}

#[test]
fn a_node_with_another_seed_is_named_in_the_status() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(in_udp(false), Owners::of(IDS));
    let degraded = |changing: &Changing| {
        let status = changing.cluster.forebays[1].status().unwrap();
        status["data_plane"]["degraded"].as_str().map(str::to_owned)
    };
    // All that reach n2 come by n1.
    let mut clients = Clients::of(&V4);
    clients.connect(&changing.cluster, 30).unwrap();
    assert_eq!(degraded(&changing), None);
    changing.cluster.replace_with_seed(1, 99).unwrap();
    eventually("n2 says that n1 differs", || {
        let mut clients = Clients::of(&V4);
        clients.connect(&changing.cluster, 10).unwrap();
        degraded(&changing).is_some_and(|reason| reason.starts_with("n1 steers by another table"))
    });
    changing.cluster.replace(1).unwrap();
    assert_eq!(degraded(&changing), None);
}

/// Somebody has forgotten to raise the epoch, and one node has begun with what the others refuse.
#[test]
fn a_node_with_another_set_of_the_same_epoch_is_named_in_the_status() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(in_udp(false), Owners::of(IDS));
    let degraded = |changing: &Changing| {
        let status = changing.cluster.forebays[1].status().unwrap();
        status["data_plane"]["degraded"].as_str().map(str::to_owned)
    };
    let other = nodes(&Owners::of([IDS[1], IDS[2]]), 1);
    changing.cluster.write_nodes(0, &other).unwrap();
    changing.cluster.replace(0).unwrap();
    eventually("n2 says that n1 differs", || {
        let mut clients = Clients::of(&V4);
        clients.connect(&changing.cluster, 10).unwrap();
        degraded(&changing).is_some_and(|reason| reason.starts_with("n1 steers by another table"))
    });
}

/// The owner's address and how packets get there, as `forebay explain` says on the first node.
fn explained(cluster: &Cluster, client: SocketAddr, server: SocketAddr) -> String {
    let program = binary().unwrap();
    let explain = move || {
        let mut command = Command::new(program);
        command.args(["explain", &client.to_string(), &server.to_string()]);
        command.output().unwrap()
    };
    let output = cluster.lab.nodes[0].namespace.run(explain);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn explain_names_the_node_that_serves_a_connection_and_those_that_may() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(in_udp(true), Owners::of(IDS));
    let mut clients = Clients::of(&BOTH);
    clients.connect(&changing.cluster, 20).unwrap();
    let owner_of = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("owner")).unwrap();
        let names = [
            ("198.18.1.11", "n1"),
            ("198.18.1.12", "n2"),
            ("198.18.1.13", "n3"),
        ];
        let name = names.iter().find(|(address, _)| line.contains(address));
        name.map(|(_, name)| (*name).to_owned())
    };
    assert_eq!(clients.ends().len(), 20);
    for (node, from, to) in clients.ends() {
        let text = explained(&changing.cluster, from, to);
        assert_eq!(owner_of(&text).as_ref(), Some(&node), "{text}");
        let is_here = node == "n1";
        assert_eq!(text.contains("this node ("), is_here, "{text}");
        assert_eq!(text.contains("in UDP by interface"), !is_here, "{text}");
        assert!(
            text.contains("epoch 1\n") && text.contains(" of 2,"),
            "{text}"
        );
    }
    let next = Nodes::from([IDS[0], IDS[1]]);
    changing.take(changing.owners.prepare(next).unwrap(), [0, 1, 2], |_| {});
    let ends = clients.ends();
    let (_, from, to) = ends.iter().find(|(node, ..)| node == "n3").unwrap();
    let text = explained(&changing.cluster, *from, *to);
    assert_eq!(owner_of(&text).as_deref(), Some("n3"), "{text}");
    assert!(text.contains("or, if it is older"), "{text}");

    let elsewhere = SocketAddr::from(([198, 51, 100, 99], 443));
    assert!(explained(&changing.cluster, V4_CLIENT, elsewhere).contains("is no virtual IP"));
    let closed = SocketAddr::from((VIP, 22));
    assert!(explained(&changing.cluster, V4_CLIENT, closed).contains("does not serve port 22"));
}
