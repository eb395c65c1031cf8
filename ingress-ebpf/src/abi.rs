//! Keys, values and names of the BPF maps: the memory that both sides see.
//!
//! Integers are in host byte order unless a field says "network byte order". Changing a layout
//! means raising [`SCHEMA`]: the pins of another schema live in another directory.

/// Version of every layout in this file; part of the pin directory's name.
pub const SCHEMA: u16 = 2;

/// First word of [`Meta`]: `FBAY`.
pub const MAGIC: u32 = u32::from_be_bytes(*b"FBAY");

/// UDP port of encapsulated packets between nodes.
pub const ENCAP_PORT: u16 = 17_986;

/// Buckets of a Maglev table: a prime, so that every step walks the whole table.
pub const TABLE_LEN: usize = 65_537;

/// A bucket's hop that names no node.
pub const NO_HOP: u16 = u16::MAX;

/// The most interfaces one node may steer on: [`SelfNode::macs`] holds a MAC for each.
pub const MAX_INTERFACES: usize = 4;

/// Entries of each map.
pub mod entries {
    /// `VIPS`: address and port pairs.
    pub const VIPS: usize = 4096;
    /// `TABLES`: Maglev tables, one per pool of nodes.
    pub const TABLES: usize = 8;
    /// `NODES`: node ids are below this.
    pub const NODES: usize = 1024;
    /// `PEERS`: addresses that may send encapsulated packets.
    pub const PEERS: usize = 2048;
    /// `PEER_MACS`: MAC addresses of nodes on the same segment.
    pub const PEER_MACS: usize = 2048;
    /// `SOCKS`: listening sockets, [`super::SOCKETS_PER_GENERATION`] for each generation of
    /// workers.
    pub const SOCKS: usize = 4096;
    /// `SETS`: listener sets.
    pub const SETS: usize = 64;
    /// `COUNTERS`: one for each [`crate::verdict::Reason`], with room to grow.
    pub const COUNTERS: usize = 64;
}

/// Slots of `SOCKS` that one process takes: 16 generations may be alive at once.
pub const SOCKETS_PER_GENERATION: u32 = 256;

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

/// Who wrote the maps, and the seed of the flow hash. Written by the agent, read by `steer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`SCHEMA`] of the writer.
    pub schema: u16,
    /// Zero.
    pub reserved: u16,
    /// Grows with each table that was swapped in.
    pub epoch: u64,
    /// Seed of the flow hash; the same on every node.
    pub seed: [u32; 2],
}
abi!(Meta, 24: u32, u16, u16, u64, [u32; 2]);

/// This node. Written by the agent, read by `steer` for every packet of a VIP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfNode {
    /// Index into `NODES`.
    pub id: u16,
    /// Zero.
    pub reserved: u16,
    /// IPv4 address that peers send encapsulated packets to; network byte order, as in the packet.
    pub ip4: u32,
    /// MAC address of each steered interface; zero where there is none. Frames for others are not
    /// ours to steer.
    pub macs: [[u8; 6]; MAX_INTERFACES],
}
abi!(SelfNode, 32: u16, u16, u32, [[u8; 6]; MAX_INTERFACES]);

/// Key of `VIPS`: one virtual address and port. Port and protocol zero say "this address is a VIP".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VipKey {
    /// IPv6, or IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2); network byte order.
    pub addr: [u8; 16],
    /// TCP port; network byte order, as in the packet.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero: map keys compare by bytes.
    pub reserved: u8,
}
abi!(VipKey, 20: [u8; 16], u16, u8, u8);

/// Value of `VIPS`: which table steers a VIP and which listeners serve it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipValue {
    /// Index into `TABLES`.
    pub table: u8,
    /// Index into `SETS`.
    pub set: u8,
}
abi!(VipValue, 2: u8, u8);

/// One bucket of a Maglev table: who owns its connections, and who may still hold older ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Node ids; the first owns new connections. [`NO_HOP`] where there is none.
    pub hops: [u16; 3],
}
abi!(Bucket, 6: [u16; 3]);

