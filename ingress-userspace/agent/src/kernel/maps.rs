//! Fills the maps: who takes part, which VIPs there are, who owns which bucket.
//!
//! Tables are swapped whole; everything else is one value at a time, in an order that leaves no
//! reference without its target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::maps::{
    Array, ArrayOfMaps, HashMap, IterableMap as _, Map, MapData, MapError, MapInfo, PerCpuArray,
    PerCpuValues, SockMap,
};
use ingress_ebpf::{
    abi::{
        ANY_SERVICE, Addresses, Bucket, FirstHops, Interfaces, Keys, MAGIC, Mac, Meta, NO_HOP,
        NODES, Node, NodeCounters, PEER_MAC_BITS, POOLS, SCHEMA, SocketSet, TABLE_LEN, UNITS, Unit,
        VipCounters, VipKey4, VipKey6, VipSlot4, VipSlot6, VipValue, entries, service, unit_flags,
    },
    headers::TCP,
    maglev::{self, Member},
    reason::Reason,
    vip_slots::{self, Slotted},
};

use super::{error::KernelError, load::Loaded, pins::Pins, sys, sys::Plain};
use crate::membership::{Membership, NamedNode};

/// The listener set of port 80.
pub(super) const HTTP_SET: u8 = 0;
/// The listener set of port 443.
pub(super) const HTTPS_SET: u8 = 1;
/// The listener sets of IPv6.
pub(super) const HTTP6_SET: u8 = 2;
pub(super) const HTTPS6_SET: u8 = 3;
const ALL_SETS: [u8; 4] = [HTTP_SET, HTTPS_SET, HTTP6_SET, HTTPS6_SET];

/// The slots of all listener sets.
pub(super) type SocketSets = [SocketSet; ALL_SETS.len()];
/// What a VIP serves: the port and its listener set, of IPv4 and of IPv6.
const PORTS: [(u16, u8, u8); 2] = [(80, HTTP_SET, HTTP6_SET), (443, HTTPS_SET, HTTPS6_SET)];

/// Most VIPs of either version that there is room for: each has a key for itself and one for each
/// port.
pub(super) const MOST_VIPS: usize = entries::VIPS / (1 + PORTS.len());

type PlainArray<V> = Array<MapData, Plain<V>>;

