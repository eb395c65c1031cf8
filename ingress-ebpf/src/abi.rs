//! Keys, values and names of the BPF maps: the memory that both sides see.
//!
//! Integers are in host byte order unless a field says "network byte order". Changing a layout
//! means raising [`SCHEMA`]: the pins of another schema live in another directory.

/// Version of every layout in this file; part of the pin directory's name.
pub const SCHEMA: u16 = 5;

/// First word of [`Meta`]: `FBAY`.
pub const MAGIC: u32 = u32::from_be_bytes(*b"FBAY");

/// UDP port of encapsulated packets between nodes.
pub const ENCAP_PORT: u16 = 17_986;

/// Buckets of a Maglev table: a prime, so that every step walks the whole table.
pub const TABLE_LEN: usize = 65_537;

/// First hops that share a value of `FIRST_HOPS`.
pub const FIRST_HOPS: usize = 4;

/// A bucket's hop that names no node.
pub const NO_HOP: u16 = u16::MAX;

/// The most interfaces one node may steer on: [`Interfaces`] has room for each.
pub const MAX_INTERFACES: usize = 4;

/// Units there are: the one that packets are steered by, and the one that is being filled.
pub const UNITS: usize = 2;

/// Nodes of a unit: ids are below this.
pub const NODES: usize = 1024;

/// Pools of nodes, each with a table of its own.
pub const POOLS: usize = 8;

/// Bits of the filter of peers' MAC addresses.
pub const PEER_MAC_BITS: usize = 65_536;

/// Slots of the index of VIPs of each family: few enough to stay in a core's first cache.
pub const VIP_SLOTS: usize = 1024;

/// Entries of each map.
pub mod entries {
    /// `VIPS4` and `VIPS6`: address and port pairs.
    pub const VIPS: usize = 4096;
    /// `TABLES`: one for each pool in each unit.
    pub const TABLES: usize = super::UNITS * super::POOLS;
    /// An inner map of `FIRST_HOPS`, of which there are as many as of `TABLES`.
    pub const FIRST_HOPS: usize = super::TABLE_LEN.div_ceil(super::FIRST_HOPS);
    /// `NODES`: the nodes of the first unit, then those of the second.
    pub const NODES: usize = super::UNITS * super::NODES;
    /// `PEER_MACS`: words of the filter.
    pub const PEER_MACS: usize = super::PEER_MAC_BITS / 32;
    /// `SOCKS`: listening sockets, [`super::SOCKETS_PER_GENERATION`] for each generation of
    /// workers.
    pub const SOCKS: usize = 8192;
    /// `SETS`: listener sets.
    pub const SETS: usize = 64;
    /// `COUNTERS`: one for each [`crate::reason::Reason`], with room to grow.
    pub const COUNTERS: usize = 64;
    /// `VIP_COUNTERS`: one for each address of a VIP, with room for the ports of each.
    pub const VIP_COUNTERS: usize = 4096;
}

/// Slots of `SOCKS` that one process takes: 16 generations may be alive at once.
pub const SOCKETS_PER_GENERATION: u32 = 512;

/// Slots of a generation that one listener set takes, and so the most workers there may be.
pub const SOCKETS_PER_SET: u32 = 128;

/// Plain integers without padding or invalid bit patterns: any bytes are a value.
///
/// # Safety
///
/// The type must be `repr(C)`, free of padding, and valid for every bit pattern.
pub unsafe trait Abi: Copy + 'static {}

/// The bytes of a value, as the maps hold them.
#[inline(always)]
pub fn bytes<T: Abi>(value: &T) -> &[u8] {
    // SAFETY: an `Abi` type has no padding, so all its bytes are initialised; they live as long as
    // the value.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Proves that a struct is what the kernel sees: its fields, one after the other, without padding.
macro_rules! abi {
    ($type:ty, $size:literal: $($field:ty),+) => {
        const _: () = assert!(size_of::<$type>() == 0 $(+ size_of::<$field>())+, "the struct has padding");
        const _: () = assert!(size_of::<$type>() == $size, "the struct has another size than the maps");
        // SAFETY: `repr(C)`, integer fields only, and the assertions above rule out padding.
        unsafe impl Abi for $type {}
    };
}

/// Who wrote the maps, and which unit is in force. Written by the agent, read by `steer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`SCHEMA`] of the writer.
    pub schema: u16,
    /// Which of the [`UNITS`] packets are steered by. One store changes table, nodes, own id and keys
    /// together.
    pub current: u16,
}
abi!(Meta, 8: u32, u16, u16);

