//! Packets for a virtual IP through XDP and sk_lookup to pods, over three nodes in namespaces.
//!
//! {one next hop, ECMP} × {UDP, L2} × {native, generic}, a crash, and a node where XDP is refused.
//! `leaving`: what is left where virtual IPs are served no more. `survival`: long-lived connections while
//! nodes drain and join. `nodes_file`: what a process does with its file of nodes. `announce`: virtual IPs
//! that clients find by ARP and neighbour discovery.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panics")]

mod announce;
mod leaving;
mod nodes_file;
mod survival;

use std::{collections::BTreeMap, path::Path, time::Duration};

use ingress_ebpf::{
    abi::{Bucket, Keys},
    family::{Family as _, V4},
    flow::{self, Flow},
    hash,
    maglev::{self, Member},
    owners,
};
use ingress_lab::{
    client::{Answer, Wrk, curl_in, wrk},
    eventually,
    forebay::Launch,
    lab::{self, CLIENT, Cluster, HASH_SEED, Lab, NextHop, PLAIN_HOST, Steering, TLS_HOST, VIP},
    origin::Echo,
    skipped,
};
use serde_json::Value;
use tempfile::TempDir;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Which node must serve which flow, by the library's own hash and table.
struct Owners {
    table: Vec<Bucket>,
    keys: Keys,
}

impl Owners {
    /// By the seed that the cluster's nodes are started with.
    fn new() -> Self {
        let members: Vec<_> = (0..)
            .zip(NODES)
            .map(|(id, name)| Member {
                id,
                name,
                is_gone: false,
            })
            .collect();
        Self {
            table: maglev::table(
                &members,
                &owners::Owners::of(members.iter().map(|member| member.id)),
                HASH_SEED,
                0,
            ),
            keys: Keys::of(HASH_SEED),
        }
    }

    fn of(&self, port: u16, tls: bool) -> &'static str {
        let flow = Flow {
            source: u32::from_ne_bytes(CLIENT.octets()),
            destination: u32::from_ne_bytes(VIP.octets()),
            ports: flow::ports(port.to_be(), vip_port(tls).to_be()),
        };
        let bucket = hash::bucket(V4::digest(&flow, &self.keys).bucket(&self.keys));
        NODES[usize::from(self.table[bucket as usize].hops[0])]
    }
}

fn vip_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Name of the node that served, from the header `x-forebay`.
fn served_by(answer: &Answer) -> String {
    answer
        .trace()
        .get("node")
        .unwrap_or_else(|| panic!("no x-forebay: {answer:?}"))
        .to_string()
}

/// Asks from each of `ports` and checks each answer; returns how many requests each node served.
fn ask_from_ports(
    cluster: &Cluster,
    owners: &Owners,
    tls: bool,
    ports: std::ops::Range<u16>,
) -> BTreeMap<String, usize> {
    let mut served = BTreeMap::new();
    for (path, service, seen) in [("/a/b?c=d", "s1", "/a/b?c=d"), second_path(tls)] {
        for port in ports
            .clone()
            .step_by(2)
            .map(|port| port + u16::from(service == "s2"))
        {
            let answer = cluster.get(tls, port, path).unwrap();
            assert_eq!(answer.status, 200, "port {port}: {}", answer.text());
            let echo: Echo = answer.json().unwrap();
            assert!(echo.pod.starts_with(service), "{path} went to {}", echo.pod);
            assert_eq!(echo.path, seen);
            assert_eq!(
                echo.headers["x-forwarded-for"],
                CLIENT.to_string(),
                "port {port}"
            );
            assert_eq!(
                echo.headers["x-forwarded-proto"],
                if tls { "https" } else { "http" }
            );
            let node = served_by(&answer);
            assert_eq!(node, owners.of(port, tls), "port {port}");
            *served.entry(node).or_insert(0) += 1;
        }
    }
    served
}

fn second_path(tls: bool) -> (&'static str, &'static str, &'static str) {
    if tls {
        ("/account/me", "s2", "/")
    } else {
        ("/cart/1", "s2", "/cart/1")
    }
}

/// Sends 300 kB up and back, in full-size segments.
fn ask_for_full_segments(cluster: &Cluster, tls: bool, ports: std::ops::Range<u16>) {
    let file = TempDir::new().unwrap();
    let sent: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
    let path = file.path().join("sent");
    std::fs::write(&path, &sent).unwrap();
    let data = format!("@{}", path.display());
    for port in ports {
        // Without `Expect`: curl would wait for the answer to it. Should it fail, it says where. And by
        // HTTP/1.1: it is the segments that matter, and with HTTP/2 curl 7.88 fails now and then.
        let args = ["-v", "--http1.1", "--data-binary", &data, "-H", "Expect:"];
        let answer = cluster
            .request(tls, port, "/echo", &args)
            .unwrap()
            .answer()
            .unwrap();
        assert_eq!(answer.status, 200, "port {port}");
        assert!(
            answer.body == sent,
            "port {port}: {} bytes came back",
            answer.body.len()
        );
    }
}

