//! Fills the maps: who takes part, which VIPs there are, who owns which bucket.
//!
//! Tables are swapped whole; everything else is one value at a time, in an order that leaves no
//! reference without its target.

use std::net::Ipv4Addr;

use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, SockMap},
};
use ingress_ebpf::{
    abi::{
        Bucket, MAGIC, MacKey, Meta, NO_HOP, Node, SCHEMA, SelfNode, SocketSet, TABLE_LEN, VipKey,
        VipValue, mapped,
    },
    maglev::{self, Member},
    verdict::Reason,
};

use super::{error::KernelError, load::Loaded, sys::Plain};

/// The listener set of port 80.
pub(super) const HTTP_SET: u8 = 0;
/// The listener set of port 443.
pub(super) const HTTPS_SET: u8 = 1;
/// What a VIP serves: the port and its listener set.
const PORTS: [(u16, u8); 2] = [(80, HTTP_SET), (443, HTTPS_SET)];

type PlainArray<V> = Array<MapData, Plain<V>>;

/// Typed handles of the pinned maps.
pub(super) struct Maps {
    meta: PlainArray<Meta>,
    this_node: PlainArray<SelfNode>,
    vips: HashMap<MapData, Plain<VipKey>, Plain<VipValue>>,
    tables: ArrayOfMaps<MapData, PlainArray<Bucket>>,
    nodes: PlainArray<Node>,
    peers: HashMap<MapData, [u8; 16], u32>,
    peer_macs: HashMap<MapData, Plain<MacKey>, u32>,
    sockets: SockMap<MapData>,
    sets: PlainArray<SocketSet>,
    counters: PerCpuArray<MapData, u64>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

/// One node of the set, under the id that all nodes know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedNode {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
}

impl Maps {
    /// Takes the maps of the loaded object.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where one is missing, [`KernelError::Schema`] where another version
    /// filled them.
    pub(super) fn take(loaded: &mut Loaded) -> Result<Self, KernelError> {
        let maps = Self {
            meta: take(loaded, "META")?,
            this_node: take(loaded, "SELF")?,
            vips: take(loaded, "VIPS")?,
            tables: take(loaded, "TABLES")?,
            nodes: take(loaded, "NODES")?,
            peers: take(loaded, "PEERS")?,
            peer_macs: take(loaded, "PEER_MACS")?,
            sockets: take(loaded, "SOCKS")?,
            sets: take(loaded, "SETS")?,
            counters: take(loaded, "COUNTERS")?,
        };
        // Zeroed maps are new. Others are of this schema by their directory, unless someone renamed
        // it: better refused than read wrongly.
        let meta = maps.meta.get(&0, 0).map_err(in_map("META"))?.0;
        if meta.magic == MAGIC && meta.schema != SCHEMA {
            return Err(KernelError::Schema {
                found: meta.schema,
                expected: SCHEMA,
            });
        }
        Ok(maps)
    }

    /// Says who this node is and who may send it encapsulated packets.
    pub(super) fn set_members(
        &mut self,
        this_node: SelfNode,
        nodes: &[NamedNode],
    ) -> Result<(), KernelError> {
        let peers = nodes.iter().filter(|node| node.id != this_node.id);
        let wanted = peers
            .map(|node| (mapped(address(node.address)), u32::from(node.id)))
            .collect();
        replace(&mut self.peers, wanted).map_err(in_map("PEERS"))?;
        self.this_node
            .set(0, Plain(this_node), 0)
            .map_err(in_map("SELF"))
    }

    /// Says how a node is reached.
    pub(super) fn set_node(&mut self, id: u16, node: Node) -> Result<(), KernelError> {
        self.nodes
            .set(u32::from(id), Plain(node), 0)
            .map_err(in_map("NODES"))
    }

    /// Says which MAC addresses are nodes on this segment.
    pub(super) fn set_peer_macs(
        &mut self,
        macs: impl Iterator<Item = ([u8; 6], u16)>,
    ) -> Result<(), KernelError> {
        let wanted = macs
            .map(|(mac, id)| {
                (
                    Plain(MacKey {
                        mac,
                        reserved: [0; 2],
                    }),
                    u32::from(id),
                )
            })
            .collect();
        replace(&mut self.peer_macs, wanted).map_err(in_map("PEER_MACS"))
    }

