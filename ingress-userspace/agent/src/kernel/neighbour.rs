//! Finds the MAC addresses that packets to other nodes carry, and has the kernel keep them fresh.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use ingress_ebpf::abi::{Node, macs, node_flags};
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};

use super::{
    error::{KernelError, netlink_code, with_causes},
    maps::addresses,
    mode::Forward,
    netlink::{Netlink, OWN, Path},
};
use crate::membership::NamedNode;

/// A neighbour's interface and address.
type Key = (u32, Ipv4Addr);

/// A neighbour whose MAC address may be used.
#[derive(Clone, Copy, Debug)]
struct Known {
    mac: [u8; 6],
    /// It stays as it is: the kernel keeps it fresh already, or somebody wrote it down for good. To
    /// ask for that one would make it an ordinary one.
    is_kept: bool,
}

/// How peers are reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Each by its id.
    pub(super) nodes: Vec<(u16, Node)>,
    /// Why one of them is not, where the kernel refuses it.
    pub(super) refusal: Option<String>,
    /// One of them that nobody answers for, or that there is no way to.
    pub(super) silent: Option<String>,
}

/// Works out how each peer is reached now; starts resolution where a MAC address is not known.
///
/// One that the kernel refuses to reach, by a blackhole route or on an interface that is down, is not
/// reached, and harms no other.
///
/// # Errors
///
/// [`KernelError::Netlink`], [`KernelError::Privilege`].
pub(super) async fn resolve(
    netlink: &Netlink,
    peers: &[NamedNode],
    forward: Forward,
) -> Result<Reached, KernelError> {
    let known = known(netlink).await?;
    let interfaces = netlink.interfaces().await?;
    let mut reached = Reached::default();
    for peer in peers {
        let mut refused = |error: KernelError| {
            if !error.is_of_one_question() {
                return Err(error);
            }
            let why = || format!("{} cannot be reached: {}", peer.name, with_causes(&error));
            reached.refusal.get_or_insert_with(why);
            Ok(())
        };
        let path = match netlink.path_to(peer.address).await {
            Ok(path) => path,
            Err(error) => {
                refused(error)?;
                None
            }
        };
        let found = path.and_then(|path| known.get(&(path.interface, path.next_hop)).copied());
        // XDP sends frames past the kernel's neighbour table, so no traffic of ours would make the
        // kernel resolve an address or notice that it is stale. Asked for one that is known, too: if
        // it was stale when it was found, it would never be probed.
        if let Some(path) = path
            && !found.is_some_and(|known| known.is_kept)
            && let Err(error) = ask(netlink, path).await
        {
            refused(error)?;
        }
        let egress = path.and_then(|path| interfaces.get(&path.interface));
        let on_link = path.is_some_and(|path| path.next_hop == peer.address);
        let mut node = Node {
            addresses: addresses(peer.address),
            flags: node_flags::V4,
            mtu: 1500,
            ..Node::default()
        };
        if let Some(egress) = egress {
            // XDP sends by the interface below a VLAN, which puts no tag on.
            let (interface, vlan) = egress.vlan_of.unwrap_or((egress.index, 0));
            node.interface = interface;
            node.vlan = vlan.to_be();
            node.mtu = u16::try_from(egress.mtu).unwrap_or(u16::MAX);
            if let Some(found) = found {
                node.macs = macs(found.mac, egress.mac);
                node.flags |= node_flags::RESOLVED;
            }
            if on_link && forward == Forward::L2 {
                node.flags |= node_flags::L2;
            }
        }
        if node.flags & node_flags::RESOLVED == 0 {
            let silent = || format!("{} ({})", peer.name, peer.address);
            reached.silent.get_or_insert_with(silent);
        }
        reached.nodes.push((peer.id, node));
    }
    Ok(reached)
}

