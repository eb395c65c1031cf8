//! The decision about one frame: bytes and map values in, a verdict with its reason out.
//!
//! Map values are read in place: an update may show in one field before it shows in another. The
//! worst that comes of it is a lost packet, which TCP sends again.
//!
//! `steer` and the host's tests run this code on their own [`Frame`] and [`Tables`]. Whatever goes
//! wrong inside ends in [`Verdict::Pass`]: a node then serves the connection itself.

use crate::{
    abi::{
        Bucket, ENCAP_PORT, MacKey, Meta, NO_HOP, Node, SelfNode, Steer, VipKey, VipValue, mapped,
        node_flags,
    },
    encap::{self, Outer},
    frame::Frame,
    hash::{self, Flow},
    headers::{ETHERTYPE_IPV4, IPV4, Ipv4, Link, Ports, TCP, UDP, UDP_LENGTH},
};

/// What the maps hold, as one packet sees it.
pub trait Tables {
    /// `META`.
    fn meta(&self) -> Option<&Meta>;
    /// `SELF`.
    fn this_node(&self) -> Option<&SelfNode>;
    /// `VIPS`.
    fn vip(&self, key: &VipKey) -> Option<&VipValue>;
    /// `TABLES`.
    fn bucket(&self, table: u8, index: u32) -> Option<&Bucket>;
    /// `NODES`.
    fn node(&self, id: u16) -> Option<&Node>;
    /// `PEERS`: may this address send encapsulated packets?
    fn is_peer(&self, address: &[u8; 16]) -> bool;
    /// `PEER_MACS`: does this address belong to a node on the same segment?
    fn is_peer_mac(&self, mac: &MacKey) -> bool;
    /// `SETS` and `SOCKS`: does a worker listen for a new connection of this flow?
    fn is_listening(&self, set: u8, flow: Flow, seed: [u32; 2]) -> bool;
}

/// Declares [`Reason`] with its number, name and action, so that they cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $number:literal, $action:literal, $label:literal;)+) => {
        /// Why a frame was treated as it was: the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])+ $variant = $number),+ }

        impl Reason {
            /// Every reason, in the order of its counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Index into `COUNTERS`.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }

            /// Label of the metric: `pass`, `drop`, `forward` or `assign`.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$variant => $action),+ }
            }

            /// Label of the metric: why.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

reasons! {
    /// Neither IPv4 nor a length that IPv4 can have: ARP, IPv6, three VLAN tags.
    NotIpv4 = 0, "pass", "not_ipv4";
    /// Not TCP, and no encapsulated packet.
    NotTcp = 1, "pass", "not_tcp";
    /// TCP for an address and port that is no VIP.
    NotVip = 2, "pass", "not_vip";
    /// The frame ends inside a header, or its lengths contradict each other. The kernel has the
    /// last word.
    Malformed = 3, "pass", "malformed";
    /// For a VIP, but another machine's frame: a switch flooded it.
    OtherMac = 4, "pass", "other_mac";
    /// This node owns the connection.
    Own = 5, "pass", "own";
    /// A peer sent it and this node serves it.
    Decapsulated = 6, "pass", "decapsulated";
    /// The maps are not filled, or a bucket or node is missing: served here.
    NoTable = 7, "pass", "no_table";
    /// The owner's MAC address is not known: served here.
    NoNeighbour = 8, "pass", "no_neighbour";
    /// The kernel refused room for the outer headers: served here.
    NoRoom = 9, "pass", "no_room";
    /// Sent to the owner inside UDP.
    ForwardedUdp = 10, "forward", "udp";
    /// Sent to the owner's MAC address as it was.
    ForwardedL2 = 11, "forward", "l2";
    /// A fragment for a VIP: fragments cannot be steered consistently.
    Fragment = 12, "drop", "fragment";
    /// IP options on a packet for a VIP.
    IpOptions = 13, "drop", "ip_options";
    /// A TCP header for a VIP that contradicts itself.
    BadTcp = 14, "drop", "bad_tcp";
    /// Too long to be encapsulated on the way to its owner.
    TooBig = 15, "drop", "too_big";
    /// Encapsulated, but from no peer.
    NotPeer = 16, "drop", "not_peer";
    /// From a peer, but the header or the inner packet is not understood.
    BadEncapsulation = 17, "drop", "bad_encapsulation";
    /// From a peer, but the inner destination is no VIP.
    InnerNotVip = 18, "drop", "inner_not_vip";
    /// `assign` gave the connection to a worker.
    Assigned = 19, "assign", "assigned";
    /// A new connection while no worker listens: `steer` drops its SYN, so that the client tries
    /// again while a process restarts. From within the host `assign` refuses it, which answers with
    /// a reset.
    NoListener = 20, "drop", "no_listener";
    /// `assign` dropped a connection to a port that the VIP does not serve, or a datagram to a VIP.
    ClosedPort = 21, "drop", "closed_port";
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel goes on with it as it is.
    Pass(Reason),
    /// It ends here.
    Drop(Reason),
    /// The outer headers go, the kernel goes on with what was inside.
    Decapsulate {
        /// Offset of the outer IPv4 header.
        network: usize,
    },
    /// It leaves where it came in, to another MAC address.
    ForwardL2 {
        /// The owner's MAC address.
        destination: [u8; 6],
        /// This node's.
        source: [u8; 6],
    },
    /// It leaves where it came in, inside new outer headers.
    ForwardUdp {
        /// Offset of the inner IPv4 header.
        network: usize,
        /// What the outer headers say.
        outer: Outer,
    },
}