/// Each node passed on what others own and kept its own, and dropped nothing.
fn check_counters(cluster: &Cluster, steering: Steering) {
    for (node, forebay) in NODES.iter().zip(&cluster.forebays) {
        let metrics = forebay.metrics().unwrap();
        let count = |labels: &[(&str, &str)]| {
            let value = metrics.sum("forebay_steer_packets_total", labels);
            value.unwrap_or_else(|| panic!("no steer counter with {labels:?}"))
        };
        let forwarded = count(&[("action", "forward"), ("reason", steering.forward)]);
        let met_by_router = *node == "n1" || steering.next_hop == NextHop::Ecmp;
        assert_eq!(
            forwarded > 0.0,
            met_by_router,
            "{node} forwarded {forwarded}"
        );
        assert_eq!(
            count(&[("action", "forward")]),
            forwarded,
            "{node} forwarded another way"
        );
        if steering.forward == "udp" {
            let from_others = *node != "n1" || steering.next_hop == NextHop::Ecmp;
            let decapsulated = count(&[("reason", "decapsulated")]);
            assert_eq!(
                decapsulated > 0.0,
                from_others,
                "{node} decapsulated {decapsulated}"
            );
        }
        assert!(count(&[("reason", "assigned")]) > 0.0, "{node}");
        assert_eq!(
            count(&[("action", "drop")]),
            0.0,
            "{node}: {}",
            metrics.as_str()
        );
        for reason in ["no_table", "no_neighbour", "no_room"] {
            assert_eq!(count(&[("reason", reason)]), 0.0, "{node}: {reason}");
        }
    }
}

fn steers(steering: Steering) {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let cluster = Cluster::start(steering).unwrap();
    for forebay in &cluster.forebays {
        let status = forebay.status().unwrap();
        assert_eq!(
            status["data_plane"]["mode"],
            format!("xdp-{}", steering.mode),
            "{status}"
        );
        assert!(status["data_plane"]["degraded"].is_null(), "{status}");
    }
    let owners = Owners::new();
    // A port serves once: it waits out its TIME_WAIT.
    for (tls, ports, large) in [
        (false, 40_000..40_040, 42_000..42_006),
        (true, 41_000..41_020, 43_000..43_006),
    ] {
        let served = ask_from_ports(&cluster, &owners, tls, ports);
        assert_eq!(served.keys().collect::<Vec<_>>(), NODES, "{served:?}");
        ask_for_full_segments(&cluster, tls, large);
    }
    for url in [
        format!("http://{PLAIN_HOST}/"),
        format!("https://{TLS_HOST}/"),
    ] {
        let load = wrk(
            Some(&cluster.lab.client),
            16,
            Duration::from_secs(1),
            &[],
            &url,
        )
        .unwrap();
        assert_eq!((load.wrong, load.failed), (0, 0), "{url}: {load:?}");
        assert!(load.requests > 50, "{url}: {load:?}");
    }
    check_counters(&cluster, steering);
}

macro_rules! matrix {
    ($($name:ident: $next_hop:ident, $forward:literal, $mode:literal;)*) => {$(
        #[test]
        fn $name() {
            steers(Steering { next_hop: NextHop::$next_hop, forward: $forward, mode: $mode, has_ipv6: false });
        }
    )*};
}

matrix! {
    one_next_hop_forwards_by_udp_in_native_mode: Single, "udp", "native";
    one_next_hop_forwards_by_udp_in_generic_mode: Single, "udp", "generic";
    one_next_hop_forwards_by_l2_in_native_mode: Single, "l2", "native";
    one_next_hop_forwards_by_l2_in_generic_mode: Single, "l2", "generic";
    ecmp_forwards_by_udp_in_native_mode: Ecmp, "udp", "native";
    ecmp_forwards_by_udp_in_generic_mode: Ecmp, "udp", "generic";
    ecmp_forwards_by_l2_in_native_mode: Ecmp, "l2", "native";
    ecmp_forwards_by_l2_in_generic_mode: Ecmp, "l2", "generic";
}

