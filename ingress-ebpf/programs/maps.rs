//! The maps, under the names userspace pins them by. What they hold is in [`ingress_ebpf::abi`].
//!
//! Each look-up gives an `Option`, that of an array by a constant index too: the verifiers of most
//! kernels take any value of a map for a pointer that may be null.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, SockMap},
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_release},
    macros::btf_map,
};
use ingress_ebpf::{
    abi::{Bucket, MacKey, Meta, Node, SelfNode, SocketSet, TABLE_LEN, VipKey, VipValue, entries},
    hash::{self, Flow},
    verdict::{Reason, Tables},
};

#[btf_map]
pub(crate) static META: Array<Meta, 1> = Array::new();

#[btf_map]
pub(crate) static SELF: Array<SelfNode, 1> = Array::new();

#[btf_map]
pub(crate) static VIPS: HashMap<VipKey, VipValue, { entries::VIPS }> = HashMap::new();

#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<Bucket, TABLE_LEN>, { entries::TABLES }> =
    ArrayOfMaps::new();

#[btf_map]
pub(crate) static NODES: Array<Node, { entries::NODES }> = Array::new();

#[btf_map]
pub(crate) static PEERS: HashMap<[u8; 16], u32, { entries::PEERS }> = HashMap::new();

#[btf_map]
pub(crate) static PEER_MACS: HashMap<MacKey, u32, { entries::PEER_MACS }> = HashMap::new();

#[btf_map]
pub(crate) static SOCKS: SockMap<{ entries::SOCKS }> = SockMap::new();

#[btf_map]
pub(crate) static SETS: Array<SocketSet, { entries::SETS }> = Array::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { entries::COUNTERS }> = PerCpuArray::new();

/// Adds one to a reason's counter on this CPU.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.index()) {
        // Not atomic, which would cost more than the rest: the slot is this CPU's own, and
        // userspace only reads it. SAFETY: the kernel gave a pointer to this CPU's own slot, valid
        // while the program runs.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
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

/// [`Tables`] over the maps of the kernel.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn meta(&self) -> Option<&Meta> {
        META.get(0)
    }

    #[inline(always)]
    fn this_node(&self) -> Option<&SelfNode> {
        SELF.get(0)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<&VipValue> {
        // SAFETY: the programs never change this map; userspace replaces entries, and a slot that
        // was freed and filled again meanwhile holds a valid value of another VIP (any bytes are
        // one).
        unsafe { VIPS.get(key) }
    }

    #[inline(always)]
    fn bucket(&self, table: u8, index: u32) -> Option<&Bucket> {
        // Two look-ups in one: the inner map found first stays the one that is read, so a packet
        // meets one whole table while userspace swaps in another.
        TABLES.get_value(u32::from(table), &index)
    }

    #[inline(always)]
    fn node(&self, id: u16) -> Option<&Node> {
        NODES.get(u32::from(id))
    }

    #[inline(always)]
    fn is_peer(&self, address: &[u8; 16]) -> bool {
        PEERS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_peer_mac(&self, mac: &MacKey) -> bool {
        PEER_MACS.get_ptr(mac).is_some()
    }

    #[inline(always)]
    fn is_listening(&self, set: u8, flow: Flow, seed: [u32; 2]) -> bool {
        let slot = SETS
            .get(u32::from(set))
            .and_then(|sockets| hash::slot(flow, seed, *sockets));
        slot.is_some_and(has_socket)
    }
}
