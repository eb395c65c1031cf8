//! A client on the nodes' segment, which nobody has told where virtual IPs are: it asks, and is told.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use ingress_ebpf::owners::{Nodes, Owners};
use ingress_lab::{
    eventually,
    lab::{self, Clients, Cluster, Lab, Namespace, NextHop, Steering, VIP, VIP6, ip},
    skipped,
};

use super::{
    NODES,
    survival::{BOTH, Changing, IDS},
};

/// The client finds virtual IPs by itself.
const FLAT: Steering = Steering {
    next_hop: NextHop::Flat,
    mode: "native",
    forward: "udp",
    has_ipv6: true,
};

/// The MAC address that the client has for a neighbour, if it has one.
fn neighbour(client: &Namespace, address: IpAddr) -> Option<String> {
    let entries = ip(client, &["neighbour", "show", "dev", "eth0"]).unwrap();
    let address = address.to_string();
    let entry = entries
        .lines()
        .find(|line| line.split(' ').next() == Some(&address))?;
    let mut words = entry.split(' ');
    words.find(|word| *word == "lladdr")?;
    words.next().map(str::to_owned)
}

fn forget(client: &Namespace, address: IpAddr) {
    ip(
        client,
        &[
            "neighbour",
            "flush",
            "to",
            &address.to_string(),
            "dev",
            "eth0",
        ],
    )
    .unwrap();
}

fn mac(node: &Namespace) -> String {
    let read = || std::fs::read_to_string("/sys/class/net/eth0/address").unwrap();
    node.run(read).trim().to_owned()
}

/// Opens a connection, or tries to: whatever comes of it, the client asks for its neighbour.
fn knock(client: &Namespace, address: IpAddr) {
    let to = SocketAddr::new(address, 80);
    client.run(move || drop(TcpStream::connect_timeout(&to, Duration::from_millis(500))));
}

/// The node that announces a virtual IP, on which all agree; its place in the lab.
fn announcer(cluster: &Cluster, vip: IpAddr) -> usize {
    let mut agreed = None;
    eventually("all nodes agree on who announces a virtual IP", || {
        let named: BTreeSet<_> = (0..3).map(|node| named(cluster, node, vip)).collect();
        agreed = named.first().cloned().flatten();
        named.len() == 1 && agreed.is_some()
    });
    NODES
        .iter()
        .position(|name| agreed.as_deref() == Some(*name))
        .unwrap()
}

/// Who announces a virtual IP by a node's status, which is not shown before its metrics know it.
fn named(cluster: &Cluster, node: usize, vip: IpAddr) -> Option<String> {
    let (forebay, vip) = (&cluster.forebays[node], vip.to_string());
    let status = forebay.status().unwrap();
    let announced = status["data_plane"]["announced"].as_array()?;
    let of_vip = announced.iter().find(|one| one["vip"] == *vip)?;
    let named = of_vip["node"].as_str()?.to_owned();
    let is_here = named == NODES[node];
    assert_eq!(of_vip["here"], is_here, "{status}");
    let labels = [("vip", &*vip), ("node", &*named)];
    let metric = forebay
        .metrics()
        .unwrap()
        .sum("forebay_vip_announcer", &labels);
    (metric == Some(f64::from(u8::from(is_here)))).then_some(named)
}

fn mac_of(cluster: &Cluster, node: usize) -> String {
    mac(&cluster.lab.nodes[node].namespace)
}

/// How many packets a node's programs have counted for a reason.
fn count(cluster: &Cluster, node: usize, reason: &str) -> f64 {
    let metrics = cluster.forebays[node].metrics().unwrap();
    let labels = [("reason", reason)];
    metrics.sum("forebay_steer_packets_total", &labels).unwrap()
}

/// Has the kernels of the nodes speak for every address that is local to them, as most do.
fn let_kernels_answer(lab: &Lab) {
    for node in &lab.nodes {
        for scope in ["all", "default", "eth0"] {
            let key = format!("net/ipv4/conf/{scope}/arp_ignore");
            node.namespace.sysctl(&key, "0").unwrap();
        }
    }
}

