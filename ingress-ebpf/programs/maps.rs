//! The maps, under the names userspace pins them by. What they hold is in [`ingress_ebpf::abi`].
//!
//! Each look-up gives an `Option`, that of an array by a constant index too: the verifiers of most
//! kernels take any value of a map for a pointer that may be null.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, SockMap},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_map_lookup_elem, bpf_sk_release},
    macros::btf_map,
};
use ingress_ebpf::{
    abi::{
        Bucket, Chances, FirstHop, FirstHops, Interfaces, Meta, NODES as UNIT_NODES, Node,
        NodeCounters, POOLS, SocketSet, TABLE_LEN, UNITS as UNIT_COUNT, Unit, VIP_SLOTS,
        VipCounters, VipKey4, VipKey6, VipSlot4, VipSlot6, VipValue, entries, vip_flags,
    },
    hash,
    reason::Reason,
};

#[btf_map]
pub(crate) static META: Array<Meta, 1> = Array::new();

#[btf_map]
pub(crate) static UNITS: Array<Unit, UNIT_COUNT> = Array::new();

#[btf_map]
pub(crate) static INTERFACES: Array<Interfaces, 1> = Array::new();

#[btf_map]
pub(crate) static VIPS4: HashMap<VipKey4, VipValue, { entries::VIPS }> = HashMap::new();

#[btf_map]
pub(crate) static VIPS6: HashMap<VipKey6, VipValue, { entries::VIPS }> = HashMap::new();

#[btf_map]
pub(crate) static VIP_SLOTS4: Array<VipSlot4, VIP_SLOTS> = Array::new();

#[btf_map]
pub(crate) static VIP_SLOTS6: Array<VipSlot6, VIP_SLOTS> = Array::new();

#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<Bucket, TABLE_LEN>, { entries::TABLES }> =
    ArrayOfMaps::new();

#[btf_map]
pub(crate) static FIRST_HOPS: ArrayOfMaps<
    Array<FirstHops, { entries::FIRST_HOPS }>,
    { entries::TABLES },
> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static NODES: Array<Node, { entries::NODES }> = Array::new();

#[btf_map]
pub(crate) static PEER_MACS: Array<u32, { entries::PEER_MACS }> = Array::new();

#[btf_map]
pub(crate) static SOCKS: SockMap<{ entries::SOCKS }> = SockMap::new();

#[btf_map]
pub(crate) static SETS: Array<SocketSet, { entries::SETS }> = Array::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { entries::COUNTERS }> = PerCpuArray::new();

#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<VipCounters, { entries::VIP_COUNTERS }> =
    PerCpuArray::new();

#[btf_map]
pub(crate) static NODE_COUNTERS: PerCpuArray<NodeCounters, UNIT_NODES> = PerCpuArray::new();

#[btf_map]
pub(crate) static CHANCES: PerCpuArray<Chances, 1> = PerCpuArray::new();

/// Whether this CPU may give one more second chance; counts it.
#[inline(always)]
pub(crate) fn may_send_on() -> bool {
    // The time of the last tick (Linux 5.11): fine enough for a window, and no clock is read for it.
    // SAFETY: takes nothing and gives a number.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: as in `count`; no other reference is made of this CPU's slot.
    CHANCES
        .get_ptr_mut(0)
        .is_none_or(|slot| unsafe { &mut *slot }.take(now))
}

/// Adds one to a reason's counter on this CPU.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    count_at(reason.index());
}

/// Adds one to the counter of this index on this CPU.
#[inline(always)]
pub(crate) fn count_at(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // Not atomic, which would cost more than the rest: the slot is this CPU's own, and
        // userspace only reads it. SAFETY: the kernel gave a pointer to this CPU's own slot, valid
        // while the program runs.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

/// Looks for a socket without a trace in what `assign` counts: the kernel asks it for a listener then
/// too, and no connection is given to anyone, or refused.
#[inline(always)]
pub(crate) fn uncounted<T>(look: impl FnOnce() -> T) -> T {
    let (Some(assigned), Some(refused)) = (
        COUNTERS.get_ptr_mut(Reason::Assigned.index()),
        COUNTERS.get_ptr_mut(Reason::NoListener.index()),
    ) else {
        return look();
    };
    // SAFETY: as in `count`.
    let before = unsafe { (*assigned, *refused) };
    let found = look();
    // SAFETY: as in `count`.
    unsafe { (*assigned, *refused) = before };
    found
}

/// The counters of a VIP on this CPU.
#[inline(always)]
pub(crate) fn vip_counters<'a>(index: u32) -> Option<&'a mut VipCounters> {
    // SAFETY: as in `count`; nobody else has this CPU's slot, and no other reference is made of it.
    VIP_COUNTERS
        .get_ptr_mut(index)
        .map(|slot| unsafe { &mut *slot })
}

/// The counters of a node on this CPU.
#[inline(always)]
pub(crate) fn node_counters<'a>(id: u16) -> Option<&'a mut NodeCounters> {
    // SAFETY: as in `vip_counters`.
    NODE_COUNTERS
        .get_ptr_mut(u32::from(id))
        .map(|slot| unsafe { &mut *slot })
}

/// The unit that is in force, and which of the two it is.
#[inline(always)]
pub(crate) fn unit<'a>() -> Option<(u16, &'a Unit)> {
    let current = META.get(0)?.current;
    Some((current, UNITS.get(u32::from(current))?))
}

