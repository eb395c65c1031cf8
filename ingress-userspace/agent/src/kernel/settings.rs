//! What the kernel part of a node is told, and what is derived from it.

use std::{collections::HashMap, net::IpAddr, path::PathBuf};

use ingress_ebpf::abi::{self, Interfaces, MAX_INTERFACES, Mac, NODES};

use super::{
    error::KernelError,
    maps::MOST_VIPS,
    mode::{Announce, Forward, XdpMode},
    netlink::Interface,
};
use crate::membership::{Membership, NamedNode, is_of_a_host};

/// What the kernel part of a node is told.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Virtual addresses; TCP ports 80 and 443 of each are served.
    pub vips: Vec<IpAddr>,
    /// Interfaces to steer on, at most four. If empty, connections still reach the workers, but
    /// none is steered.
    pub interfaces: Vec<String>,
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// How packets reach other nodes.
    pub forward: Forward,
    /// How the network learns where the virtual addresses are; the same on all nodes.
    pub announce: Announce,
    /// This node's name in `membership`.
    pub node_name: String,
    /// Every node, including this one; the same on all nodes.
    pub membership: Membership,
    /// Seed of the flow hash and of the Maglev table; the same on all nodes, or they disagree about
    /// owners.
    pub hash_seed: u64,
    /// Directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
}

impl NodeSettings {
    /// Refuses virtual IPs that are somebody's own: `assign` drops connections to all ports of a VIP
    /// but two, and a local route keeps packets for another node here.
    pub(super) fn check_vips(&self, own: &HashMap<IpAddr, String>) -> Result<(), KernelError> {
        if self.vips.len() > MOST_VIPS {
            return Err(KernelError::Settings(format!(
                "at most {MOST_VIPS} virtual IPs can be served"
            )));
        }
        for vip in &self.vips {
            if !is_hosts(*vip) {
                return Err(KernelError::Settings(format!(
                    "{vip} cannot be a virtual IP: no client connects to such an address over a network"
                )));
            }
            if let Some(interface) = own.get(vip) {
                return Err(KernelError::OwnAddress {
                    vip: *vip,
                    interface: interface.clone(),
                });
            }
        }
        check_nodes(&self.vips, &self.membership)
    }
}

/// Whether a host on another network could have the address.
fn is_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_of_a_host(address),
        IpAddr::V6(address) => {
            // The last is an IPv4 address by another name, which no packet of IPv6 has.
            !(address.is_loopback()
                || address.is_multicast()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

/// Refuses virtual IPs that are nodes' addresses.
pub(super) fn check_nodes(vips: &[IpAddr], membership: &Membership) -> Result<(), KernelError> {
    for node in membership.nodes.values() {
        if vips.contains(&IpAddr::V4(node.address)) {
            return Err(KernelError::Settings(format!(
                "the virtual IP {} is the address of the node {}",
                node.address, node.name
            )));
        }
    }
    Ok(())
}

/// The node of this name among all.
pub(super) fn own<'a>(
    membership: &'a Membership,
    name: &str,
) -> Result<&'a NamedNode, KernelError> {
    if membership.nodes.len() > NODES {
        return Err(KernelError::Settings(format!(
            "at most {NODES} nodes can take part"
        )));
    }
    let own = membership.named(name).filter(|node| !node.is_gone);
    own.ok_or_else(|| {
        KernelError::Settings(format!("this node's name, {name}, is not among the nodes"))
    })
}

/// The interfaces that are steered on, as the programs know them.
pub(super) fn steered(interfaces: &[Interface]) -> Result<Interfaces, KernelError> {
    let mut steered = Interfaces::default();
    if interfaces.len() > steered.0.len() {
        return Err(KernelError::Settings(format!(
            "at most {MAX_INTERFACES} interfaces can be steered on"
        )));
    }
    for (slot, interface) in steered.0.iter_mut().zip(interfaces) {
        *slot = abi::Interface {
            index: interface.index,
            mac: Mac::new(interface.mac),
        };
    }
    Ok(steered)
}
