//! Finds the MAC addresses that packets to other nodes carry, and has the kernel keep them fresh.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use ingress_ebpf::abi::{Node, node_flags};
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};

use super::{
    error::KernelError,
    maps::{NamedNode, address},
    mode::Forward,
    netlink::{Netlink, Path},
};

/// A neighbour's interface and address.
type Key = (u32, Ipv4Addr);

/// Works out how each peer is reached now; starts resolution where a MAC address is not known.
///
/// # Errors
///
/// [`KernelError::Netlink`], [`KernelError::Privilege`].
pub(super) async fn resolve(
    netlink: &Netlink,
    peers: &[NamedNode],
    forward: Forward,
) -> Result<Vec<(u16, Node)>, KernelError> {
    let known = known(netlink).await?;
    let mtus = netlink.mtus().await?;
    let mut nodes = Vec::with_capacity(peers.len());
    for peer in peers {
        let path = netlink.path_to(peer.address).await?;
        let mac = path.and_then(|path| known.get(&(path.interface, path.next_hop)).copied());
        // XDP sends frames past the kernel's neighbour table, so no traffic of ours would make the
        // kernel resolve an address or notice that it is stale.
        if let Some(path) = path.filter(|_| mac.is_none()) {
            ask(netlink, path).await?;
        }
        let mtu = path
            .and_then(|path| mtus.get(&path.interface).copied())
            .unwrap_or(1500);
        let on_link = path.is_some_and(|path| path.next_hop == peer.address);
        nodes.push((
            peer.id,
            node(peer.address, mac, mtu, on_link && forward == Forward::L2),
        ));
    }
    Ok(nodes)
}

fn node(ip: Ipv4Addr, mac: Option<[u8; 6]>, mtu: u32, l2: bool) -> Node {
    let resolved = if mac.is_some() { node_flags::V4 } else { 0 };
    Node {
        ip4: address(ip),
        mac: mac.unwrap_or_default(),
        flags: resolved | if l2 { node_flags::L2 } else { 0 },
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        ..Node::default()
    }
}

/// The neighbours whose MAC address may be used.
async fn known(netlink: &Netlink) -> Result<HashMap<Key, [u8; 6]>, KernelError> {
    let messages: Vec<NeighbourMessage> = netlink
        .handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet)
        .execute()
        .try_collect()
        .await
        .map_err(|error| KernelError::netlink("read the neighbours", error))?;
    Ok(messages.iter().filter_map(entry).collect())
}

fn entry(message: &NeighbourMessage) -> Option<(Key, [u8; 6])> {
    if matches!(
        message.header.state,
        NeighbourState::Incomplete
            | NeighbourState::Failed
            | NeighbourState::None
            | NeighbourState::Noarp
    ) {
        return None;
    }
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        })?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })?;
    Some(((message.header.ifindex, destination), mac))
}

/// Has the kernel resolve a neighbour and probe it again before it goes stale (`NTF_EXT_MANAGED`,
/// Linux 5.16); older kernels resolve it once for each call.
async fn ask(netlink: &Netlink, path: Path) -> Result<(), KernelError> {
    let request = || {
        let add = netlink
            .handle
            .neighbours()
            .add(path.interface, IpAddr::V4(path.next_hop));
        add.state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
    };
    let mut managed = request();
    managed
        .message_mut()
        .attributes
        .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    if managed.execute().await.is_ok() {
        return Ok(());
    }
    request()
        .execute()
        .await
        .map_err(|error| KernelError::netlink("resolve a neighbour", error))
}