#[test]
fn crash_and_restart_of_the_next_hop_fails_no_request() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut cluster = Cluster::start(Steering {
        next_hop: NextHop::Single,
        forward: "udp",
        has_ipv6: false,
        mode: "native",
    })
    .unwrap();
    let owners = Owners::new();
    let of = |node: &str| {
        (45_000..46_000)
            .filter(|&port| owners.of(port, false) == node)
            .take(4)
            .collect::<Vec<u16>>()
    };
    let [crashed, second, third] = ["n1", "n2", "n3"].map(of);

    // Requests that live on the other nodes through all of it; their packets come by n1.
    let held =
        [second[0], third[0]].map(|port| cluster.request(false, port, "/hold", &[]).unwrap());
    let pods = || cluster.lab.nodes.iter().flat_map(|node| &node.pods);
    eventually("both requests are at pods", || {
        pods().map(|pod| pod.origin.held()).sum::<u64>() == 2
    });
    // Nothing is in flight on n1: its last answer is here.
    assert_eq!(
        served_by(&cluster.get(false, crashed[0], "/").unwrap()),
        "n1"
    );

    cluster.forebays[0].kill();
    // Nobody accepts on n1 now: these wait for their next SYN.
    let waiting: Vec<_> = crashed[1..]
        .iter()
        .map(|&port| cluster.request(false, port, "/", &[]).unwrap())
        .collect();
    for &port in second[1..].iter().chain(&third[1..]) {
        let answer = cluster.get(false, port, "/").unwrap();
        assert_eq!(answer.status, 200, "port {port}");
        assert_ne!(served_by(&answer), "n1", "port {port}");
    }
    cluster.forebays[0].restart().unwrap();
    for request in waiting {
        let answer = request.answer().unwrap();
        assert_eq!((answer.status, served_by(&answer).as_str()), (200, "n1"));
    }
    cluster
        .lab
        .nodes
        .iter()
        .flat_map(|node| &node.pods)
        .for_each(|pod| pod.origin.release());
    for request in held {
        assert_eq!(request.answer().unwrap().status, 200);
    }
    let served = ask_from_ports(&cluster, &owners, true, 44_000..44_020);
    assert_eq!(served.keys().collect::<Vec<_>>(), NODES, "{served:?}");
}

#[test]
fn a_process_that_takes_virtual_ips_over_fails_no_request() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let mut cluster = Cluster::start(Steering {
        next_hop: NextHop::Single,
        forward: "udp",
        has_ipv6: false,
        mode: "native",
    })
    .unwrap();
    let load = |headers: &[&str], url: &str| {
        let limit = Duration::from_secs(120);
        Wrk::start(Some(&cluster.lab.client), 8, limit, headers, url).unwrap()
    };
    let (plain, tls) = (
        format!("http://{PLAIN_HOST}/"),
        format!("https://{TLS_HOST}/"),
    );
    let close = "Connection: close";
    let loads = [
        ("kept", load(&[], &plain)),
        ("new", load(&[close], &plain)),
        ("kept, TLS", load(&[], &tls)),
        ("new, TLS", load(&[close], &tls)),
    ];
    for node in [0, 1, 2, 0] {
        cluster.replace(node).unwrap();
    }
    for (kind, load) in loads {
        let load = load.stop().unwrap();
        assert_eq!((load.wrong, load.failed), (0, 0), "{kind}: {load:?}");
        assert!(load.requests > 50, "{kind}: {load:?}");
    }
}

#[test]
fn refused_xdp_falls_back_to_sockets_and_says_so() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let lab = Lab::new(NextHop::Single).unwrap();
    let folder = TempDir::new().unwrap();
    lab.write_manifests(folder.path()).unwrap();
    serves_by_sockets(
        &lab,
        folder.path(),
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        "CAP_BPF",
    );
    // Another program owns the interface.
    let _other = lab.nodes[0].namespace.accept_xdp_frames("eth0").unwrap();
    serves_by_sockets(&lab, folder.path(), &[], "eth0");
}

