//! The decision about one frame: bytes and map values in, a verdict with its reason out.
//!
//! Map values are read in place: an update may show in one field before it shows in another. The
//! worst that comes of it is a lost packet, which TCP sends again.
//!
//! `steer` and the host's tests run this code on their own [`Frame`] and [`Tables`]. Whatever goes
//! wrong inside ends in [`Verdict::Pass`]: a node then serves the connection itself.

use crate::{
    abi::{ENCAP_PORT, FirstHop, NO_HOP, Node, Steer, Unit, node_flags, steer_flags, unit_flags},
    announce::{ETHERTYPE_ARP, ICMPV6, SOLICITATION},
    encap::{self, Hops, Outer},
    family::{Family, V4, V6},
    find::{Found, Meaning, Unfound, find},
    frame::Frame,
    hash,
    headers::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6, Link, Packet, UDP, UDP_LENGTH},
    reason::Reason,
    tables::Tables,
};

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The kernel goes on with it as it is.
    Pass,
    /// It ends here.
    Drop,
    /// The outer headers go, the kernel goes on with what was inside.
    Decapsulate {
        /// Offset of the outer IP header.
        network: usize,
        /// Bytes from there to the inner one.
        cut: usize,
        /// EtherType of the inner packet, host byte order.
        ethertype: u16,
    },
    /// It leaves as it is, to another MAC address.
    ForwardL2 {
        /// Who gets it.
        node: &'a Node,
    },
    /// It leaves inside new outer headers.
    Encapsulate {
        /// Bytes before the inner IP header, which go: the link-layer header, and the outer headers
        /// that it came in, if it did.
        cut: usize,
        /// What the outer headers say.
        outer: Outer<'a>,
    },
}

/// A verdict and what is counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What happens to the frame.
    pub verdict: Verdict<'a>,
    /// Why.
    pub reason: Reason,
    /// Index of the VIP it is for; [`NO_VIP`] for none.
    pub vip: u32,
    /// The node that it goes to, or that sent it encapsulated; [`NO_HOP`] for none.
    pub node: u16,
    /// Whether the sending node steers by another table.
    pub is_skewed: bool,
}

/// The index of no VIP.
pub const NO_VIP: u32 = u32::MAX;

impl<'a> Decision<'a> {
    /// About a frame that is for no VIP.
    #[inline(always)]
    const fn of(verdict: Verdict<'a>, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            vip: NO_VIP,
            node: NO_HOP,
            is_skewed: false,
        }
    }

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self::of(Verdict::Pass, reason)
    }

    #[inline(always)]
    const fn drop(reason: Reason) -> Self {
        Self::of(Verdict::Drop, reason)
    }
}

/// What a frame is, before it is looked at closely. Each kind has a function of its own: a program has
/// 512 bytes of stack for all functions of a call chain, and inlined into one they would all take
/// theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 packet that no peer has encapsulated.
    Plain4,
    /// The same of IPv6.
    Plain6,
    /// UDP to the port of encapsulation; by the versions of the outer and the inner packet.
    Encapsulated44,
    /// IPv6 in IPv4.
    Encapsulated46,
    /// IPv4 in IPv6.
    Encapsulated64,
    /// IPv6 in IPv6.
    Encapsulated66,
    /// ARP; see [`crate::announce`].
    Arp,
    /// A neighbour solicitation; see [`crate::announce`].
    Solicitation,
}

/// Decides about one frame, unless it asks where a VIP is.
#[inline(always)]
pub fn steer<'a, T: Tables>(frame: &(impl Frame + ?Sized), tables: &'a T) -> Decision<'a> {
    let decided = match kind(frame) {
        Err(reason) => Err(reason),
        Ok((link, Kind::Plain4)) => plain::<V4, T>(frame, tables, &link),
        Ok((link, Kind::Plain6)) => plain::<V6, T>(frame, tables, &link),
        Ok((link, Kind::Encapsulated44)) => encapsulated::<V4, V4, T>(frame, tables, &link),
        Ok((link, Kind::Encapsulated46)) => encapsulated::<V4, V6, T>(frame, tables, &link),
        Ok((link, Kind::Encapsulated64)) => encapsulated::<V6, V4, T>(frame, tables, &link),
        Ok((link, Kind::Encapsulated66)) => encapsulated::<V6, V6, T>(frame, tables, &link),
        Ok((_, Kind::Arp)) => Err(Reason::NotIp),
        Ok((_, Kind::Solicitation)) => Err(Reason::NotTcp),
    };
    decided.unwrap_or_else(Decision::pass)
}