/// One node, as others reach it. Written by the agent, read by `steer` when it forwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// IPv4 address; network byte order, as in the packet.
    pub ip4: u32,
    /// MAC address of the next hop: the node's own, or a gateway's.
    pub mac: [u8; 6],
    /// Bits of [`node_flags`].
    pub flags: u16,
    /// Largest IP packet on the way to it, in bytes.
    pub mtu: u16,
    /// Zero.
    pub reserved: u16,
}
abi!(Node, 16: u32, [u8; 6], u16, u16, u16);

/// Bits of [`Node::flags`].
pub mod node_flags {
    /// The node is on the same segment and packets may go to its MAC address as they are.
    pub const L2: u16 = 1;
    /// The IPv4 address is set and the MAC address is resolved: packets can be sent.
    pub const V4: u16 = 2;
}

/// Key of `PEER_MACS`: a MAC address and two zero bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacKey {
    /// The MAC address.
    pub mac: [u8; 6],
    /// Always zero: map keys compare by bytes.
    pub reserved: [u8; 2],
}
abi!(MacKey, 8: [u8; 6], [u8; 2]);

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

/// Bits of [`Steer::flags`].
pub mod steer_flags {
    /// The inner packet is IPv6.
    pub const V6: u8 = 1;
    /// The receiver keeps the packet whatever its own table says.
    pub const FINAL: u8 = 2;
}

impl VipKey {
    /// The key of an IPv4 address (bytes as in the packet), TCP and a port in network byte order.
    #[inline(always)]
    pub const fn tcp4(addr: u32, port: u16) -> Self {
        Self {
            addr: mapped(addr),
            port,
            protocol: crate::headers::TCP,
            reserved: 0,
        }
    }

    /// The key that says an IPv4 address (bytes as in the packet) is a VIP, whatever the port.
    #[inline(always)]
    pub const fn address4(addr: u32) -> Self {
        Self {
            addr: mapped(addr),
            port: 0,
            protocol: 0,
            reserved: 0,
        }
    }
}

/// An IPv4 address (bytes as in the packet) as IPv4-mapped IPv6.
#[inline(always)]
pub const fn mapped(addr: u32) -> [u8; 16] {
    let [a, b, c, d] = addr.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layouts_are_those_of_schema_2() {
        assert_eq!(SCHEMA, 2, "a new schema needs new golden offsets");
        let offsets = [
            ("Meta.epoch", offset_of!(Meta, epoch), 8),
            ("Meta.seed", offset_of!(Meta, seed), 16),
            ("SelfNode.ip4", offset_of!(SelfNode, ip4), 4),
            ("SelfNode.macs", offset_of!(SelfNode, macs), 8),
            ("VipKey.port", offset_of!(VipKey, port), 16),
            ("VipKey.protocol", offset_of!(VipKey, protocol), 18),
            ("VipValue.set", offset_of!(VipValue, set), 1),
            ("Node.mac", offset_of!(Node, mac), 4),
            ("Node.flags", offset_of!(Node, flags), 10),
            ("Node.mtu", offset_of!(Node, mtu), 12),
            ("SocketSet.count", offset_of!(SocketSet, count), 4),
            ("Steer.from", offset_of!(Steer, from), 2),
            ("Steer.hops", offset_of!(Steer, hops), 4),
        ];
        for (field, offset, golden) in offsets {
            assert_eq!(offset, golden, "{field}");
        }
    }

    #[test]
    fn values_are_bytes_in_the_order_of_their_fields() {
        let key = VipKey::tcp4(u32::from_ne_bytes([198, 51, 100, 10]), 443u16.to_be());
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 10];
        assert_eq!(bytes(&key), [&address[..], &[1, 0xbb, 6, 0]].concat());
        let any_port = VipKey::address4(u32::from_ne_bytes([198, 51, 100, 10]));
        assert_eq!(bytes(&any_port), [&address[..], &[0; 4]].concat());
    }

    #[test]
    fn ipv4_addresses_are_kept_as_mapped_ipv6() {
        let octets = [198, 51, 100, 10];
        let expected = std::net::Ipv4Addr::from(octets).to_ipv6_mapped().octets();
        assert_eq!(mapped(u32::from_ne_bytes(octets)), expected);
    }
}