/// What changes as one: the table and the nodes of the same number belong to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// That of the membership that table and nodes are made of: the same on every node that has the
    /// same.
    pub epoch: u64,
    /// Keys of the flow hash, the same on every node.
    pub keys: Keys,
    /// This node's addresses: a look-up less than in its entry of `NODES`.
    pub addresses: Addresses,
    /// This node's id.
    pub self_id: u16,
    /// Bits of [`unit_flags`].
    pub flags: u16,
    /// Grows with each unit that comes into force on this node, whichever process has filled it.
    pub fill: u32,
    /// Tells this table from others: by its lowest four bits, which travel with a packet. See
    /// [`Unit::mark_of`].
    pub mark: u32,
}
abi!(Unit, 96: u64, Keys, Addresses, u16, u16, u32, u32);

/// The addresses by which nodes reach each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv6 address, zero where there is none; network byte order.
    pub ip6: [u32; 4],
    /// IPv4 address, zero where there is none; network byte order.
    pub ip4: u32,
}
abi!(Addresses, 20: [u32; 4], u32);

impl Unit {
    /// The mark of a digest of the nodes' set and of a set of keys: nodes that differ in either have
    /// another one, in 15 of 16 cases.
    pub const fn mark_of(digest: u64, keys: &Keys) -> u32 {
        // The upper bits of an odd key are as random as its seed, and tell nobody the others.
        (digest as u32) ^ (keys.bucket.wrapping_mul(SPREAD) >> 60) as u32
    }
}

/// Bits of [`Unit::flags`].
pub mod unit_flags {
    /// Nodes on one segment send each other frames as they are.
    pub const BY_MAC: u16 = 1;
}

/// Keys of [`crate::hash`]: secret, since whoever knows them can aim connections at one node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Multipliers of the words of a flow, odd.
    pub words: [u64; 5],
    /// Multiplier of the hash that picks a bucket, odd.
    pub bucket: u64,
    /// Multiplier of the hash that picks a worker, odd.
    pub worker: u64,
}
abi!(Keys, 56: [u64; 5], u64, u64);

/// An interface that is steered on. Frames for other MAC addresses are not ours to steer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index; zero where there is none.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
}
abi!(Interface, 12: u32, Mac);

/// The interfaces that are steered on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(pub [Interface; MAX_INTERFACES]);
abi!(Interfaces, 48: [Interface; MAX_INTERFACES]);

/// A MAC address, in words that hold the bytes of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac {
    /// Its first four bytes.
    pub first: u32,
    /// Its last two bytes.
    pub last: u16,
    /// Zero.
    pub reserved: u16,
}
abi!(Mac, 8: u32, u16, u16);

impl Mac {
    /// From bytes as in the frame.
    #[inline(always)]
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self {
            first: u32::from_ne_bytes([a, b, c, d]),
            last: u16::from_ne_bytes([e, f]),
            reserved: 0,
        }
    }

    /// Its bytes, as in the frame.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.first.to_ne_bytes(), self.last.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Its bit in the filter of peers' MAC addresses.
    ///
    /// Vendors number the last bytes, so these decide most; an odd multiplier spreads the rest.
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        let word = (self.first as u64) << 16 | self.last as u64;
        (word.wrapping_mul(SPREAD) >> 48) as u32
    }
}

/// Key of `VIPS4`: one virtual address and port. Port and protocol zero say "this address is a VIP".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VipKey4 {
    /// Network byte order, as in the packet.
    pub address: u32,
    /// Port in the lower half, network byte order, and the IANA protocol number above: one word, so
    /// that the key is built without a store of a byte.
    pub service: u32,
}
abi!(VipKey4, 8: u32, u32);

/// Key of `VIPS6`, like [`VipKey4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VipKey6 {
    /// Network byte order, as in the packet.
    pub address: [u32; 4],
    /// As in [`VipKey4`].
    pub service: u32,
}
abi!(VipKey6, 20: [u32; 4], u32);

impl VipKey4 {
    /// Its slot in `VIP_SLOTS4`: the upper bits of a product, which all bits of the key decide.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let word = (self.address as u64) << 32 | self.service as u64;
        (word.wrapping_mul(SPREAD) >> SLOT_SHIFT) as u32
    }
}

