//! The lab's machines and how they are joined.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
};

use anyhow::Result;

use super::{Namespace, PLAIN_HOST, TLS_HOST, ip};
use crate::origin::Origin;

/// The virtual address that the router sends to the nodes.
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The client's address where it is on the nodes' segment.
pub const FLAT_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
/// The router's address on the client's side.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The router's address on the nodes' side.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// Seed of the nodes' flow hash.
pub const HASH_SEED: u64 = 17;
/// Port on which pods answer.
const POD_PORT: u16 = 8080;

/// How the router reaches the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// By the first node: what ARP or a static route gives.
    Single,
    /// By all nodes, each flow by one: what BGP gives. Which one cannot be foretold here: Linux
    /// hashes what the sending socket drew at random, not the ports.
    Ecmp,
    /// By nothing but ARP: the client is on the nodes' segment ([`FLAT_CLIENT`]) and takes the VIP to be
    /// there, too.
    Flat,
}

/// A client, a router, three nodes and their pods; gone when dropped.
#[derive(Debug)]
pub struct Lab {
    /// Where requests come from.
    pub client: Arc<Namespace>,
    /// Stands between the client and the nodes.
    pub router: Arc<Namespace>,
    /// `n1` to `n3`, each with `eth0` on the router's bridge.
    pub nodes: Vec<Node>,
    /// Hold the programs on the router's ports.
    _ports: Vec<OwnedFd>,
}

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    /// `n1` to `n3`.
    pub name: String,
    /// Address of its `eth0`.
    pub address: Ipv4Addr,
    /// Where its Forebay runs.
    pub namespace: Arc<Namespace>,
    /// One for each of the Services `s1` and `s2`.
    pub pods: Vec<Pod>,
}

/// A pod of the lab, on a machine of its own behind its node.
#[derive(Debug)]
pub struct Pod {
    /// `s1` or `s2`.
    pub service: String,
    /// Answers the pod's requests; knows its name and address.
    pub origin: Origin,
    _namespace: Namespace,
}

impl Lab {
    /// Builds the networks and starts the pods.
    ///
    /// # Errors
    /// The process may not: see [`super::available`].
    pub fn new(next_hop: NextHop) -> Result<Self> {
        let (client, router) = (
            Arc::new(Namespace::new("client")?),
            Arc::new(Namespace::new("router")?),
        );
        let nodes = [11, 12, 13].map(|number| Node::new(&router, number));
        let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
        join_router(&client, &router, &nodes, next_hop)?;
        let hops: Vec<_> = nodes.iter().map(|node| node.address).collect();
        match next_hop {
            NextHop::Single => router.route(VIP, 32, &hops[..1])?,
            NextHop::Ecmp => router.route(VIP, 32, &hops)?,
            NextHop::Flat => drop(ip(
                &client,
                &["route", "add", &VIP.to_string(), "dev", "eth0"],
            )?),
        }
        for node in &nodes {
            node.namespace.route(Ipv4Addr::UNSPECIFIED, 0, &[GATEWAY])?;
            for other in nodes.iter().filter(|other| other.name != node.name) {
                node.namespace
                    .route(pod_network(other.address), 24, &[other.address])?;
            }
        }
        let ports = nodes
            .iter()
            .map(|node| router.accept_xdp_frames(&node.name))
            .collect::<Result<_>>()?;
        Ok(Self {
            client,
            router,
            nodes,
            _ports: ports,
        })
    }

    /// `--node` for every node.
    pub fn node_flags(&self) -> Vec<String> {
        let flag = |node: &Node| {
            [
                "--node".to_owned(),
                format!("{}={}", node.name, node.address),
            ]
        };
        self.nodes.iter().flat_map(flag).collect()
    }
}

fn join_router(
    client: &Namespace,
    router: &Namespace,
    nodes: &[Node],
    next_hop: NextHop,
) -> Result<()> {
    client.hosts(&format!(
        "{VIP} {PLAIN_HOST} {TLS_HOST}\n127.0.0.1 localhost\n"
    ))?;
    client.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    client.veth("eth0", router, "client")?;
    let mut ports: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    let (own, gateway) = if next_hop == NextHop::Flat {
        ports.push("client");
        (FLAT_CLIENT, GATEWAY)
    } else {
        router.address("client", ROUTER, 24)?;
        (CLIENT, ROUTER)
    };
    client.address("eth0", own, 24)?;
    client.route(Ipv4Addr::UNSPECIFIED, 0, &[gateway])?;
    // XDP_TX loses the note that a checksum is still to be computed, so the sources compute it.
    client.disable_tx_checksum_offload("eth0")?;
    router.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    router.bridge("br0", &ports)?;
    router.address("br0", GATEWAY, 24)
}

