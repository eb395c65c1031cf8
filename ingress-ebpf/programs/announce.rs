//! XDP: answers who asks where a VIP is, in place of the question.
//!
//! A function for each of ARP and IPv6, apart from those that steer: what they keep takes a stack of its own.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::bpf_xdp_adjust_tail,
    programs::XdpContext,
};
use ingress_ebpf::{
    announce::{Answer, arp, solicitation},
    frame::Frame as _,
    reason::Reason,
};

use crate::{
    maps::count,
    steer::{KernelTables, UNDO, XdpFrame, log},
};

/// Answers an ARP request, or does what is to be done with one that is not answered.
#[inline(never)]
pub(crate) fn answer_arp(start: *mut xdp_md, payload: usize) -> u32 {
    let context = XdpContext::new(start);
    match arp(&XdpFrame(&context), &KernelTables(&context), payload) {
        Ok(answer) => {
            // As long as the question.
            let written = write(&context, payload, &answer);
            send(&context, written, Reason::AnsweredArp)
        }
        Err(reason) => silent(&context, reason),
    }
}

/// The same for a neighbour solicitation.
#[inline(never)]
pub(crate) fn answer_ndp(start: *mut xdp_md, payload: usize) -> u32 {
    let context = XdpContext::new(start);
    match solicitation(&XdpFrame(&context), &KernelTables(&context), payload) {
        Ok(answer) => {
            let length = payload + 4 * answer.packet.len();
            let added = length as i32 - frame_length(start) as i32;
            // SAFETY: the context is the one this program was called with.
            if !UNDO && unsafe { bpf_xdp_adjust_tail(start, added) } != 0 {
                return silent(&context, Reason::NoRoom);
            }
            let written = write(&context, payload, &answer);
            send(&context, written, Reason::AnsweredNdp)
        }
        Err(reason) => silent(&context, reason),
    }
}

/// Bytes of the frame. A function of its own: the compiler would calculate with the ends of the frame in
/// another order, for which the verifier takes no pointers.
#[inline(never)]
fn frame_length(start: *mut xdp_md) -> u64 {
    XdpFrame(&XdpContext::new(start)).length() as u64
}

/// Writes an answer over its question; `None` where the frame is shorter than was found, which cannot be.
/// In a benchmark it stays as it is.
#[inline(always)]
fn write<const WORDS: usize>(
    context: &XdpContext,
    payload: usize,
    answer: &Answer<WORDS>,
) -> Option<()> {
    if UNDO {
        return Some(());
    }
    let frame = XdpFrame(context);
    frame.write_words(payload, answer.packet)?;
    frame.write_words(0, answer.macs)
}

/// Back where the question came from.
#[inline(always)]
fn send(context: &XdpContext, written: Option<()>, reason: Reason) -> u32 {
    if written.is_none() {
        // Half of an answer.
        return xdp_action::XDP_DROP;
    }
    count(reason);
    log(context, reason);
    xdp_action::XDP_TX
}

#[inline(always)]
fn silent(context: &XdpContext, reason: Reason) -> u32 {
    count(reason);
    log(context, reason);
    if matches!(reason, Reason::NotAnnouncer | Reason::BadSender) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}