impl VipKey6 {
    /// Its slot in `VIP_SLOTS6`.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let [a, b, c, d] = self.address;
        let network = (a as u64) << 32 | b as u64;
        let host = (c as u64) << 32 | d as u64;
        let word = network.rotate_left(23) ^ host ^ self.service as u64;
        (word.wrapping_mul(SPREAD) >> SLOT_SHIFT) as u32
    }
}

const SLOT_SHIFT: u32 = u64::BITS - VIP_SLOTS.ilog2();

/// An odd number whose multiples are spread evenly: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The part of a key that names a port (network byte order) and a protocol.
#[inline(always)]
pub const fn service(port: u16, protocol: u8) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// The part of a key that says "this address is a VIP".
pub const ANY_SERVICE: u32 = 0;

/// Value of `VIPS4` and `VIPS6`: which table steers a VIP and which listeners serve it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipValue {
    /// Which of the [`POOLS`] of nodes serves it.
    pub pool: u8,
    /// Index into `SETS`.
    pub set: u8,
    /// Bits of [`vip_flags`]; in `VIPS4` and `VIPS6` those alone that say who announces the address.
    pub flags: u16,
    /// Index into `VIP_COUNTERS`; stays as long as the VIP does.
    pub index: u32,
}
abi!(VipValue, 8: u8, u8, u16, u32);

/// Bits of [`VipValue::flags`].
pub mod vip_flags {
    /// In a slot: other VIPs have this slot too: what it does not name may be in the hash map.
    pub const SHARED: u16 = 1;
    /// In a slot: it names a VIP. Without, its key is no key: all zero would be that of an address.
    pub const TAKEN: u16 = 2;
    /// Of an address: this node says that it is here.
    pub const ANNOUNCED: u16 = 4;
    /// Of an address: another node says that it is there, and this one is silent.
    pub const ELSEWHERE: u16 = 8;
}

/// Value of `VIP_SLOTS4`: the VIP that has this slot of its own, or none (all zero).
///
/// A look-up of a hash map costs more than everything else that is done for a packet which is for no
/// VIP, and a third of what is done for one that is. So each VIP has one place here where it is found
/// at once, and a packet that finds another there, or nobody, is for none; only where two VIPs have
/// the same place is the hash map asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipSlot4 {
    /// Which VIP.
    pub key: VipKey4,
    /// What `VIPS4` says of it, and the flags of the slot.
    pub value: VipValue,
}
abi!(VipSlot4, 16: VipKey4, VipValue);

/// Value of `VIP_SLOTS6`, like [`VipSlot4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipSlot6 {
    /// Which VIP.
    pub key: VipKey6,
    /// What `VIPS6` says of it, and the flags of the slot.
    pub value: VipValue,
}
abi!(VipSlot6, 28: VipKey6, VipValue);

/// One bucket of a Maglev table: who owns its connections, and who may still hold older ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Node ids; the first owns new connections. [`NO_HOP`] where there is none.
    pub hops: [u16; 3],
    /// The lower half of the epoch that made it, which travels with a packet.
    pub epoch: u16,
}
abi!(Bucket, 8: [u16; 3], u16);

/// The first hops of [`FIRST_HOPS`] buckets in a row.
///
/// Most packets need no more of their bucket than this. All buckets of a table are 512 KiB, of which
/// packets of many connections find little in a core's caches; their first hops are 128 KiB.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstHops(pub [u16; FIRST_HOPS]);
abi!(FirstHops, 8: [u16; FIRST_HOPS]);

impl FirstHops {
    /// Where the first hop of a bucket is: the index of the value, and the place in it.
    #[inline(always)]
    pub const fn place(bucket: u32) -> (u32, usize) {
        const EACH: u32 = FIRST_HOPS as u32;
        (bucket / EACH, (bucket % EACH) as usize)
    }
}

/// The first hop of a bucket, as [`FirstHops`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstHop(pub u16);

impl FirstHop {
    /// Set where the bucket has other hops too.
    const OTHERS: u16 = 1 << 15;

    /// Of a bucket.
    #[inline(always)]
    pub const fn of(bucket: &Bucket) -> Self {
        let [first, second, third] = bucket.hops;
        let others = if second == NO_HOP && third == NO_HOP {
            0
        } else {
            Self::OTHERS
        };
        Self(first & !Self::OTHERS | others)
    }