/// Decides about one frame.
#[inline(always)]
pub fn steer<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T) -> Verdict {
    let Some(link) = Link::parse(frame) else {
        return Verdict::Pass(Reason::Malformed);
    };
    if link.ethertype != ETHERTYPE_IPV4 {
        return Verdict::Pass(Reason::NotIpv4);
    }
    let Some(packet) = Ipv4::parse(frame, link.payload) else {
        return Verdict::Pass(Reason::Malformed);
    };
    match packet.protocol {
        TCP => steer_tcp(frame, tables, &link, &packet),
        UDP => steer_udp(frame, tables, &link, &packet),
        _ => Verdict::Pass(Reason::NotTcp),
    }
}

#[inline(always)]
fn steer_tcp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    link: &Link,
    packet: &Ipv4,
) -> Verdict {
    // Options would put the TCP header at a place that only the packet knows; with them refused it
    // is at one of three, which the verifier can follow.
    if packet.fragment || packet.header != IPV4 {
        let reason = if packet.fragment {
            Reason::Fragment
        } else {
            Reason::IpOptions
        };
        return unsteerable(tables, packet.destination, reason);
    }
    let Some(ports) = Ports::of_tcp(frame, link.payload + IPV4, packet.total - IPV4) else {
        return unsteerable(tables, packet.destination, Reason::BadTcp);
    };
    let Some(vip) = tables.vip(&VipKey::tcp4(packet.destination, ports.destination)) else {
        return Verdict::Pass(Reason::NotVip);
    };
    let (Some(this_node), Some(meta)) = (tables.this_node(), tables.meta()) else {
        return Verdict::Pass(Reason::NoTable);
    };
    // A switch that floods, or an interface in promiscuous mode, shows us frames for others. If
    // every node steered them, the client's packet would arrive once per node.
    if !this_node.macs.contains(&link.destination) {
        return Verdict::Pass(Reason::OtherMac);
    }
    let flow = Flow::of(packet, ports);
    let hash = hash::flow(flow, meta.seed);
    let Some(bucket) = tables.bucket(vip.table, hash::bucket(hash)) else {
        return Verdict::Pass(Reason::NoTable);
    };
    if bucket.hops[0] == this_node.id {
        return if refused(frame, tables, link.payload + IPV4, vip, flow, meta) {
            Verdict::Drop(Reason::NoListener)
        } else {
            Verdict::Pass(Reason::Own)
        };
    }
    forward(tables, link, packet, this_node, bucket, hash)
}

/// Tells whether the TCP header at `offset` opens a connection that nobody here would accept.
#[inline(always)]
fn refused<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    offset: usize,
    vip: &VipValue,
    flow: Flow,
    meta: &Meta,
) -> bool {
    Ports::is_syn(frame, offset) && !tables.is_listening(vip.set, flow, meta.seed)
}

/// A packet that names a flow only in part: dropped for a VIP, none of our business otherwise.
#[inline(always)]
fn unsteerable<T: Tables>(tables: &T, destination: u32, reason: Reason) -> Verdict {
    match tables.vip(&VipKey::address4(destination)) {
        Some(_) => Verdict::Drop(reason),
        None => Verdict::Pass(Reason::NotVip),
    }
}