/// Tells which function decides about a frame.
///
/// # Errors
///
/// The reason why it passes, where it is none of our business.
#[inline(always)]
pub fn kind(frame: &(impl Frame + ?Sized)) -> Result<(Link, Kind), Reason> {
    let link = Link::parse(frame).ok_or(Reason::Malformed)?;
    let protocol = match link.ethertype {
        ETHERTYPE_IPV4 => frame.read::<1>(link.payload + 9),
        ETHERTYPE_IPV6 => frame.read::<1>(link.payload + 6),
        ETHERTYPE_ARP => return Ok((link, Kind::Arp)),
        _ => return Err(Reason::NotIp),
    };
    let kind = match (link.ethertype == ETHERTYPE_IPV4, protocol == Some([UDP])) {
        (true, false) => Kind::Plain4,
        (false, false)
            if protocol == Some([ICMPV6])
                && frame.read::<1>(link.payload + IPV6) == Some([SOLICITATION]) =>
        {
            Kind::Solicitation
        }
        (false, false) => Kind::Plain6,
        (true, true) => match datagram::<V4>(frame, &link)? {
            false => Kind::Encapsulated44,
            true => Kind::Encapsulated46,
        },
        (false, true) => match datagram::<V6>(frame, &link)? {
            false => Kind::Encapsulated64,
            true => Kind::Encapsulated66,
        },
    };
    Ok((link, kind))
}

/// Whether a UDP packet to the port of encapsulation says that IPv6 is inside.
#[inline(always)]
fn datagram<O: Family>(frame: &(impl Frame + ?Sized), link: &Link) -> Result<bool, Reason> {
    let packet = O::parse(frame, link.payload).ok_or(Reason::Malformed)?;
    if packet.oddity.is_some() {
        return Err(Reason::NotTcp);
    }
    let transport = link.payload + O::HEADER;
    let ports = headers::ports(frame, transport).ok_or(Reason::Malformed)?;
    if packet.total < O::HEADER + UDP_LENGTH {
        return Err(Reason::Malformed);
    }
    if (ports >> 16) as u16 != ENCAP_PORT.to_be() {
        return Err(Reason::NotTcp);
    }
    let flags = frame.read::<2>(transport + UDP_LENGTH);
    Ok(flags.is_some_and(|[_, flags]| flags & steer_flags::V6 != 0))
}

/// Decides about a packet that no peer has encapsulated.
///
/// # Errors
///
/// The reason why it passes, where it is none of our business. Apart from decisions, since these are
/// most packets: a program is done with them at once.
#[inline(always)]
pub fn plain<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    link: &Link,
) -> Result<Decision<'a>, Reason> {
    let packet = F::parse(frame, link.payload).ok_or(Reason::Malformed)?;
    let found = match find::<F, T>(frame, tables, link.payload, &packet) {
        Ok(found) => found,
        Err(Unfound::Pass(reason)) => return Err(reason),
        Err(Unfound::Drop(reason, vip)) => {
            tables.came(vip, packet.total, false);
            return Ok(dropped(tables, reason, vip));
        }
    };
    let way = Way {
        cut: link.payload,
        total: packet.total,
    };
    // A switch that floods, or an interface in promiscuous mode, shows us frames for others. If
    // every node steered them, the client's packet would arrive once per node.
    if !headers::destination_mac(frame).is_some_and(|mac| tables.is_own_mac(mac)) {
        return Err(Reason::OtherMac);
    }
    tables.came(
        found.vip.index,
        packet.total,
        found.meaning == Meaning::Opening,
    );
    Ok(Decision {
        vip: found.vip.index,
        ..of_client::<F, T>(frame, tables, link, &found, &way)
    })
}