    /// The node's id; that of no node, at least [`NODES`], where there is none.
    #[inline(always)]
    pub const fn id(self) -> u16 {
        self.0 & !Self::OTHERS
    }

    /// Whether the bucket has other hops.
    #[inline(always)]
    pub const fn has_others(self) -> bool {
        self.0 & Self::OTHERS != 0
    }
}

/// One node, as others reach it. Written by the agent, read by `steer` when it forwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Where packets to it go.
    pub addresses: Addresses,
    /// Index of the interface that packets to it leave by; zero for this node.
    pub interface: u32,
    /// The twelve bytes that begin a frame to it: MAC address of the next hop (the node's own or a
    /// gateway's), then that of the interface.
    pub macs: [u32; 3],
    /// Bits of [`node_flags`].
    pub flags: u16,
    /// Largest IP packet on the way to it, in bytes.
    pub mtu: u16,
    /// VLAN id of the way to it where the kernel reaches it by a VLAN of the interface, in network
    /// byte order; zero where frames go untagged.
    pub vlan: u16,
    /// Zero.
    pub reserved: u16,
}
abi!(Node, 44: Addresses, u32, [u32; 3], u16, u16, u16, u16);

/// The first twelve bytes of a frame, as words.
#[inline(always)]
pub const fn macs(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
    ]
}

/// Bits of [`Node::flags`].
pub mod node_flags {
    /// The node is on the same segment and packets may go to its MAC address as they are.
    pub const L2: u16 = 1;
    /// Packets to it travel inside IPv4: both nodes have such an address.
    pub const V4: u16 = 2;
    /// Packets to it travel inside IPv6.
    pub const V6: u16 = 4;
    /// The next hop's MAC address is known: packets can be sent.
    pub const RESOLVED: u16 = 8;
}

/// Value of `SETS`: which slots of `SOCKS` share one listener's connections. Eight bytes, stored at
/// once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketSet {
    /// First slot.
    pub base: u32,
    /// Number of slots; zero while nobody listens.
    pub count: u32,
}
abi!(SocketSet, 8: u32, u32);

/// The header between the outer UDP header and the inner packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    /// Version in the high four bits, length in units of four bytes in the low:
    /// [`Steer::VERSION_LENGTH`].
    pub version_length: u8,
    /// Bits of [`steer_flags`].
    pub flags: u8,
    /// Node that chose the hops; network byte order.
    pub from: u16,
    /// Nodes to try after the receiver; network byte order, [`NO_HOP`] where there is none.
    pub hops: [u16; 2],
}
abi!(Steer, 8: u8, u8, u16, [u16; 2]);

impl Steer {
    /// Version 1, eight bytes.
    pub const VERSION_LENGTH: u8 = 0x12;
}

/// Bits of [`Steer::flags`]; the upper half is the lowest four bits of the sender's [`Unit::mark`].
pub mod steer_flags {
    /// The inner packet is IPv6.
    pub const V6: u8 = 1;
    /// The receiver keeps the packet whatever its own table says.
    pub const FINAL: u8 = 2;
    /// Bits of the mark.
    pub const MARK: u8 = 0xf0;
}

/// Value of `VIP_COUNTERS`: what came for one VIP on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipCounters {
    /// Packets.
    pub packets: u64,
    /// Their bytes, by their own account.
    pub bytes: u64,
    /// New connections.
    pub syns: u64,
    /// Frames that were dropped.
    pub drops: u64,
}
abi!(VipCounters, 32: u64, u64, u64, u64);

/// Value of `NODE_COUNTERS`: what went to one node, or came from it, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Frames that were forwarded to it since it owns their bucket.
    pub forwarded: u64,
    /// Frames that were forwarded to it since their connection is not here.
    pub second_chances: u64,
    /// Frames that it sent encapsulated.
    pub decapsulated: u64,
    /// Of these, those that it steered by another table.
    pub skewed: u64,
}
abi!(NodeCounters, 32: u64, u64, u64, u64);

