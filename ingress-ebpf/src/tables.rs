//! What the maps hold, as one packet sees it.

use crate::{
    abi::{Bucket, FirstHop, Mac, Node, Unit, VipKey4, VipKey6, VipValue},
    flow::Flow,
};

/// The maps of the kernel, or a host test's.
pub trait Tables {
    /// `META` and `UNITS`: the unit that is in force, and which of the two it is.
    fn unit(&self) -> Option<(u16, &Unit)>;
    /// `INTERFACES`: is this the address of an interface that is steered on?
    fn is_own_mac(&self, mac: Mac) -> bool;
    /// `INTERFACES`: the address of the one that the frame came in by.
    fn mac_here(&self) -> Option<Mac>;
    /// `VIP_SLOTS4` and `VIPS4`.
    fn vip4(&self, key: &VipKey4) -> Option<&VipValue>;
    /// `VIP_SLOTS6` and `VIPS6`.
    fn vip6(&self, key: &VipKey6) -> Option<&VipValue>;
    /// `FIRST_HOPS`: the first hop of a bucket of a pool's table in this unit.
    fn first_hop(&self, unit: u16, pool: u8, index: u32) -> Option<FirstHop>;
    /// `TABLES`: the whole bucket, for a packet that needs the other hops.
    fn bucket(&self, unit: u16, pool: u8, index: u32) -> Option<&Bucket>;
    /// `NODES`: a node of this unit.
    fn node(&self, unit: u16, id: u16) -> Option<&Node>;
    /// `PEER_MACS`: may this be the address of a node on the same segment? A wrong yes costs an
    /// encapsulation, a wrong no could send a packet round for ever.
    fn is_peer_mac(&self, mac: Mac) -> bool;
    /// `SETS` and `SOCKS`: does a worker listen, for a new connection of this hash?
    fn is_listening(&self, set: u8, hash: u32) -> bool;
    /// Does a socket of this node have the connection? `cookie` is the offset of a TCP header that
    /// may end a handshake which a SYN cookie stands for.
    fn has4(&self, flow: &Flow<u32>, cookie: Option<usize>) -> bool;
    /// The same for IPv6.
    fn has6(&self, flow: &Flow<[u32; 4]>, cookie: Option<usize>) -> bool;
    /// May one more packet go to the next node that may have its connection? To be counted.
    fn may_send_on(&self) -> bool;
    /// A packet for a VIP, whose index this is, of so many bytes by its own account: to be counted.
    /// Told as soon as it is known, since whatever is kept until the decision costs each packet.
    fn came(&self, vip: u32, bytes: usize, is_opening: bool);
    /// A packet for a VIP is dropped: to be counted.
    fn dropped(&self, vip: u32);
}
