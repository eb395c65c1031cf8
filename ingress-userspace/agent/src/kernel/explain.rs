//! Says where the packets of a connection go, from the pinned maps and by the programs' own code.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use ingress_ebpf::{
    abi::{
        ANY_SERVICE, Bucket, Meta, NO_HOP, NODES, Node, POOLS, SocketSet, Unit, VipKey4, VipKey6,
        VipValue, node_flags, service,
    },
    family::{Family as _, V4, V6},
    flow::{self, Flow},
    hash::{self, Digest},
    headers::TCP,
};

use super::{
    error::KernelError,
    maps::{address, words},
    pins::Pins,
    sys::Plain,
};

/// Where packets of a connection go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The address is no virtual IP: the kernel goes on with them.
    NotVip,
    /// The address is a virtual IP that does not serve the port: they are dropped.
    ClosedPort,
    /// To a node.
    Steered(Steered),
}

/// Where packets of a connection to a virtual IP go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steered {
    /// The epoch of the nodes' set.
    pub epoch: u64,
    /// The bucket of the flow.
    pub bucket: u32,
    /// The owner of new connections, then the nodes that may have an older one.
    pub hops: Vec<Hop>,
    /// Which of how many workers gets it, counted from zero, where it is this node's; `None` while none
    /// listens.
    pub worker: Option<(u32, u32)>,
}

/// A node that is asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its id.
    pub id: u16,
    /// Its address.
    pub address: Ipv4Addr,
    /// How packets get there.
    pub reach: Reach,
}

/// How packets get to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is this one.
    Here,
    /// Inside UDP, by the interface of this index.
    Udp(u32),
    /// As they are, by its MAC address.
    Mac(u32),
    /// Its MAC address, or that of the router to it, is not known: they stay here.
    Unresolved,
}

/// Says where packets of a TCP connection from `client` to `service` go that enter by this node.
///
/// # Errors
///
/// [`KernelError::Settings`] where nothing is pinned or the addresses are of two families;
/// [`KernelError::Map`] where a map cannot be read.
pub fn explain(pin_dir: &Path, client: SocketAddr, server: SocketAddr) -> Result<Way, KernelError> {
    let pins = Pins::existing(pin_dir)?.ok_or_else(|| {
        KernelError::Settings(format!(
            "nothing serves virtual IPs here: no maps in {}",
            pin_dir.display()
        ))
    })?;
    let meta: Plain<Meta> = value(&pins, "META", 0)?;
    let unit: Plain<Unit> = value(&pins, "UNITS", u32::from(meta.0.current))?;
    let unit = unit.0;
    let ports = flow::ports(client.port().to_be(), server.port().to_be());
    let (vip, is_vip, digest) = match (client.ip(), server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => {
            let vips: HashMap<_, Plain<VipKey4>, Plain<VipValue>> = hash_map(&pins, "VIPS4")?;
            let flow = Flow {
                source: address(client),
                destination: address(vip),
                ports,
            };
            let find = |service| {
                let key = VipKey4 {
                    address: flow.destination,
                    service,
                };
                found(vips.get(&Plain(key), 0), "VIPS4")
            };
            let vip = find(service(server.port().to_be(), TCP))?;
            (vip, find(ANY_SERVICE)?, V4::digest(&flow, &unit.keys))
        }
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            let vips: HashMap<_, Plain<VipKey6>, Plain<VipValue>> = hash_map(&pins, "VIPS6")?;
            let flow = Flow {
                source: words(client),
                destination: words(vip),
                ports,
            };
            let find = |service| {
                let key = VipKey6 {
                    address: flow.destination,
                    service,
                };
                found(vips.get(&Plain(key), 0), "VIPS6")
            };
            let vip = find(service(server.port().to_be(), TCP))?;
            (vip, find(ANY_SERVICE)?, V6::digest(&flow, &unit.keys))
        }
        _ => {
            let families = "the two addresses must be of one version of IP";
            return Err(KernelError::Settings(families.to_owned()));
        }
    };
    let Some(vip) = vip else {
        return Ok(if is_vip.is_some() {
            Way::ClosedPort
        } else {
            Way::NotVip
        });
    };
    steered(&pins, &meta.0, &unit, &vip, digest).map(Way::Steered)
}

fn steered(
    pins: &Pins,
    meta: &Meta,
    unit: &Unit,
    vip: &VipValue,
    digest: Digest,
) -> Result<Steered, KernelError> {
    let index = hash::bucket(digest.bucket(&unit.keys));
    let tables = ArrayOfMaps::<_, Array<MapData, Plain<Bucket>>>::try_from(Map::ArrayOfMaps(open(
        pins, "TABLES",
    )?));
    let tables = tables.map_err(|error| KernelError::map("TABLES", error))?;
    let table = u32::from(meta.current) * POOLS as u32 + u32::from(vip.pool);
    let bucket = tables
        .get(&table, 0)
        .and_then(|table| table.get(&index, 0))
        .map_err(|error| KernelError::map("TABLES", error))?;
    let mut hops = Vec::new();
    for id in bucket.0.hops.into_iter().filter(|id| *id != NO_HOP) {
        let at = u32::from(meta.current) * NODES as u32 + u32::from(id);
        let node: Plain<Node> = value(pins, "NODES", at)?;
        hops.push(hop(id, &node.0, unit, hops.is_empty()));
    }
    let set: Plain<SocketSet> = value(pins, "SETS", u32::from(vip.set))?;
    let worker = hash::slot(digest.worker(&unit.keys), set.0, 0)
        .map(|slot| (slot.wrapping_sub(set.0.base), set.0.count));
    Ok(Steered {
        epoch: unit.epoch,
        bucket: index,
        hops,
        worker,
    })
}

fn hop(id: u16, node: &Node, unit: &Unit, is_first: bool) -> Hop {
    let reach = if id == unit.self_id {
        Reach::Here
    } else if node.flags & node_flags::RESOLVED == 0 {
        Reach::Unresolved
    } else if node.flags & node_flags::L2 != 0 && is_first {
        Reach::Mac(node.interface)
    } else {
        Reach::Udp(node.interface)
    };
    Hop {
        id,
        address: Ipv4Addr::from(node.addresses.ip4.to_ne_bytes()),
        reach,
    }
}

fn open(pins: &Pins, name: &'static str) -> Result<MapData, KernelError> {
    MapData::from_pin(pins.map(name)).map_err(|error| KernelError::map(name, error))
}

/// An element of an array.
fn value<V: aya::Pod>(pins: &Pins, name: &'static str, index: u32) -> Result<V, KernelError> {
    let array = Array::<_, V>::try_from(Map::Array(open(pins, name)?));
    array
        .and_then(|array| array.get(&index, 0))
        .map_err(|error| KernelError::map(name, error))
}

fn hash_map<K: aya::Pod, V: aya::Pod>(
    pins: &Pins,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, KernelError> {
    HashMap::try_from(Map::HashMap(open(pins, name)?))
        .map_err(|error| KernelError::map(name, error))
}

/// What a look-up found; `None` where there is no such key.
fn found(
    looked_up: Result<Plain<VipValue>, MapError>,
    name: &'static str,
) -> Result<Option<VipValue>, KernelError> {
    match looked_up {
        Ok(value) => Ok(Some(value.0)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(KernelError::map(name, error)),
    }
}
