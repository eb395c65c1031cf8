//! Names the flow that a packet belongs to, and what the packet means to it.

use crate::{
    abi::{ANY_SERVICE, VipValue, service},
    family::Family,
    flow::{self, Flow},
    frame::Frame,
    headers::{self, Control, ICMP_LENGTH, Oddity, Packet, Segment, TCP},
    reason::Reason,
    tables::Tables,
};

/// A packet for a VIP and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a, A> {
    /// The VIP.
    pub vip: &'a VipValue,
    /// The connection, as its client names it.
    pub flow: Flow<A>,
    /// What the packet means to it.
    pub meaning: Meaning,
}

/// What a packet means to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It opens it.
    Opening,
    /// It may be the last of a handshake that a SYN cookie stands for; the offset of its TCP header.
    Acknowledging(usize),
    /// It is of a connection that is there, or about one.
    Within,
}

impl Meaning {
    /// Where a SYN cookie may be.
    #[inline(always)]
    pub const fn cookie(self) -> Option<usize> {
        match self {
            Self::Acknowledging(at) => Some(at),
            Self::Opening | Self::Within => None,
        }
    }
}

/// Why there is no flow to steer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfound {
    /// It is none of our business, or for the kernel to answer.
    Pass(Reason),
    /// It is for a VIP, whose index this is, and cannot be steered.
    Drop(Reason, u32),
}

/// Names the flow of the packet whose IP header, read as `packet`, is at `network`.
///
/// # Errors
///
/// [`Unfound`] where it is for no VIP, or names no connection.
#[inline(always)]
pub fn find<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    network: usize,
    packet: &Packet<F::Address>,
) -> Result<Found<'a, F::Address>, Unfound> {
    // Options would put the transport header at a place that only the packet knows.
    if let Some(oddity) = packet.oddity {
        let reason = match oddity {
            Oddity::Fragment => Reason::Fragment,
            Oddity::Options => Reason::IpOptions,
        };
        return Err(unsteerable::<F, T>(tables, packet, reason));
    }
    let transport = network + F::HEADER;
    if packet.protocol == TCP {
        segment::<F, T>(frame, tables, transport, packet)
    } else if packet.protocol == F::ICMP {
        message::<F, T>(frame, tables, transport, packet)
    } else {
        Err(Unfound::Pass(Reason::NotTcp))
    }
}

#[inline(always)]
fn segment<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    transport: usize,
    packet: &Packet<F::Address>,
) -> Result<Found<'a, F::Address>, Unfound> {
    let Some(ports) = headers::ports(frame, transport) else {
        return Err(unsteerable::<F, T>(tables, packet, Reason::BadTcp));
    };
    let flow = Flow {
        source: packet.source,
        destination: packet.destination,
        ports,
    };
    // Before anything else is looked at: most of a node's packets end here.
    let Some(vip) = F::vip(tables, flow.destination, service(flow.service_port(), TCP)) else {
        return Err(Unfound::Pass(Reason::NotVip));
    };
    let meaning = match Segment::parse(frame, transport, packet.total - F::HEADER) {
        Some(Segment::Opening) => Meaning::Opening,
        Some(Segment::Acknowledging) => Meaning::Acknowledging(transport),
        Some(Segment::Within) => Meaning::Within,
        None => return Err(Unfound::Drop(Reason::BadTcp, vip.index)),
    };
    Ok(Found { vip, flow, meaning })
}

/// An ICMP error is of the connection that it is about, so that its owner hears it: else a path whose
/// MTU shrinks stalls every connection that another node owns (RFC 1191, RFC 8201).
#[inline(always)]
fn message<'a, F: Family, T: Tables>(
    frame: &(impl Frame + ?Sized),
    tables: &'a T,
    transport: usize,
    packet: &Packet<F::Address>,
) -> Result<Found<'a, F::Address>, Unfound> {
    match Control::parse(frame, transport, F::IS_V6) {
        Some(Control::Error) => {}
        Some(Control::Echo | Control::Other) => return Err(Unfound::Pass(Reason::NotTcp)),
        None => return Err(Unfound::Pass(Reason::Malformed)),
    }
    // What it quotes went from the VIP to the client. Eight bytes of TCP are all that must be there
    // (RFC 792), and the ports are among them.
    let quoted = transport + ICMP_LENGTH;
    let Some((TCP, vip, client)) = F::parse_start(frame, quoted) else {
        return Err(Unfound::Pass(Reason::NotTcp));
    };
    let Some(ports) = headers::ports(frame, quoted + F::HEADER) else {
        return Err(Unfound::Pass(Reason::NotTcp));
    };
    if vip != packet.destination {
        return Err(Unfound::Pass(Reason::NotTcp));
    }
    let flow = Flow {
        source: client,
        destination: vip,
        ports: flow::ports((ports >> 16) as u16, ports as u16),
    };
    match F::vip(tables, vip, service(flow.service_port(), TCP)) {
        Some(vip) => Ok(Found {
            vip,
            flow,
            meaning: Meaning::Within,
        }),
        None => Err(Unfound::Pass(Reason::NotVip)),
    }
}

/// A packet that names a flow only in part: dropped for a VIP, none of our business otherwise.
#[inline(always)]
fn unsteerable<F: Family, T: Tables>(
    tables: &T,
    packet: &Packet<F::Address>,
    reason: Reason,
) -> Unfound {
    match F::vip(tables, packet.destination, ANY_SERVICE) {
        Some(vip) => Unfound::Drop(reason, vip.index),
        None => Unfound::Pass(Reason::NotVip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledgement_may_stand_for_a_cookie() {
        for (meaning, cookie) in [
            (Meaning::Opening, None),
            (Meaning::Acknowledging(34), Some(34)),
            (Meaning::Within, None),
        ] {
            assert_eq!(meaning.cookie(), cookie, "{meaning:?}");
        }
    }
}