impl Node {
    fn new(router: &Namespace, number: u8) -> Result<Self> {
        let name = format!("n{}", number - 10);
        let address = Ipv4Addr::new(198, 18, 1, number);
        let namespace = Arc::new(Namespace::new(&name)?);
        namespace.up("lo")?;
        for (key, value) in [
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv4/ip_forward", "1"),
            // The VIP is on every node: none may speak for it in ARP.
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
        ] {
            namespace.sysctl(key, value)?;
        }
        namespace.veth("eth0", router, &name)?;
        namespace.address("eth0", address, 24)?;
        let pods = ["s1", "s2"].into_iter().enumerate();
        let pods = pods
            .map(|(index, service)| Pod::new(&namespace, address, index, service))
            .collect::<Result<_>>()?;
        Ok(Self {
            name,
            address,
            namespace,
            pods,
        })
    }
}

impl Pod {
    /// Joins a new pod to `node` by a /30 of the node's pod network.
    fn new(node: &Namespace, node_address: Ipv4Addr, index: usize, service: &str) -> Result<Self> {
        let name = format!("{service}-{}", node.name());
        let namespace = Namespace::new(&name)?;
        let (port, network) = (
            format!("pod{index}"),
            u32::from(pod_network(node_address)) + 4 * index as u32,
        );
        let (gateway, address) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        namespace.veth("eth0", node, &port)?;
        node.address(&port, gateway, 30)?;
        namespace.address("eth0", address, 30)?;
        namespace.route(Ipv4Addr::UNSPECIFIED, 0, &[gateway])?;
        let origin = namespace.origin(&name, SocketAddr::from((address, POD_PORT)))?;
        Ok(Self {
            service: service.to_owned(),
            origin,
            _namespace: namespace,
        })
    }
}

/// The /24 of the pods of the node at `node`.
fn pod_network(node: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, node.octets()[3], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::curl_in, origin::Echo};

    #[test]
    fn every_node_reaches_every_pod_and_the_client() {
        if let Err(reason) = crate::lab::available() {
            return crate::skipped(&reason);
        }
        let lab = Lab::new(NextHop::Single).unwrap();
        for from in &lab.nodes {
            for pod in lab.nodes.iter().flat_map(|node| &node.pods) {
                let answer = curl_in(
                    &from.namespace,
                    &[format!("http://{}/", pod.origin.address())],
                )
                .unwrap();
                assert_eq!(
                    answer.json::<Echo>().unwrap().pod,
                    pod.origin.pod(),
                    "from {}",
                    from.name
                );
            }
        }
        let origin = lab
            .client
            .origin("client", SocketAddr::from((CLIENT, 80)))
            .unwrap();
        for from in &lab.nodes {
            assert_eq!(
                curl_in(&from.namespace, &[format!("http://{CLIENT}/")])
                    .unwrap()
                    .status,
                200
            );
        }
        assert_eq!(origin.requests(), 3);
    }

    #[test]
    fn router_sends_the_vip_to_one_node_or_spreads_its_flows_over_all() {
        if let Err(reason) = crate::lab::available() {
            return crate::skipped(&reason);
        }
        for (next_hop, expected) in [(NextHop::Single, 1), (NextHop::Ecmp, 3)] {
            let lab = Lab::new(next_hop).unwrap();
            let origins: Vec<_> = (lab.nodes.iter())
                .map(|node| {
                    node.namespace.address("lo", VIP, 32).unwrap();
                    node.namespace
                        .origin(&node.name, SocketAddr::from((VIP, 80)))
                        .unwrap()
                })
                .collect();
            for port in 40_000..40_030 {
                let args = [
                    "--local-port".to_owned(),
                    port.to_string(),
                    format!("http://{VIP}/"),
                ];
                let echo: Echo = curl_in(&lab.client, &args).unwrap().json().unwrap();
                assert_eq!(echo.peer, SocketAddr::from((CLIENT, port)));
            }
            let reached = origins
                .iter()
                .filter(|origin| origin.requests() > 0)
                .count();
            assert_eq!(reached, expected, "{next_hop:?}");
        }
    }
}
