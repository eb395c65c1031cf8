//! XDP: decides about each frame and rewrites it. Every error ends in XDP_PASS.
//!
//! What the verifier asks of this file:
//!
//! - Each access to the packet needs a comparison of the very pointer that is used with `data_end`,
//!   and bounds of offset and length that the verifier can find by itself. So all reads and writes
//!   are arrays of a size known at compile time, at offsets with few possible values.
//! - `bpf_xdp_adjust_head` makes every pointer into the packet invalid. So [`XdpFrame`] keeps none:
//!   it takes `data` and `data_end` from the context each time.
//! - A function of its own may have five arguments, and all frames of a call chain share 512 bytes
//!   of stack. So everything is inlined into its program, the pure core in the library too.

use aya_ebpf::{
    Global, bindings::xdp_action, helpers::generated::bpf_xdp_adjust_head, macros::xdp,
    programs::XdpContext,
};
use ingress_ebpf::{
    encap::{OVERHEAD, Outer},
    frame::Frame,
    headers::ETHERNET,
    verdict::{Reason, Verdict, steer as decide},
};

use crate::maps::{KernelTables, count};

/// Puts each frame back as it was after the rewrite. Zero but in benchmarks, where the kernel runs
/// one frame a million times; frozen before the load, so that the verifier removes the code.
#[unsafe(no_mangle)]
static UNDO: Global<u32> = Global::new(0);

/// Bytes of two MAC addresses.
const MACS: usize = 12;

#[xdp]
pub(crate) fn steer(context: XdpContext) -> u32 {
    let frame = XdpFrame(&context);
    let verdict = decide(&frame, &KernelTables);
    let (reason, action) = match verdict {
        Verdict::Pass(reason) => (reason, xdp_action::XDP_PASS),
        Verdict::Drop(reason) => (reason, xdp_action::XDP_DROP),
        Verdict::ForwardL2 {
            destination,
            source,
        } => forward_l2(&frame, destination, source),
        // The link-layer header moves with the packet. Its length is one of three, and each gets a
        // copy of the code in which it is a constant: the verifier cannot follow a move of a length
        // that it does not know.
        Verdict::ForwardUdp { network: 14, outer } => encapsulate::<14>(&frame, &outer),
        Verdict::ForwardUdp { network: 18, outer } => encapsulate::<18>(&frame, &outer),
        Verdict::ForwardUdp { outer, .. } => encapsulate::<22>(&frame, &outer),
        Verdict::Decapsulate { network: 14 } => decapsulate::<14>(&frame),
        Verdict::Decapsulate { network: 18 } => decapsulate::<18>(&frame),
        Verdict::Decapsulate { .. } => decapsulate::<22>(&frame),
    };
    count(reason);
    #[cfg(feature = "packet-log")]
    aya_log_ebpf::debug!(
        &context,
        "{} {} ({} bytes)",
        reason.action(),
        reason.label(),
        frame.length()
    );
    action
}

/// Lets every frame pass: the floor of benchmarks, and what the far end of a veth needs.
#[xdp]
pub(crate) fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn forward_l2(frame: &XdpFrame<'_>, destination: [u8; 6], source: [u8; 6]) -> (Reason, u32) {
    let before = frame.read::<MACS>(0);
    if frame.write(0, destination).is_none() || frame.write(6, source).is_none() {
        return (Reason::Malformed, xdp_action::XDP_PASS);
    }
    if UNDO.load() != 0 {
        let _ = before.and_then(|macs| frame.write(0, macs));
    }
    (Reason::ForwardedL2, xdp_action::XDP_TX)
}

/// Moves the link-layer header of `LINK` bytes to the front and writes the outer headers after it.
#[inline(always)]
fn encapsulate<const LINK: usize>(frame: &XdpFrame<'_>, outer: &Outer) -> (Reason, u32) {
    let no_room = (Reason::NoRoom, xdp_action::XDP_PASS);
    let Some(link) = frame.read::<LINK>(0) else {
        return no_room;
    };
    if !frame.grow() {
        return no_room;
    }
    // From here on the frame has grown: a failed write cannot happen (it is longer than it was),
    // and would leave no frame worth passing. The verifier forgot what it knew of the length with
    // the old pointers, so each write proves its bounds anew.
    let written = frame
        .write(0, link)
        .and_then(|()| frame.write(0, outer.destination_mac))
        .and_then(|()| frame.write(6, outer.source_mac))
        .and_then(|()| frame.write(LINK, outer.headers()));
    if written.is_none() {
        return (Reason::NoRoom, xdp_action::XDP_DROP);
    }
    if UNDO.load() != 0 && frame.shrink() {
        let _ = frame.write(0, link);
    }
    (Reason::ForwardedUdp, xdp_action::XDP_TX)
}

/// Moves the link-layer header of `LINK` bytes to the inner packet and cuts what lies before.
#[inline(always)]
fn decapsulate<const LINK: usize>(frame: &XdpFrame<'_>) -> (Reason, u32) {
    let malformed = (Reason::Malformed, xdp_action::XDP_PASS);
    let Some(link) = frame.read::<LINK>(0) else {
        return malformed;
    };
    // Only for the benchmark; gone from the loaded program where UNDO is 0.
    let covered = frame.read::<LINK>(OVERHEAD);
    // Written before the cut: a write that failed after it would leave a frame without a link-layer
    // header.
    if frame.write(OVERHEAD, link).is_none() || !frame.shrink() {
        return malformed;
    }
    if UNDO.load() != 0 && frame.grow() {
        let _ = covered.and_then(|bytes| frame.write(OVERHEAD, bytes));
    }
    (Reason::Decapsulated, xdp_action::XDP_PASS)
}

/// The frame of an XDP program. Pointers are made anew for each access: moving the head moves them.
struct XdpFrame<'a>(&'a XdpContext);

impl XdpFrame<'_> {
    /// Writes `bytes` at `offset`; `None`, and nothing written, past the end of the frame.
    #[inline(always)]
    fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let start = self.0.data() + offset;
        // In this form and not as a subtraction: the verifier learns a pointer's range only from a
        // comparison of the pointer itself with `data_end`.
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the check above keeps all `N` bytes inside the frame, which this program alone
        // holds; an array of bytes needs no alignment.
        unsafe { (start as *mut [u8; N]).write_unaligned(bytes) };
        Some(())
    }

    /// Makes room for the outer headers in front; false where the driver has none left.
    #[inline(always)]
    fn grow(&self) -> bool {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_adjust_head(self.0.ctx, -(OVERHEAD as i32)) == 0 }
    }

    /// Cuts the room of the outer headers off the front; false for a frame that is shorter.
    #[inline(always)]
    fn shrink(&self) -> bool {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_adjust_head(self.0.ctx, OVERHEAD as i32) == 0 }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the check above keeps all `N` bytes inside the frame; an array of bytes needs no
        // alignment.
        Some(unsafe { (start as *const [u8; N]).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // A number to compare lengths with; it proves nothing to the verifier.
        self.0.data_end() - self.0.data()
    }
}

const _: () = assert!(ETHERNET == 14, "the link-layer lengths above start from it");