#[inline(always)]
fn forward<T: Tables>(
    tables: &T,
    link: &Link,
    packet: &Ipv4,
    this_node: &SelfNode,
    bucket: &Bucket,
    hash: u32,
) -> Verdict {
    let Some(node) = tables
        .node(bucket.hops[0])
        .filter(|_| bucket.hops[0] != NO_HOP)
    else {
        return Verdict::Pass(Reason::NoTable);
    };
    if node.flags & node_flags::V4 == 0 {
        return Verdict::Pass(Reason::NoNeighbour);
    }
    // A frame from a peer was steered once already: forwarding it as it is could send it round for
    // ever.
    let from_peer = node.flags & node_flags::L2 != 0
        && tables.is_peer_mac(&MacKey {
            mac: link.source,
            reserved: [0; 2],
        });
    if node.flags & node_flags::L2 != 0 && !from_peer {
        return Verdict::ForwardL2 {
            destination: node.mac,
            source: link.destination,
        };
    }
    if packet.total + encap::OVERHEAD > usize::from(node.mtu) {
        return Verdict::Drop(Reason::TooBig);
    }
    let hops = if from_peer {
        [NO_HOP; 2]
    } else {
        [bucket.hops[1], bucket.hops[2]]
    };
    let outer = Outer {
        destination_mac: node.mac,
        source_mac: link.destination,
        source: this_node.ip4,
        destination: node.ip4,
        inner_length: packet.total as u16,
        flow_hash: hash,
        from: this_node.id,
        hops,
    };
    Verdict::ForwardUdp {
        network: link.payload,
        outer,
    }
}

#[inline(always)]
fn steer_udp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    link: &Link,
    packet: &Ipv4,
) -> Verdict {
    if packet.fragment || packet.header != IPV4 {
        return Verdict::Pass(Reason::NotTcp);
    }
    let transport = link.payload + IPV4;
    let Some(ports) = Ports::of_udp(frame, transport, packet.total - IPV4) else {
        return Verdict::Pass(Reason::Malformed);
    };
    if ports.destination != ENCAP_PORT.to_be() {
        return Verdict::Pass(Reason::NotTcp);
    }
    let Some(this_node) = tables.this_node() else {
        return Verdict::Pass(Reason::NoTable);
    };
    if packet.destination != this_node.ip4 || !this_node.macs.contains(&link.destination) {
        return Verdict::Pass(Reason::NotTcp);
    }
    if !tables.is_peer(&mapped(packet.source)) {
        return Verdict::Drop(Reason::NotPeer);
    }
    decapsulate(frame, tables, link.payload, packet.total)
}

/// Checks what a peer sent before its outer headers go.
#[inline(always)]
fn decapsulate<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    network: usize,
    total: usize,
) -> Verdict {
    let bad = Verdict::Drop(Reason::BadEncapsulation);
    let header = network + IPV4 + UDP_LENGTH;
    match frame.read::<8>(header) {
        Some([Steer::VERSION_LENGTH, flags, ..]) if flags & crate::abi::steer_flags::V6 == 0 => {}
        _ => return bad,
    }
    let inner_offset = network + encap::OVERHEAD;
    let Some(inner) = Ipv4::parse(frame, inner_offset) else {
        return bad;
    };
    if inner.total + encap::OVERHEAD != total
        || inner.protocol != TCP
        || inner.fragment
        || inner.header != IPV4
    {
        return bad;
    }
    let Some(ports) = Ports::of_tcp(frame, inner_offset + IPV4, inner.total - IPV4) else {
        return bad;
    };
    let Some(vip) = tables.vip(&VipKey::tcp4(inner.destination, ports.destination)) else {
        return Verdict::Drop(Reason::InnerNotVip);
    };
    let flow = Flow::of(&inner, ports);
    // The table is not asked again: two nodes whose tables differ for a moment would send the
    // packet to and fro. Whoever gets it keeps it.
    match tables.meta() {
        Some(meta) if refused(frame, tables, inner_offset + IPV4, vip, flow, meta) => {
            Verdict::Drop(Reason::NoListener)
        }
        _ => Verdict::Decapsulate { network },
    }
}