/// About a packet for a VIP that ends here.
#[inline(always)]
fn dropped<'a, T: Tables>(tables: &T, reason: Reason, vip: u32) -> Decision<'a> {
    tables.dropped(vip);
    Decision {
        vip,
        ..Decision::drop(reason)
    }
}

/// How a packet came.
struct Way {
    /// Offset of the (inner) packet.
    cut: usize,
    /// Bytes of the (inner) packet.
    total: usize,
}

#[inline(always)]
fn of_client<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    link: &Link,
    found: &Found<'a, F::Address>,
    way: &Way,
) -> Decision<'a> {
    let Some((number, unit)) = tables.unit() else {
        return Decision::pass(Reason::NoTable);
    };
    let digest = F::digest(&found.flow, &unit.keys);
    let hash = digest.bucket(&unit.keys);
    let pool = found.vip.pool;
    let Some(first) = tables.first_hop(number, pool, hash::bucket(hash)) else {
        return Decision::pass(Reason::NoTable);
    };
    let next = Next {
        number,
        unit,
        hash,
        hops: [first.id(), NO_HOP, NO_HOP],
    };
    if first.id() != unit.self_id {
        let Some(next) = next.with_others(tables, pool, first) else {
            return Decision::pass(Reason::NoTable);
        };
        return of_another::<F, T>(frame, tables, link, found, way, next);
    }
    if found.meaning == Meaning::Opening {
        return if tables.is_listening(found.vip.set, digest.worker(&unit.keys)) {
            Decision::pass(Reason::Own)
        } else {
            dropped(tables, Reason::NoListener, found.vip.index)
        };
    }
    // The whole bucket is not read before it is needed: most connections are here.
    if !first.has_others() || F::has(tables, &found.flow, found.meaning.cookie()) {
        return Decision::pass(Reason::Own);
    }
    let Some(next) = next.with_others(tables, pool, first) else {
        return Decision::pass(Reason::NoTable);
    };
    let next = next.after_first();
    if next.is_last() {
        return Decision::pass(Reason::Own);
    }
    send_on::<F, T>(tables, found, way, &next)
}

/// Sends a packet whose connection is not here to the next node that may have it.
///
/// Where too many come, the packet is dropped and not kept: the kernel would answer with a reset, and
/// end a connection that another node has.
#[inline(always)]
fn send_on<'a, F: Family, T: Tables>(
    tables: &'a T,
    found: &Found<'a, F::Address>,
    way: &Way,
    next: &Next<'a>,
) -> Decision<'a> {
    if !tables.may_send_on() {
        return dropped(tables, Reason::NoChance, found.vip.index);
    }
    encapsulate::<F, T>(tables, found, way, next, Reason::SecondChance)
}

/// Sends a client's packet to the owner of its bucket.
#[inline(always)]
fn of_another<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    link: &Link,
    found: &Found<'a, F::Address>,
    way: &Way,
    next: Next<'a>,
) -> Decision<'a> {
    if next.unit.flags & unit_flags::BY_MAC == 0 {
        return encapsulate::<F, T>(tables, found, way, &next, Reason::ForwardedUdp);
    }
    if !headers::source_mac(frame).is_some_and(|mac| tables.is_peer_mac(mac)) {
        if let Some(decision) = by_mac(frame, tables, link, &next) {
            return decision;
        }
        return encapsulate::<F, T>(tables, found, way, &next, Reason::ForwardedUdp);
    }
    // By another node's table this one comes first: theirs and ours differ while they change. No hops
    // travelled with the frame, so this node looks for itself, then goes by its own table. As it is
    // the frame is never sent on, or two such nodes would send it to and fro for ever.
    let is_here =
        found.meaning != Meaning::Opening && F::has(tables, &found.flow, found.meaning.cookie());
    if is_here {
        return Decision::pass(Reason::Own);
    }
    let next = next.without_self();
    encapsulate::<F, T>(tables, found, way, &next, Reason::ForwardedUdp)
}

/// Where a packet may go.
struct Next<'a> {
    /// Which of the two units is in force.
    number: u16,
    unit: &'a Unit,
    hash: u32,
    /// Nodes to try, in turn.
    hops: [u16; 3],
}