/// Value of `CHANCES`: the second chances that one CPU has given lately.
///
/// While a set of nodes changes, whoever sends packets of no connection has each looked for on up to
/// three nodes. What a CPU sends on for them is limited, or a flood would be three on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chances {
    /// Number of the window of 2^[`CHANCES_SHIFT`] nanoseconds that the count is of.
    pub window: u64,
    /// Packets sent on in it.
    pub sent: u64,
}
abi!(Chances, 16: u64, u64);

/// Bits of the clock (nanoseconds) below the number of a window: it is 134 ms long.
pub const CHANCES_SHIFT: u32 = 27;

/// Second chances of a CPU in a window: 244,000 per second. Meant to be more than the connections whose
/// owner changes send to one CPU; a client whose packet is dropped sends it again.
pub const CHANCES: u64 = 1 << 15;

impl Chances {
    /// Counts one more at this time (nanoseconds of a clock that never goes back), unless the window
    /// has had its share.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        let window = now >> CHANCES_SHIFT;
        if self.window != window {
            *self = Self { window, sent: 0 };
        }
        if self.sent >= CHANCES {
            return false;
        }
        self.sent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn a_window_has_its_share_of_second_chances_and_the_next_one_too() {
        let mut chances = Chances::default();
        let end = 1 << CHANCES_SHIFT;
        for start in [0, end, 9 * end] {
            for sent in 0..CHANCES {
                assert!(chances.take(start + sent), "{start} {sent}");
            }
            assert!(!chances.take(start));
            assert!(!chances.take(start + end - 1));
        }
    }

    #[test]
    fn nodes_that_differ_in_their_set_or_in_their_keys_mostly_have_another_mark() {
        let travels = |digest, bucket| {
            let keys = Keys {
                bucket,
                ..Keys::default()
            };
            Unit::mark_of(digest, &keys) & 0xf
        };
        let count = |mut marks: [u32; 16], mark: u32| {
            marks[mark as usize] += 1;
            marks
        };
        for other in 0..100 {
            let keys = SPREAD.wrapping_mul(2 * other + 1);
            let by_set = (0..16).map(|digest| travels(digest, keys));
            assert_eq!(by_set.fold([0; 16], count), [1; 16], "{keys:#x}");
            let by_keys = (0..4096).map(|step| travels(other, keys.wrapping_add(2 * step)));
            let marks = by_keys.fold([0; 16], count);
            assert!(
                marks.iter().all(|marks| (128..512).contains(marks)),
                "{marks:?}"
            );
        }
    }

    #[test]
    fn neighbouring_vips_and_ports_seldom_share_a_slot() {
        let address = |last: u32| (0xc633_6400 + last).to_be();
        let port = |number: u32| service((number as u16).to_be(), 6);
        let own = |slots: &mut dyn Iterator<Item = u32>| {
            let slots: std::collections::BTreeSet<_> = slots.collect();
            assert!(slots.last() < Some(&(VIP_SLOTS as u32)), "{slots:?}");
            slots.len()
        };
        let v4 = |last, number| {
            let (address, service) = (address(last), port(number));
            VipKey4 { address, service }.slot()
        };
        let v6 = |word: usize, last, number| {
            let (mut address, service) = ([0x2001_0db8_u32.to_be(), 0, 0, 0], port(number));
            address[word] ^= last;
            VipKey6 { address, service }.slot()
        };
        // Spread at random, 256 keys have 226 slots.
        for count in [
            own(&mut (0..256).map(|last| v4(last, 80))),
            own(&mut (0..256).map(|number| v4(1, number))),
            own(&mut (0..256).map(|number| v6(3, 1, number))),
            own(&mut (0..256).map(|last| v6(0, last, 80))),
            own(&mut (0..256).map(|last| v6(1, last, 80))),
            own(&mut (0..256).map(|last| v6(2, last, 80))),
            own(&mut (0..256).map(|last| v6(3, last, 80))),
        ] {
            assert!(count > 128, "{count} slots");
        }
    }