#[test]
fn a_client_finds_virtual_ips_by_itself_and_follows_them_while_its_connections_go_on() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut changing = Changing::start(FLAT, Owners::of(IDS));
    let_kernels_answer(&changing.cluster.lab);
    let mut clients = Clients::of(&BOTH);
    let nodes = clients.connect(&changing.cluster, 120).unwrap();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    for vip in BOTH {
        let cluster = &changing.cluster;
        let here = announcer(cluster, vip);
        let known = neighbour(&cluster.lab.client, vip);
        assert_eq!(known, Some(mac_of(cluster, here)), "{vip}");
        let protocol = if vip.is_ipv4() { "arp" } else { "ndp" };
        for node in 0..3 {
            let answers = count(cluster, node, protocol) > 0.0;
            assert_eq!(answers, node == here, "{protocol} on n{}", node + 1);
            if node != here && vip.is_ipv4() {
                assert!(count(cluster, node, "not_announcer") > 0.0);
            }
        }
    }

    // The node that announces one drains, and comes back; then that of the other drains.
    let all: Nodes = IDS.into();
    let [four, six] = BOTH;
    for (vip, returns) in [(four, false), (four, true), (six, false)] {
        let before = announcer(&changing.cluster, vip);
        let mut owners = all.clone();
        if !returns {
            owners.remove(&IDS[before]);
        }
        if changing.owners.earlier().len() == 2 {
            // Nobody is cut: who has connections of the oldest set is in a later one too.
            changing.take(changing.owners.expire(), [0, 1, 2], |_| {});
        }
        let prepared = changing.owners.prepare(owners).unwrap();
        changing.take(prepared.clone(), [0, 1, 2], |_| {});
        changing.take(prepared.commit().unwrap(), [2, 0, 1], |_| {});
        let cluster = &changing.cluster;
        let now = announcer(cluster, vip);
        assert_ne!(now, before, "{vip} moves with the set");
        // It asks nobody: it is told.
        eventually("the client is told where the virtual IP is", || {
            neighbour(&cluster.lab.client, vip) == Some(mac_of(cluster, now))
        });
        assert_eq!(clients.ask(), [""; 0], "{vip}, returns: {returns}");
        let mut new = Clients::of(&BOTH);
        let nodes = new.connect(&changing.cluster, 60).unwrap();
        assert_eq!(nodes.len(), 2 + usize::from(returns), "{nodes:?}");
        clients.join(new);
    }
    assert_eq!(clients.ask(), [""; 0]);
}

#[test]
fn only_the_announcer_answers_though_every_kernel_would() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let cluster = Cluster::start(FLAT).unwrap();
    let_kernels_answer(&cluster.lab);
    let client = &cluster.lab.client;
    for vip in BOTH {
        let here = mac_of(&cluster, announcer(&cluster, vip));
        for _ in 0..20 {
            forget(client, vip);
            knock(client, vip);
            assert_eq!(neighbour(client, vip).as_ref(), Some(&here), "{vip}");
        }
    }
}

/// What the test above relies on, and the reason why questions are kept from the kernel.
#[test]
fn a_kernel_answers_for_a_local_route_unless_arp_ignore_is_one() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let lab = Lab::new(NextHop::Flat).unwrap();
    let node = &lab.nodes[0].namespace;
    let route = format!("local {VIP} dev lo");
    let route: Vec<_> = ["route", "add"]
        .into_iter()
        .chain(route.split(' '))
        .collect();
    ip(node, &route).unwrap();
    let vip = IpAddr::V4(VIP);
    knock(&lab.client, vip);
    assert_eq!(neighbour(&lab.client, vip), None);
    let_kernels_answer(&lab);
    forget(&lab.client, vip);
    knock(&lab.client, vip);
    assert_eq!(neighbour(&lab.client, vip), Some(mac(node)));
}

#[test]
fn neighbours_are_told_again_when_a_link_comes_up() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let cluster = Cluster::start(FLAT).unwrap();
    let client = &cluster.lab.client;
    let wrong = BOTH.map(|vip| {
        let here = announcer(&cluster, vip);
        knock(client, vip);
        assert_eq!(neighbour(client, vip), Some(mac_of(&cluster, here)));
        (vip, here, mac_of(&cluster, (here + 1) % 3))
    });
    // The client is wrong, and nobody tells it better any more: what was said at the start is over.
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        for (vip, _, other) in &wrong {
            if neighbour(client, *vip).as_ref() != Some(other) {
                let vip = vip.to_string();
                let entry = [
                    "neighbour",
                    "replace",
                    &vip,
                    "lladdr",
                    other,
                    "nud",
                    "stale",
                    "dev",
                    "eth0",
                ];
                ip(client, &entry).unwrap();
                since = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for (vip, here, _) in wrong {
        for state in ["down", "up"] {
            ip(&cluster.lab.router, &["link", "set", NODES[here], state]).unwrap();
        }
        eventually("the client is told where the virtual IP is", || {
            neighbour(client, vip) == Some(mac_of(&cluster, here))
        });
    }
}

#[test]
fn a_node_whose_process_was_killed_still_answers_and_passes_on_what_others_own() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut cluster = Cluster::start(FLAT).unwrap();
    let mut clients = Clients::of(&BOTH);
    clients.connect(&cluster, 60).unwrap();
    let vip = IpAddr::V6(VIP6);
    let here = announcer(&cluster, vip);
    cluster.forebays[here].kill();
    forget(&cluster.lab.client, vip);
    let broken = clients.ask();
    let lost = format!("of {}: ", NODES[here]);
    assert!(!broken.is_empty() && broken.len() < 60, "{broken:?}");
    assert!(
        broken.iter().all(|client| client.starts_with(&lost)),
        "{broken:?}"
    );
    let known = neighbour(&cluster.lab.client, vip);
    assert_eq!(known, Some(mac_of(&cluster, here)));
}