/// Typed handles of the pinned maps.
pub(super) struct Maps {
    meta: PlainArray<Meta>,
    units: PlainArray<Unit>,
    interfaces: PlainArray<Interfaces>,
    vips4: HashMap<MapData, Plain<VipKey4>, Plain<VipValue>>,
    vips6: HashMap<MapData, Plain<VipKey6>, Plain<VipValue>>,
    vip_slots4: PlainArray<VipSlot4>,
    vip_slots6: PlainArray<VipSlot6>,
    tables: ArrayOfMaps<MapData, PlainArray<Bucket>>,
    first_hops: ArrayOfMaps<MapData, PlainArray<FirstHops>>,
    nodes: PlainArray<Node>,
    peer_macs: Array<MapData, u32>,
    sockets: SockMap<MapData>,
    sets: PlainArray<SocketSet>,
    counters: PerCpuArray<MapData, u64>,
    vip_counters: PerCpuArray<MapData, Plain<VipCounters>>,
    node_counters: PerCpuArray<MapData, Plain<NodeCounters>>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
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
            units: take(loaded, "UNITS")?,
            interfaces: take(loaded, "INTERFACES")?,
            vips4: take(loaded, "VIPS4")?,
            vips6: take(loaded, "VIPS6")?,
            vip_slots4: take(loaded, "VIP_SLOTS4")?,
            vip_slots6: take(loaded, "VIP_SLOTS6")?,
            tables: take(loaded, "TABLES")?,
            first_hops: take(loaded, "FIRST_HOPS")?,
            nodes: take(loaded, "NODES")?,
            peer_macs: take(loaded, "PEER_MACS")?,
            sockets: take(loaded, "SOCKS")?,
            sets: take(loaded, "SETS")?,
            counters: take(loaded, "COUNTERS")?,
            vip_counters: take(loaded, "VIP_COUNTERS")?,
            node_counters: take(loaded, "NODE_COUNTERS")?,
        };
        // Zeroed maps are new. Others are of this schema by their directory, unless someone renamed
        // it: better refused than read wrongly.
        let meta = maps.meta()?;
        if meta.magic == MAGIC && meta.schema != SCHEMA {
            return Err(KernelError::Schema {
                found: meta.schema,
                expected: SCHEMA,
            });
        }
        Ok(maps)
    }

    /// Whether these are the maps that are pinned, and not what a process still holds of others.
    pub(super) fn are_pinned(&self, pins: &Pins) -> Result<bool, KernelError> {
        let path = pins.map("META");
        if !path.exists() {
            return Ok(false);
        }
        let pinned = MapInfo::from_pin(path).map_err(in_map("META"))?;
        let own = self.meta.map().info().map_err(in_map("META"))?;
        Ok(pinned.id() == own.id())
    }

    fn meta(&self) -> Result<Meta, KernelError> {
        Ok(self.meta.get(&0, 0).map_err(in_map("META"))?.0)
    }

    /// The unit that is in force, whoever filled it.
    fn current(&self) -> Result<u32, KernelError> {
        Ok(u32::from(self.meta()?.current) % UNITS as u32)
    }

    /// The number of the fill that is in force; zero before the first.
    pub(super) fn fill(&self) -> Result<u32, KernelError> {
        let unit = self.units.get(&self.current()?, 0);
        Ok(unit.map_err(in_map("UNITS"))?.0.fill)
    }

    /// Fills the unit that is not in force: table, nodes, own id and keys. No packet sees it before
    /// [`Self::flip`].
    ///
    /// `seed` places nodes in the table and flows in buckets; `is_by_mac` says that nodes on one segment
    /// send each other frames as they are.
    pub(super) fn fill_unit(
        &mut self,
        own: &NamedNode,
        membership: &Membership,
        reached: &[(u16, Node)],
        seed: u64,
        is_by_mac: bool,
    ) -> Result<FilledUnit, KernelError> {
        let fill = self.fill()?.wrapping_add(1);
        let number = (self.current()? + 1) % UNITS as u32;
        let members: Vec<_> = membership
            .nodes
            .values()
            .map(|node| Member {
                id: node.id,
                name: &node.name,
                is_gone: node.is_gone,
            })
            .collect();
        let table = maglev::table(&members, &membership.owners, seed, membership.epoch);
        let fresh = PlainArray::<Bucket>::create(TABLE_LEN as u32, 0).map_err(in_map("TABLES"))?;
        sys::store(fresh.map(), 0, &table).map_err(|error| KernelError::map("TABLES", error))?;
        let hops = maglev::first_hops(&table);
        let fresh_hops =
            PlainArray::<FirstHops>::create(hops.len() as u32, 0).map_err(in_map("FIRST_HOPS"))?;
        sys::store(fresh_hops.map(), 0, &hops)
            .map_err(|error| KernelError::map("FIRST_HOPS", error))?;
        // Ids that nobody has any more must lead nowhere.
        let mut by_id = [Node::default(); NODES];
        for (id, node) in reached {
            if let Some(slot) = by_id.get_mut(usize::from(*id)) {
                *slot = *node;
            }
        }
        sys::store(self.nodes.map(), number * NODES as u32, &by_id)
            .map_err(|error| KernelError::map("NODES", error))?;
        let keys = Keys::of(seed);
        let unit = Unit {
            epoch: membership.epoch,
            keys,
            addresses: addresses(own.address),
            self_id: own.id,
            flags: if is_by_mac { unit_flags::BY_MAC } else { 0 },
            fill,
            mark: Unit::mark_of(membership.digest(), &keys),
        };
        self.units
            .set(number, Plain(unit), 0)
            .map_err(in_map("UNITS"))?;
        self.tables
            .set(number * POOLS as u32, &fresh, 0)
            .map_err(in_map("TABLES"))?;
        self.first_hops
            .set(number * POOLS as u32, &fresh_hops, 0)
            .map_err(in_map("FIRST_HOPS"))?;
        Ok(FilledUnit { number, fill })
    }

    /// Puts a filled unit in force, in one store.
    pub(super) fn flip(&mut self, unit: FilledUnit) -> Result<(), KernelError> {
        let meta = Meta {
            magic: MAGIC,
            schema: SCHEMA,
            current: unit.number as u16,
        };
        self.meta.set(0, Plain(meta), 0).map_err(in_map("META"))
    }

    /// What packets and connections go by now, whoever wrote it.
    pub(super) fn in_force(&self) -> Result<InForce, KernelError> {
        let interfaces = self.interfaces.get(&0, 0).map_err(in_map("INTERFACES"))?;
        let vips = self.vips()?.into_iter();
        Ok(InForce {
            meta: self.meta()?,
            sets: self.socket_sets()?,
            interfaces: interfaces.0,
            vips: vips.map(|(vip, (_, flags))| (vip, flags)).collect(),
        })
    }

    /// Puts back what was in force, but for the VIPs. Its unit is untouched: only the other one is
    /// ever filled.
    pub(super) fn put_back(&mut self, before: &InForce) -> Result<(), KernelError> {
        self.set_socket_sets(before.sets)?;
        self.set_interfaces(before.interfaces)?;
        self.meta
            .set(0, Plain(before.meta), 0)
            .map_err(in_map("META"))
    }

    /// Says how a node of the unit that is in force is reached now.
    pub(super) fn set_node(&mut self, id: u16, node: Node) -> Result<(), KernelError> {
        let first = self.current()? * NODES as u32;
        self.nodes
            .set(first + u32::from(id), Plain(node), 0)
            .map_err(in_map("NODES"))
    }

    /// Says which interfaces are steered on, and their MAC addresses.
    pub(super) fn set_interfaces(&mut self, interfaces: Interfaces) -> Result<(), KernelError> {
        self.interfaces
            .set(0, Plain(interfaces), 0)
            .map_err(in_map("INTERFACES"))
    }

    /// Says which MAC addresses are nodes on this segment.
    pub(super) fn set_peer_macs(
        &mut self,
        macs: impl Iterator<Item = [u8; 6]>,
    ) -> Result<(), KernelError> {
        let mut words = vec![0u32; PEER_MAC_BITS / 32];
        for mac in macs {
            let bit = Mac::new(mac).bit();
            if let Some(word) = words.get_mut(bit as usize / 32) {
                *word |= 1 << (bit % 32);
            }
        }
        for (index, word) in (0u32..).zip(words) {
            let before = self.peer_macs.get(&index, 0);
            if before.map_err(in_map("PEER_MACS"))? != word {
                self.peer_macs
                    .set(index, word, 0)
                    .map_err(in_map("PEER_MACS"))?;
            }
        }
        Ok(())
    }

    /// Says which addresses are VIPs, each with its flags: who announces it.
    ///
    /// A VIP keeps its counters as long as it is one.
    pub(super) fn set_vips(&mut self, vips: &[(IpAddr, u16)]) -> Result<(), KernelError> {
        let before = self.vips()?;
        let vips: BTreeMap<_, _> = vips.iter().copied().collect();
        let kept = |vip| before.get(vip).map(|(index, _)| *index);
        let taken: BTreeSet<_> = vips.keys().filter_map(kept).collect();
        let used: BTreeSet<_> = before.values().map(|(index, _)| *index).collect();
        // Those that go count until they are gone: their indices are the last to be given away.
        let (leaving, unused): (Vec<_>, Vec<_>) = (0..entries::VIP_COUNTERS as u32)
            .filter(|index| !taken.contains(index))
            .partition(|index| used.contains(index));
        let mut free = unused.into_iter().chain(leaving);
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for (vip, flags) in &vips {
            let index = match kept(vip) {
                Some(index) => index,
                None => {
                    let Some(index) = free.next() else {
                        break;
                    };
                    self.clear_vip_counters(index)?;
                    index
                }
            };
            let served = PORTS.map(|(port, four, six)| {
                let set = if vip.is_ipv4() { four } else { six };
                (service(port.to_be(), TCP), set)
            });
            for (service, set) in [(ANY_SERVICE, 0)].into_iter().chain(served) {
                let value = VipValue {
                    pool: 0,
                    set,
                    flags: if service == ANY_SERVICE { *flags } else { 0 },
                    index,
                };
                match vip {
                    IpAddr::V4(vip) => {
                        let address = address(*vip);
                        four.push((VipKey4 { address, service }, value));
                    }
                    IpAddr::V6(vip) => {
                        let address = words(*vip);
                        six.push((VipKey6 { address, service }, value));
                    }
                }
            }
        }
        replace(&mut self.vips4, &mut self.vip_slots4, &four)?;
        replace(&mut self.vips6, &mut self.vip_slots6, &six)
    }

    /// Whether these VIPs are there with other flags.
    pub(super) fn flags_differ(&self, vips: &[(IpAddr, u16)]) -> Result<bool, KernelError> {
        let before = self.vips()?;
        let differs =
            |(vip, flags): &(IpAddr, u16)| before.get(vip).is_none_or(|(_, now)| now != flags);
        Ok(vips.iter().any(differs))
    }

    /// What an earlier VIP has counted is nothing that came for the next one.
    fn clear_vip_counters(&mut self, index: u32) -> Result<(), KernelError> {
        let in_map = in_map("VIP_COUNTERS");
        let cpus = self.vip_counters.get(&index, 0).map_err(&in_map)?.len();
        let zero = PerCpuValues::try_from(vec![Plain(VipCounters::default()); cpus])
            .map_err(|error| KernelError::map("VIP_COUNTERS", error))?;
        self.vip_counters.set(index, zero, 0).map_err(&in_map)
    }

    /// The VIPs, the indices of their counters, and their flags.
    fn vips(&self) -> Result<BTreeMap<IpAddr, (u32, u16)>, KernelError> {
        let mut vips = BTreeMap::<_, (u32, u16)>::new();
        let mut add = |vip, value: VipValue| {
            let (index, flags) = vips.entry(vip).or_default();
            *index = value.index;
            *flags |= value.flags;
        };
        for entry in self.vips4.iter() {
            let (key, value) = entry.map_err(in_map("VIPS4"))?;
            let address = Ipv4Addr::from(key.0.address.to_ne_bytes());
            add(address.into(), value.0);
        }
        for entry in self.vips6.iter() {
            let (key, value) = entry.map_err(in_map("VIPS6"))?;
            let mut octets = [0; 16];
            for (octets, word) in octets.chunks_exact_mut(4).zip(key.0.address) {
                octets.copy_from_slice(&word.to_ne_bytes());
            }
            add(Ipv6Addr::from(octets).into(), value.0);
        }
        Ok(vips)
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

    fn socket_sets(&self) -> Result<SocketSets, KernelError> {
        let mut sets = SocketSets::default();
        for (slots, set) in sets.iter_mut().zip(ALL_SETS) {
            *slots = self.socket_set(set)?;
        }
        Ok(sets)
    }

    /// Gives all listener sets other slots.
    ///
    /// Each in one store of eight bytes. That the ports change one after the other harms nobody:
    /// either process serves all.
    pub(super) fn set_socket_sets(&mut self, sets: SocketSets) -> Result<(), KernelError> {
        for (set, slots) in ALL_SETS.into_iter().zip(sets) {
            self.sets
                .set(u32::from(set), Plain(slots), 0)
                .map_err(in_map("SETS"))?;
        }
        Ok(())
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

    /// What came for each VIP, added up over the CPUs.
    pub(super) fn vip_counters(&self) -> Result<Vec<(IpAddr, VipCounters)>, KernelError> {
        let sum = |(vip, (index, _)): (IpAddr, (u32, u16))| {
            let values = self.vip_counters.get(&index, 0);
            let values = values.map_err(in_map("VIP_COUNTERS"))?;
            let total = values.iter().fold(VipCounters::default(), |total, one| {
                let one = one.0;
                VipCounters {
                    packets: total.packets + one.packets,
                    bytes: total.bytes + one.bytes,
                    syns: total.syns + one.syns,
                    drops: total.drops + one.drops,
                }
            });
            Ok((vip, total))
        };
        self.vips()?.into_iter().map(sum).collect()
    }

    /// What went to a node and came from it, added up over the CPUs.
    pub(super) fn node_counters(&self, id: u16) -> Result<NodeCounters, KernelError> {
        let values = self.node_counters.get(&u32::from(id), 0);
        let values = values.map_err(in_map("NODE_COUNTERS"))?;
        Ok(values.iter().fold(NodeCounters::default(), |total, one| {
            let one = one.0;
            NodeCounters {
                forwarded: total.forwarded + one.forwarded,
                second_chances: total.second_chances + one.second_chances,
                decapsulated: total.decapsulated + one.decapsulated,
                skewed: total.skewed + one.skewed,
            }
        }))
    }
}

/// What packets and connections go by.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    meta: Meta,
    sets: SocketSets,
    interfaces: Interfaces,
    /// With their flags.
    pub(super) vips: Vec<(IpAddr, u16)>,
}