    /// Builds the Maglev table in a fresh array and swaps it in: packets meet the old table or the
    /// new one.
    ///
    /// `seed` places nodes in the table and flows in buckets.
    pub(super) fn swap_table(&mut self, nodes: &[NamedNode], seed: u64) -> Result<(), KernelError> {
        let members: Vec<_> = nodes
            .iter()
            .map(|node| Member {
                id: node.id,
                name: &node.name,
            })
            .collect();
        let mut fresh =
            PlainArray::<Bucket>::create(TABLE_LEN as u32, 0).map_err(in_map("TABLES"))?;
        for (index, bucket) in (0u32..).zip(maglev::table(&members, seed)) {
            fresh
                .set(index, Plain(bucket), 0)
                .map_err(in_map("TABLES"))?;
        }
        let epoch = self.meta.get(&0, 0).map_err(in_map("META"))?.0.epoch + 1;
        let meta = Meta {
            magic: MAGIC,
            schema: SCHEMA,
            reserved: 0,
            epoch,
            seed: [(seed >> 32) as u32, seed as u32],
        };
        // Seed and table lie in two maps and change one after the other. Only a new seed shows: the
        // packets in between look up the old table by the new hash.
        self.meta.set(0, Plain(meta), 0).map_err(in_map("META"))?;
        self.tables.set(0, &fresh, 0).map_err(in_map("TABLES"))
    }

    /// Says which addresses are VIPs, and returns those that no longer are.
    pub(super) fn set_vips(&mut self, vips: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>, KernelError> {
        let before: Vec<_> = self
            .vips
            .keys()
            .filter_map(Result::ok)
            .map(|key| key.0.addr)
            .collect();
        let mut wanted = Vec::new();
        for vip in vips {
            let value = |set| Plain(VipValue { table: 0, set });
            wanted.push((Plain(VipKey::address4(address(*vip))), value(0)));
            for (port, set) in PORTS {
                wanted.push((Plain(VipKey::tcp4(address(*vip), port.to_be())), value(set)));
            }
        }
        replace(&mut self.vips, wanted).map_err(in_map("VIPS"))?;
        // Told to the caller, who takes their routes back: a VIP that the maps forgot but the
        // kernel still takes for local would answer with resets.
        let mut gone: Vec<_> = before
            .into_iter()
            .filter_map(|addr| std::net::Ipv6Addr::from(addr).to_ipv4_mapped())
            .collect();
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|addr| !vips.contains(addr));
        Ok(gone)
    }

    /// Stores a listening socket.
    pub(super) fn set_socket(
        &mut self,
        slot: u32,
        socket: &std::net::TcpListener,
    ) -> Result<(), KernelError> {
        self.sockets.set(slot, socket, 0).map_err(in_map("SOCKS"))
    }

    /// The slots a listener set has now.
    pub(super) fn socket_set(&self, set: u8) -> Result<SocketSet, KernelError> {
        Ok(self.sets.get(&u32::from(set), 0).map_err(in_map("SETS"))?.0)
    }

    /// Gives a listener set other slots, in one store.
    pub(super) fn set_socket_set(&mut self, set: u8, slots: SocketSet) -> Result<(), KernelError> {
        self.sets
            .set(u32::from(set), Plain(slots), 0)
            .map_err(in_map("SETS"))
    }

    /// Every reason's count, added up over the CPUs.
    pub(super) fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let sum = |reason: &Reason| {
            let values = self
                .counters
                .get(&reason.index(), 0)
                .map_err(in_map("COUNTERS"))?;
            Ok((*reason, values.iter().sum()))
        };
        Reason::ALL.iter().map(sum).collect()
    }
}

/// An IPv4 address as the maps keep it: the bytes of the packet.
pub(super) fn address(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// Inserts what is wanted, then removes the rest: what stays is never missing.
fn replace<K: Pod + PartialEq, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    wanted: Vec<(K, V)>,
) -> Result<(), MapError> {
    for (key, value) in &wanted {
        map.insert(key, value, 0)?;
    }
    let present: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in present
        .iter()
        .filter(|key| !wanted.iter().any(|(wanted, _)| wanted == *key))
    {
        map.remove(key)?;
    }
    Ok(())
}

fn take<M: TryFrom<Map, Error = MapError>>(
    loaded: &mut Loaded,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = loaded.0.take_map(name).ok_or(KernelError::NoObject)?;
    M::try_from(map).map_err(in_map(name))
}

fn in_map(name: &'static str) -> impl Fn(MapError) -> KernelError {
    move |error| KernelError::map(name, error)
}

// A node id is never the mark of an empty hop.
const _: () = assert!(ingress_ebpf::abi::entries::NODES < NO_HOP as usize);