/// The MAC address of a node on the same segment.
pub(super) fn mac_on_segment(node: &Node) -> Option<[u8; 6]> {
    const REACHED_BY_MAC: u16 = node_flags::L2 | node_flags::RESOLVED;
    let [first, second, _] = node.macs.map(u32::to_ne_bytes);
    let [[a, b, c, d], [e, f, ..]] = [first, second];
    (node.flags & REACHED_BY_MAC == REACHED_BY_MAC).then_some([a, b, c, d, e, f])
}

/// Has the kernel keep no neighbour fresh that is no next hop to one of these peers.
///
/// # Errors
///
/// [`KernelError::Netlink`], [`KernelError::Privilege`].
pub(super) async fn forget_others(
    netlink: &Netlink,
    peers: &[NamedNode],
) -> Result<(), KernelError> {
    let of_ours = |message: &NeighbourMessage| {
        let mut attributes = message.attributes.iter();
        attributes.any(|attribute| matches!(attribute, NeighbourAttribute::Protocol(OWN)))
    };
    let mut ours = all(netlink).await?;
    ours.retain(of_ours);
    if ours.is_empty() {
        return Ok(());
    }
    let mut wanted = HashSet::new();
    for peer in peers {
        let path = match netlink.path_to(peer.address).await {
            Err(error) if error.is_of_one_question() => None,
            path => path?,
        };
        wanted.extend(path.map(|path| (path.interface, path.next_hop)));
    }
    for message in ours {
        let interface = message.header.ifindex;
        if destination(&message).is_some_and(|address| wanted.contains(&(interface, address))) {
            continue;
        }
        let forget = netlink.handle().neighbours().del(message);
        match netlink.answer(forget.execute()).await {
            Err(error) if netlink_code(&error) != Some(libc::ENOENT) => {
                return Err(KernelError::netlink("forget a neighbour", error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The neighbours whose MAC address may be used.
async fn known(netlink: &Netlink) -> Result<HashMap<Key, Known>, KernelError> {
    let messages = all(netlink).await?;
    Ok(messages.iter().filter_map(entry).collect())
}

async fn all(netlink: &Netlink) -> Result<Vec<NeighbourMessage>, KernelError> {
    let neighbours = netlink.handle().neighbours().get();
    let neighbours = neighbours.set_address_family(AddressFamily::Inet);
    netlink
        .answer(neighbours.execute().try_collect())
        .await
        .map_err(|error| KernelError::netlink("read the neighbours", error))
}

fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

fn entry(message: &NeighbourMessage) -> Option<(Key, Known)> {
    if matches!(
        message.header.state,
        NeighbourState::Incomplete
            | NeighbourState::Failed
            | NeighbourState::None
            | NeighbourState::Noarp
    ) {
        return None;
    }
    let destination = destination(message)?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        })?;
    let is_managed = message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    });
    let is_kept = is_managed || message.header.state == NeighbourState::Permanent;
    Some((
        (message.header.ifindex, destination),
        Known { mac, is_kept },
    ))
}

/// Has the kernel resolve a neighbour and probe it again before it goes stale (`NTF_EXT_MANAGED`,
/// Linux 5.16); older kernels resolve it once for each call.
async fn ask(netlink: &Netlink, path: Path) -> Result<(), KernelError> {
    let request = || {
        let neighbours = netlink.handle().neighbours();
        let add = neighbours.add(path.interface, IpAddr::V4(path.next_hop));
        let add = add.state(NeighbourState::None);
        let mut add = add.flags(NeighbourFlags::Use).replace();
        let attributes = &mut add.message_mut().attributes;
        attributes.push(NeighbourAttribute::Protocol(OWN));
        add
    };
    let mut managed = request();
    managed
        .message_mut()
        .attributes
        .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    if netlink.answer(managed.execute()).await.is_ok() {
        return Ok(());
    }
    netlink
        .answer(request().execute())
        .await
        .map_err(|error| KernelError::netlink("resolve a neighbour", error))
}