impl InForce {
    /// Whether a process has gone live on these maps.
    pub(super) fn is_anything(&self) -> bool {
        self.meta.magic == MAGIC
    }
}

/// A unit that no packet is steered by yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilledUnit {
    number: u32,
    pub(super) fill: u32,
}

/// The addresses of a node that has this one.
pub(super) fn addresses(ip4: Ipv4Addr) -> Addresses {
    Addresses {
        ip4: address(ip4),
        ..Addresses::default()
    }
}

/// An IPv6 address as the maps keep it: words of the bytes of the packet.
pub(super) fn words(address: Ipv6Addr) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(address.octets().chunks_exact(4)) {
        if let Some(octets) = octets.first_chunk() {
            *word = u32::from_ne_bytes(*octets);
        }
    }
    words
}

/// An IPv4 address as the maps keep it: the bytes of the packet.
pub(super) fn address(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// Puts VIPs in the place of others, in the hash map and in the index.
fn replace<K: Slotted + PartialEq>(
    map: &mut HashMap<MapData, Plain<K>, Plain<VipValue>>,
    slots: &mut PlainArray<K::Slot>,
    wanted: &[(K, VipValue)],
) -> Result<(), KernelError> {
    let in_map = in_map("VIPS");
    let present: Vec<Plain<K>> = map.keys().collect::<Result<_, _>>().map_err(&in_map)?;
    let is_present = |key: &K| present.iter().any(|present| present.0 == *key);
    let staying: Vec<_> = wanted
        .iter()
        .filter(|(key, _)| is_present(key))
        .copied()
        .collect();
    if present.len() + wanted.len() - staying.len() > entries::VIPS {
        // No room for those that were and those that come at once.
        keep(map, slots, &staying)?;
    }
    // The hash map holds all that is wanted, or was, while slots change: they lead to it.
    for (key, value) in wanted {
        map.insert(Plain(*key), Plain(*value), 0).map_err(&in_map)?;
    }
    keep(map, slots, wanted)
}

/// Keeps these keys of those that the hash map holds, and no others.
fn keep<K: Slotted + PartialEq>(
    map: &mut HashMap<MapData, Plain<K>, Plain<VipValue>>,
    slots: &mut PlainArray<K::Slot>,
    wanted: &[(K, VipValue)],
) -> Result<(), KernelError> {
    let in_map = in_map("VIPS");
    for (index, after) in (0u32..).zip(vip_slots::slots(wanted.iter().copied())) {
        let before = slots.get(&index, 0).map_err(&in_map)?.0;
        for step in vip_slots::steps::<K>(before, after) {
            slots.set(index, Plain(step), 0).map_err(&in_map)?;
        }
    }
    let present: Vec<Plain<K>> = map.keys().collect::<Result<_, _>>().map_err(&in_map)?;
    for key in present
        .iter()
        .filter(|key| !wanted.iter().any(|(wanted, _)| *wanted == key.0))
    {
        map.remove(key).map_err(&in_map)?;
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
const _: () = assert!(NODES < NO_HOP as usize);
