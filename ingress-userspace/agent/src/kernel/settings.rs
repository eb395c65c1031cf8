//! What the kernel part of a node is told, and what is derived from it.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
};

use ingress_ebpf::abi::{MAX_INTERFACES, SelfNode, entries};

use super::{
    error::KernelError,
    maps::{NamedNode, address},
    mode::{Forward, XdpMode},
    netlink::Interface,
};

/// What the kernel part of a node is told.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Virtual addresses; TCP ports 80 and 443 of each are served.
    pub vips: Vec<Ipv4Addr>,
    /// Interfaces to steer on, at most four. If empty, connections still reach the workers, but
    /// none is steered.
    pub interfaces: Vec<String>,
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// How packets reach other nodes.
    pub forward: Forward,
    /// This node's name in `nodes`.
    pub node_name: String,
    /// Every node's name and address, including this one; the same on all nodes. Empty for a single
    /// node.
    pub nodes: BTreeMap<String, Ipv4Addr>,
    /// Seed of the flow hash and of the Maglev table; the same on all nodes, or they disagree about
    /// owners.
    pub hash_seed: u64,
    /// Directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
}

impl NodeSettings {
    /// The nodes under their ids: the order of their names, so that every node gives the same.
    pub(super) fn named_nodes(&self) -> Result<Vec<NamedNode>, KernelError> {
        let alone = || NamedNode {
            id: 0,
            name: self.node_name.clone(),
            address: Ipv4Addr::UNSPECIFIED,
        };
        if self.nodes.is_empty() {
            return Ok(vec![alone()]);
        }
        if self.nodes.len() > entries::NODES {
            return Err(KernelError::Settings(format!(
                "at most {} nodes can take part",
                entries::NODES
            )));
        }
        let named = (0u16..).zip(&self.nodes);
        Ok(named
            .map(|(id, (name, address))| NamedNode {
                id,
                name: name.clone(),
                address: *address,
            })
            .collect())
    }

    /// Refuses virtual IPs that are somebody's own: `assign` drops connections to all ports of a VIP
    /// but two, and a local route keeps packets for another node here.
    pub(super) fn check_vips(
        &self,
        nodes: &[NamedNode],
        own: &HashMap<Ipv4Addr, String>,
    ) -> Result<(), KernelError> {
        for vip in &self.vips {
            if let Some(interface) = own.get(vip) {
                return Err(KernelError::OwnAddress {
                    vip: *vip,
                    interface: interface.clone(),
                });
            }
            if let Some(node) = nodes.iter().find(|node| node.address == *vip) {
                return Err(KernelError::Settings(format!(
                    "the virtual IP {vip} is the address of the node {}",
                    node.name
                )));
            }
        }
        Ok(())
    }

    pub(super) fn this_node(
        &self,
        nodes: &[NamedNode],
        interfaces: &[Interface],
    ) -> Result<SelfNode, KernelError> {
        let Some(own) = nodes.iter().find(|node| node.name == self.node_name) else {
            return Err(KernelError::Settings(format!(
                "this node's name, {}, is not among the nodes",
                self.node_name
            )));
        };
        let mut macs = [[0; 6]; MAX_INTERFACES];
        if interfaces.len() > macs.len() {
            return Err(KernelError::Settings(format!(
                "at most {MAX_INTERFACES} interfaces can be steered on"
            )));
        }
        for (slot, interface) in macs.iter_mut().zip(interfaces) {
            *slot = interface.mac;
        }
        Ok(SelfNode {
            id: own.id,
            reserved: 0,
            ip4: address(own.address),
            macs,
        })
    }
}