/// The first hop of a bucket of a pool's table.
#[inline(always)]
pub(crate) fn first_hop(unit: u16, pool: u8, index: u32) -> Option<FirstHop> {
    let (value, place) = FirstHops::place(index);
    let hops = FIRST_HOPS.get_value(table(unit, pool), &value)?;
    hops.0.get(place).copied().map(FirstHop)
}

/// A bucket of a pool's table.
#[inline(always)]
pub(crate) fn bucket<'a>(unit: u16, pool: u8, index: u32) -> Option<&'a Bucket> {
    // Two look-ups in one: the inner map found first stays the one that is read, so a packet meets
    // one whole table while userspace swaps in another.
    TABLES.get_value(table(unit, pool), &index)
}

/// The inner map of a pool in `TABLES` and in `FIRST_HOPS`.
#[inline(always)]
const fn table(unit: u16, pool: u8) -> u32 {
    unit as u32 * POOLS as u32 + pool as u32
}

/// A node of a unit.
#[inline(always)]
pub(crate) fn node<'a>(unit: u16, id: u16) -> Option<&'a Node> {
    if usize::from(id) >= UNIT_NODES {
        return None;
    }
    NODES.get(u32::from(unit) * UNIT_NODES as u32 + u32::from(id))
}

/// The slot of a worker that listens, for a new connection of this hash: of those that are looked
/// at, the first that is not empty.
#[inline(always)]
pub(crate) fn listening(set: u8, worker: u32) -> bool {
    let Some(sockets) = SETS.get(u32::from(set)) else {
        return false;
    };
    let mut probe = 0;
    while probe < hash::PROBES {
        if hash::slot(worker, *sockets, probe).is_some_and(has_socket) {
            return true;
        }
        probe += 1;
    }
    false
}

/// Tells whether a slot of `SOCKS` holds a socket: closing one empties its slot.
///
/// By the raw helper: the verifier counts the socket as a reference that must be released on every
/// way out of the program, so none may leave this function.
#[inline(always)]
fn has_socket(slot: u32) -> bool {
    let map = core::ptr::from_ref(&SOCKS).cast_mut().cast();
    // SAFETY: the map's key is a `u32`, which outlives the call. The kernel counts a reference to
    // the socket that is found, and the release gives it back.
    unsafe {
        let socket = bpf_map_lookup_elem(map, core::ptr::from_ref(&slot).cast());
        !socket.is_null() && {
            bpf_sk_release(socket);
            true
        }
    }
}

/// What is said of a VIP.
#[inline(always)]
pub(crate) fn vip4<'a>(key: &VipKey4) -> Option<&'a VipValue> {
    let slot = VIP_SLOTS4.get(key.slot())?;
    let is_same = slot.key.address == key.address && slot.key.service == key.service;
    if is_same && slot.value.flags & vip_flags::TAKEN != 0 {
        return Some(&slot.value);
    }
    if slot.value.flags & vip_flags::SHARED == 0 {
        return None;
    }
    // SAFETY: the programs never change this map; userspace replaces entries, and a slot that was
    // freed and filled again meanwhile holds a valid value of another VIP (any bytes are one).
    unsafe { VIPS4.get(key) }
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn vip6<'a>(key: &VipKey6) -> Option<&'a VipValue> {
    let slot = VIP_SLOTS6.get(key.slot())?;
    let ([a, b, c, d], [e, f, g, h]) = (slot.key.address, key.address);
    let difference = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h);
    let is_same = difference | (slot.key.service ^ key.service) == 0;
    if is_same && slot.value.flags & vip_flags::TAKEN != 0 {
        return Some(&slot.value);
    }
    if slot.value.flags & vip_flags::SHARED == 0 {
        return None;
    }
    // SAFETY: as in `vip4`.
    unsafe { VIPS6.get(key) }
}
