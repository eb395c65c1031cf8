//! XDP: what is attached, and which function each kind of frame has.

#[cfg(feature = "undo")]
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use ingress_ebpf::verdict::{Kind, kind};
#[cfg(feature = "undo")]
use ingress_ebpf::{
    frame::Frame as _,
    headers::{ETHERNET, IPV4},
};

use crate::{
    announce::{answer_arp, answer_ndp},
    maps::count_at,
    steer::{
        XdpFrame, encapsulated44, encapsulated46, encapsulated64, encapsulated66, log, plain4,
        plain6,
    },
};

#[xdp]
pub(crate) fn steer(context: XdpContext) -> u32 {
    decide(context)
}

#[inline(always)]
fn decide(context: XdpContext) -> u32 {
    let start = context.ctx;
    match kind(&XdpFrame(&context)) {
        Err(reason) => {
            log(&context, reason);
            // With a stack of its own: what `steer` took would be missing below.
            count_apart(reason.index());
            xdp_action::XDP_PASS
        }
        Ok((link, Kind::Plain4)) => plain4(start, link.payload),
        Ok((link, Kind::Plain6)) => plain6(start, link.payload),
        Ok((link, Kind::Encapsulated44)) => encapsulated44(start, link.payload),
        Ok((link, Kind::Encapsulated46)) => encapsulated46(start, link.payload),
        Ok((link, Kind::Encapsulated64)) => encapsulated64(start, link.payload),
        Ok((link, Kind::Encapsulated66)) => encapsulated66(start, link.payload),
        Ok((link, Kind::Arp)) => answer_arp(start, link.payload),
        Ok((link, Kind::Solicitation)) => answer_ndp(start, link.payload),
    }
}

#[inline(never)]
fn count_apart(reason: u32) {
    count_at(reason);
}

/// `steer`, for another flow each time: what a benchmark's one frame would never ask the caches for.
#[cfg(feature = "undo")]
#[xdp]
pub(crate) fn steer_many(context: XdpContext) -> u32 {
    vary(context, decide)
}

/// What it costs to change the flow, and `pass`.
#[cfg(feature = "undo")]
#[xdp]
pub(crate) fn pass_many(context: XdpContext) -> u32 {
    vary(context, |_| xdp_action::XDP_PASS)
}

/// Runs a program on an IPv4 packet without tags and options, from a source port by chance, and puts
/// the port back.
#[cfg(feature = "undo")]
#[inline(always)]
fn vary(context: XdpContext, program: impl FnOnce(XdpContext) -> u32) -> u32 {
    const PORTS: usize = ETHERNET + IPV4;
    let start = context.ctx;
    let Some([ports]) = XdpFrame(&context).words(PORTS) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: takes nothing and gives a number.
    let source = unsafe { bpf_get_prandom_u32() } & u32::from_be(0xffff_0000);
    // Both ports, as `steer` reads them: a processor cannot hand a store on to a longer load, and waits.
    let others = ports & u32::from_be(0x0000_ffff) | source;
    let _ = XdpFrame(&context).write_words(PORTS, [others]);
    let action = program(context);
    let _ = XdpFrame(&XdpContext::new(start)).write_words(PORTS, [ports]);
    action
}

/// Lets every frame pass: the floor of benchmarks, and what the far end of a veth needs.
#[xdp]
pub(crate) fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