impl Next<'_> {
    /// With all hops of the bucket; `None` where there is no such bucket.
    #[inline(always)]
    fn with_others<T: Tables>(self, tables: &T, pool: u8, first: FirstHop) -> Option<Self> {
        if !first.has_others() {
            return Some(self);
        }
        let bucket = tables.bucket(self.number, pool, hash::bucket(self.hash))?;
        let hops = bucket.hops;
        Some(Self { hops, ..self })
    }

    #[inline(always)]
    const fn after_first(self) -> Self {
        let [_, second, third] = self.hops;
        Self {
            hops: [second, third, NO_HOP],
            ..self
        }
    }

    /// Without this node, which is not the first.
    #[inline(always)]
    const fn without_self(self) -> Self {
        let [first, second, third] = self.hops;
        let hops = if second == self.unit.self_id {
            [first, third, NO_HOP]
        } else if third == self.unit.self_id {
            [first, second, NO_HOP]
        } else {
            self.hops
        };
        Self { hops, ..self }
    }

    /// Whether nobody is left who could have the connection.
    #[inline(always)]
    const fn is_last(&self) -> bool {
        self.hops[0] == NO_HOP || self.hops[0] == self.unit.self_id
    }
}

/// Sends a frame as it is to a node on its segment; `None` where it is not that.
#[inline(always)]
fn by_mac<'a, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    link: &Link,
    next: &Next<'a>,
) -> Option<Decision<'a>> {
    const REACHED: u16 = node_flags::L2 | node_flags::RESOLVED;
    let hop = next.hops[0];
    let node = tables.node(next.number, hop)?;
    let is_reached =
        node.flags & REACHED == REACHED && headers::vlan(frame, link) == Some(node.vlan);
    is_reached.then_some(Decision {
        node: hop,
        ..Decision::of(Verdict::ForwardL2 { node }, Reason::ForwardedL2)
    })
}

/// Sends a packet to the first of the hops, with the others; keeps it where that cannot be reached.
#[inline(always)]
fn encapsulate<'a, F: Family, T: Tables>(
    tables: &'a T,
    found: &Found<'a, F::Address>,
    way: &Way,
    next: &Next<'a>,
    reason: Reason,
) -> Decision<'a> {
    let [hop, second, third] = next.hops;
    if hop == NO_HOP {
        return Decision::pass(Reason::NoTable);
    }
    let Some(node) = tables.node(next.number, hop) else {
        return Decision::pass(Reason::NoTable);
    };
    if node.flags & node_flags::RESOLVED == 0 {
        return Decision::pass(Reason::NoNeighbour);
    }
    if way.total + encap::overhead(node) > usize::from(node.mtu) {
        return dropped(tables, Reason::TooBig, found.vip.index);
    }
    let hops = Hops {
        from: next.unit.self_id,
        hops: [second, third],
        inner_is_v6: F::IS_V6,
        mark: next.unit.mark,
    };
    let outer = Outer {
        own: &next.unit.addresses,
        node,
        inner_length: way.total as u16,
        flow_hash: next.hash,
        steer: hops.steer(),
    };
    let verdict = Verdict::Encapsulate {
        cut: way.cut,
        outer,
    };
    Decision {
        node: hop,
        ..Decision::of(verdict, reason)
    }
}