/// Starts Forebay by `wrapper` on the first node, where it must do without XDP and say why in words
/// with `reason`.
fn serves_by_sockets(lab: &Lab, manifests: &Path, wrapper: &[&str], reason: &str) {
    let node = &lab.nodes[0];
    let forebay = Launch::new(&["--http", "0.0.0.0:8080", "--https", "0.0.0.0:8443"])
        .args(&[
            "--vip",
            &VIP.to_string(),
            "--xdp-interface",
            "eth0",
            "--node-name",
            "n1",
        ])
        .args(&lab.node_flags())
        .args(&["--hash-seed", &HASH_SEED.to_string()])
        .args(&["--manifests", manifests.to_str().unwrap()])
        .wrapped_by(wrapper)
        .within(&node.namespace)
        .start_unready()
        .unwrap();
    forebay
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    let status = forebay.status().unwrap();
    assert_eq!(status["data_plane"]["mode"], "sockets", "{status}");
    let degraded = status["data_plane"]["degraded"]
        .as_str()
        .unwrap_or_default();
    assert!(degraded.contains(reason), "{status}");
    // A rollout must stop here: it serves, but not what it was asked for.
    let (code, answer) = forebay.ask("/readyz").unwrap();
    assert_eq!(code, 503, "{answer}");
    assert!(answer.contains(reason), "{answer}");
    let metric = forebay
        .metrics()
        .unwrap()
        .sum("forebay_data_plane_degraded", &[("mode", "sockets")]);
    assert_eq!(metric, Some(1.0));
    let said = |line: &Value| {
        matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
            && line["error"].as_str() == Some(degraded)
    };
    assert!(forebay.log().iter().any(said), "{}", forebay.log_text());

    let url = format!("http://{}:8080/", node.address);
    let answer = curl_in(&lab.client, &["-H", &format!("Host: {PLAIN_HOST}"), &url]).unwrap();
    assert_eq!(
        answer.json::<Echo>().unwrap().headers["x-forwarded-for"],
        CLIENT.to_string()
    );
}

/// With the default of one worker per core, a machine may have more than the maps have room for.
#[test]
fn virtual_ips_are_served_by_as_many_workers_as_have_room_and_the_log_says_so() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let lab = Lab::new(NextHop::Single).unwrap();
    let folder = TempDir::new().unwrap();
    lab.write_manifests(folder.path()).unwrap();
    let forebay = Launch::new(&["--manifests", folder.path().to_str().unwrap()])
        .args(&["--vip", &VIP.to_string(), "--xdp-interface", "eth0"])
        .args(&["--node-name", "n1", "--metrics", "off", "--workers", "130"])
        .within(&lab.nodes[0].namespace);
    let forebay = forebay.start().unwrap();
    let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/"));
    for _ in 0..20 {
        let answer = curl_in(&lab.client, &["-H", &host, &url]).unwrap();
        assert_eq!(answer.status, 200);
    }
    let said = |line: &Value| line["level"] == "WARN" && line["sharing"] == 128;
    assert!(forebay.log().iter().any(said), "{}", forebay.log_text());
}

/// Its workers have ordinary sockets only, since the agent of their beginning could not steer.
#[test]
fn virtual_ips_that_a_running_proxy_cannot_serve_make_its_agent_unready_until_it_is_restarted() {
    if let Err(reason) = lab::available() {
        return skipped(&reason);
    }
    let lab = Lab::new(NextHop::Single).unwrap();
    let folder = TempDir::new().unwrap();
    lab.write_manifests(folder.path()).unwrap();
    let node = &lab.nodes[0];
    let link = folder.path().join("link.sock");
    let at = ["--link", link.to_str().unwrap(), "--metrics", "off"];
    let this_node = format!("{}={}", node.name, node.address);
    let agent = || {
        Launch::of("agent", &at)
            .args(&["--manifests", folder.path().to_str().unwrap()])
            .args(&["--http", "0.0.0.0:8080", "--https", "0.0.0.0:8443"])
            .args(&["--vip", &VIP.to_string(), "--xdp-interface", "eth0"])
            .args(&["--node-name", &node.name, "--node", &this_node])
            .within(&node.namespace)
    };
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let mut first = agent().wrapped_by(&bare).start_unready().unwrap();
    let proxy = Launch::of("proxy", &at).args(&["--workers", "2"]);
    let mut proxy = proxy.within(&node.namespace).start().unwrap();
    assert_eq!(first.ask("/readyz").unwrap().0, 503);
    first.kill();
    let second = agent().start_unready().unwrap();
    second.wait_for("a proxy is there").unwrap();
    eventually("the agent says that the proxy must be restarted", || {
        let (code, answer) = second.ask("/readyz").unwrap();
        code == 503 && answer.contains("restart it")
    });
    let degraded = &second.status().unwrap()["data_plane"]["degraded"];
    assert!(degraded.to_string().contains("restart it"), "{degraded}");
    proxy.kill();
    proxy.restart().unwrap();
    eventually("the agent is ready", || {
        second.ask("/readyz").unwrap().0 == 200
    });
    let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/"));
    let answer = curl_in(&lab.client, &["-H", &host, &url]).unwrap();
    assert_eq!(answer.status, 200);
}