    #[test]
    fn layouts_are_those_of_schema_5() {
        assert_eq!(SCHEMA, 5, "a new schema needs new golden offsets");
        let offsets = [
            ("Meta.schema", offset_of!(Meta, schema), 4),
            ("Meta.current", offset_of!(Meta, current), 6),
            ("Unit.keys", offset_of!(Unit, keys), 8),
            ("Unit.addresses", offset_of!(Unit, addresses), 64),
            ("Unit.self_id", offset_of!(Unit, self_id), 84),
            ("Unit.flags", offset_of!(Unit, flags), 86),
            ("Unit.fill", offset_of!(Unit, fill), 88),
            ("Unit.mark", offset_of!(Unit, mark), 92),
            ("Keys.bucket", offset_of!(Keys, bucket), 40),
            ("Keys.worker", offset_of!(Keys, worker), 48),
            ("Interface.mac", offset_of!(Interface, mac), 4),
            ("Mac.last", offset_of!(Mac, last), 4),
            ("VipKey4.service", offset_of!(VipKey4, service), 4),
            ("VipKey6.service", offset_of!(VipKey6, service), 16),
            ("VipValue.set", offset_of!(VipValue, set), 1),
            ("VipValue.flags", offset_of!(VipValue, flags), 2),
            ("VipValue.index", offset_of!(VipValue, index), 4),
            ("VipSlot4.value", offset_of!(VipSlot4, value), 8),
            ("VipSlot6.value", offset_of!(VipSlot6, value), 20),
            ("Bucket.epoch", offset_of!(Bucket, epoch), 6),
            ("Addresses.ip4", offset_of!(Addresses, ip4), 16),
            ("Node.interface", offset_of!(Node, interface), 20),
            ("Node.macs", offset_of!(Node, macs), 24),
            ("Node.flags", offset_of!(Node, flags), 36),
            ("Node.mtu", offset_of!(Node, mtu), 38),
            ("Node.vlan", offset_of!(Node, vlan), 40),
            ("SocketSet.count", offset_of!(SocketSet, count), 4),
            ("Steer.from", offset_of!(Steer, from), 2),
            ("Steer.hops", offset_of!(Steer, hops), 4),
        ];
        for (field, offset, golden) in offsets {
            assert_eq!(offset, golden, "{field}");
        }
    }

    #[test]
    fn a_first_hop_tells_its_node_and_whether_there_are_others() {
        let of = |hops| FirstHop::of(&Bucket { hops, epoch: 7 });
        for id in [0, 1, NODES as u16 - 1] {
            for (others, has_others) in [
                ([NO_HOP, NO_HOP], false),
                ([2, NO_HOP], true),
                ([2, 3], true),
                ([NO_HOP, 3], true),
            ] {
                let first = of([id, others[0], others[1]]);
                assert_eq!((first.id(), first.has_others()), (id, has_others));
            }
        }
        let nobody = of([NO_HOP; 3]);
        assert!(usize::from(nobody.id()) >= NODES && !nobody.has_others());
    }

    #[test]
    fn each_bucket_has_a_place_among_the_first_hops() {
        let last = TABLE_LEN as u32 - 1;
        let places = [0, 1, 3, 4, last].map(FirstHops::place);
        assert_eq!(places, [(0, 0), (0, 1), (0, 3), (1, 0), (16_384, 0)]);
        assert_eq!(entries::FIRST_HOPS, 16_385);
    }

    #[test]
    fn values_are_bytes_in_the_order_of_their_fields() {
        let key = VipKey4 {
            address: u32::from_ne_bytes([198, 51, 100, 10]),
            service: service(443u16.to_be(), 6),
        };
        assert_eq!(bytes(&key), [198, 51, 100, 10, 1, 0xbb, 6, 0]);
        let mac = Mac::new([2, 0, 0x5e, 1, 2, 3]);
        assert_eq!(bytes(&mac), [2, 0, 0x5e, 1, 2, 3, 0, 0]);
        let frame = macs([2, 0, 0x5e, 1, 2, 3], [2, 0, 0x5e, 4, 5, 6]);
        let words = frame.map(u32::to_ne_bytes).concat();
        assert_eq!(words, [2, 0, 0x5e, 1, 2, 3, 2, 0, 0x5e, 4, 5, 6]);
    }

    #[test]
    fn few_of_many_mac_addresses_share_a_bit_of_the_filter() {
        let mut seen = std::collections::HashSet::new();
        let vendor = |number: u32| {
            let [_, b, c, d] = number.to_be_bytes();
            Mac::new([2, 0, 0x5e, b, c, d])
        };
        for number in 0..1024 {
            let bit = vendor(number).bit();
            assert!((bit as usize) < PEER_MAC_BITS);
            seen.insert(bit);
        }
        assert!(seen.len() > 1000, "{} bits for 1024 addresses", seen.len());
    }
}