/// Decides about a packet to the port of encapsulation: `I` in `O`.
///
/// # Errors
///
/// The reason why it passes, where it is none of our business.
#[inline(always)]
pub fn encapsulated<'a, O: Family, I: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    link: &Link,
) -> Result<Decision<'a>, Reason> {
    let packet = O::parse(frame, link.payload).ok_or(Reason::Malformed)?;
    let transport = link.payload + O::HEADER;
    let (number, unit) = tables.unit().ok_or(Reason::NoTable)?;
    let is_ours = O::is_to(frame, link.payload, &unit.addresses)
        && headers::destination_mac(frame).is_some_and(|mac| tables.is_own_mac(mac));
    if !is_ours {
        return Err(Reason::NotTcp);
    }
    let header = transport + UDP_LENGTH;
    let Some([version, flags, f0, f1, h0, h1, h2, h3]) = frame.read::<8>(header) else {
        return Ok(Decision::drop(Reason::BadEncapsulation));
    };
    // The header says which node it is, the address that it is true.
    let from = u16::from_be_bytes([f0, f1]);
    let peer = tables.node(number, from);
    let is_peer = from != unit.self_id
        && peer.is_some_and(|peer| O::is_from(frame, link.payload, &peer.addresses));
    if !is_peer {
        return Ok(Decision::drop(Reason::NotPeer));
    }
    let next = Next {
        number,
        unit,
        hash: 0,
        hops: [
            u16::from_be_bytes([h0, h1]),
            u16::from_be_bytes([h2, h3]),
            NO_HOP,
        ],
    };
    let outer = O::HEADER + UDP_LENGTH + size_of::<Steer>();
    let inner = Inner {
        link,
        network: link.payload + outer,
        // Both lengths are known to fit their packet.
        total: packet.total.wrapping_sub(outer),
        is_final: flags & steer_flags::FINAL != 0,
    };
    let decision = if version == Steer::VERSION_LENGTH {
        unwrapped::<I, T>(frame, tables, &inner, next)
    } else {
        Decision::drop(Reason::BadEncapsulation)
    };
    Ok(Decision {
        node: if decision.node == NO_HOP {
            from
        } else {
            decision.node
        },
        is_skewed: (flags ^ (unit.mark as u8) << 4) & steer_flags::MARK != 0,
        ..decision
    })
}

/// What a peer sent, without its outer headers.
struct Inner<'a> {
    link: &'a Link,
    /// Offset of the inner packet.
    network: usize,
    /// Bytes of the inner packet, by the outer one's account.
    total: usize,
    is_final: bool,
}

/// Checks what is inside before the outer headers go.
#[inline(always)]
fn unwrapped<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    inner: &Inner<'_>,
    next: Next<'a>,
) -> Decision<'a> {
    let bad = Decision::drop(Reason::BadEncapsulation);
    let Some(packet) = F::parse(frame, inner.network) else {
        return bad;
    };
    if packet.total != inner.total {
        return bad;
    }
    let found = match find::<F, T>(frame, tables, inner.network, &packet) {
        Ok(found) => found,
        Err(Unfound::Pass(Reason::NotVip)) => return Decision::drop(Reason::InnerNotVip),
        Err(Unfound::Pass(_)) => return bad,
        Err(Unfound::Drop(_, vip)) => {
            tables.came(vip, packet.total, false);
            return dropped(tables, Reason::BadEncapsulation, vip);
        }
    };
    tables.came(
        found.vip.index,
        packet.total,
        found.meaning == Meaning::Opening,
    );
    Decision {
        vip: found.vip.index,
        ..of_peer::<F, T>(tables, &found, &packet, inner, next)
    }
}

/// The table is not asked again: two nodes whose tables differ for a moment would send the packet to
/// and fro. It has the hops that its first node gave it, and loses one at each.
#[inline(always)]
fn of_peer<'a, F: Family, T: Tables>(
    tables: &'a T,
    found: &Found<'a, F::Address>,
    packet: &Packet<F::Address>,
    inner: &Inner<'_>,
    next: Next<'a>,
) -> Decision<'a> {
    let network = inner.link.payload;
    let keep = Decision::of(
        Verdict::Decapsulate {
            network,
            cut: inner.network - network,
            ethertype: F::ETHERTYPE,
        },
        Reason::Decapsulated,
    );
    if found.meaning == Meaning::Opening {
        let digest = F::digest(&found.flow, &next.unit.keys);
        return if tables.is_listening(found.vip.set, digest.worker(&next.unit.keys)) {
            keep
        } else {
            dropped(tables, Reason::NoListener, found.vip.index)
        };
    }
    if inner.is_final || next.is_last() || F::has(tables, &found.flow, found.meaning.cookie()) {
        return keep;
    }
    let hash = F::digest(&found.flow, &next.unit.keys).bucket(&next.unit.keys);
    let way = Way {
        cut: inner.network,
        total: packet.total,
    };
    let next = Next { hash, ..next };
    let onward = send_on::<F, T>(tables, found, &way, &next);
    // Whoever cannot be reached cannot be asked.
    match onward.verdict {
        Verdict::Pass => keep,
        _ => onward,
    }
}
