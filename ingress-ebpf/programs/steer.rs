//! XDP: decides about each frame and rewrites it. Every error ends in XDP_PASS.
//!
//! What the verifier asks of this file:
//!
//! - Each access to the packet needs a comparison of the very pointer that is used with `data_end`,
//!   and bounds of offset and length that the verifier can find by itself. So all reads and writes
//!   are arrays of a size known at compile time, at offsets with few possible values.
//! - `bpf_xdp_adjust_head` makes every pointer into the packet invalid. So [`XdpFrame`] keeps none:
//!   it takes `data` and `data_end` from the context each time.
//! - All functions of a call chain share 512 bytes of stack. So each kind of frame has one function,
//!   into which all that decides about it is inlined, the pure core in the library too.

use aya_ebpf::{
    bindings::{bpf_sock_tuple, xdp_action, xdp_md},
    helpers::generated::{
        bpf_redirect, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
        bpf_xdp_adjust_head,
    },
    programs::XdpContext,
};
use ingress_ebpf::{
    abi::{
        Addresses, Bucket, FirstHop, Interface, Mac, Node, Unit, VipKey4, VipKey6, VipValue,
        node_flags,
    },
    encap::{OVERHEAD4, OVERHEAD6, Outer},
    family::{V4, V6},
    flow::Flow,
    frame::Frame,
    headers::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4, IPV6, Link, TAG},
    reason::Reason,
    tables::Tables,
    verdict::{Decision, Verdict, encapsulated, plain},
};

use crate::maps::{
    INTERFACES, PEER_MACS, bucket, count, first_hop, listening, may_send_on, node, node_counters,
    uncounted, unit, vip_counters, vip4, vip6,
};

/// Puts each frame back as it was after the rewrite: the kernel runs a benchmark's one frame a
/// million times. Decided when the object is compiled, so that the shipped one holds none of it: a
/// switch that is frozen at the load only hides the branches and leaves the copies.
pub(crate) const UNDO: bool = cfg!(feature = "undo");

/// Makes a function of a kind of frames. Its arguments are numbers and pointers: types of the core,
/// enums above all, have no description that the kernel takes (BTF of a discriminant inside a field).
macro_rules! functions {
    ($($name:ident: $decide:expr;)+) => {$(
        #[inline(never)]
        pub(crate) fn $name(start: *mut xdp_md, payload: usize) -> u32 {
            let context = XdpContext::new(start);
            let link = Link { ethertype: 0, payload };
            let tables = KernelTables(&context);
            match $decide(&XdpFrame(&context), &tables, &link) {
                Ok(decision) => act(&context, &decision),
                Err(reason) => pass_by(&context, reason),
            }
        }
    )+};
}

functions! {
    plain4: plain::<V4, _>;
    plain6: plain::<V6, _>;
    encapsulated44: encapsulated::<V4, V4, _>;
    encapsulated46: encapsulated::<V4, V6, _>;
    encapsulated64: encapsulated::<V6, V4, _>;
    encapsulated66: encapsulated::<V6, V6, _>;
}

/// Lets a frame pass that is none of our business.
#[inline(always)]
fn pass_by(context: &XdpContext, reason: Reason) -> u32 {
    count(reason);
    log(context, reason);
    xdp_action::XDP_PASS
}

/// Does what was decided, and counts it.
#[inline(always)]
fn act(context: &XdpContext, decision: &Decision<'_>) -> u32 {
    let frame = XdpFrame(context);
    let (reason, action) = match &decision.verdict {
        Verdict::Pass => (decision.reason, xdp_action::XDP_PASS),
        Verdict::Drop => {
            count_received(decision);
            (decision.reason, xdp_action::XDP_DROP)
        }
        Verdict::ForwardL2 { node } => {
            count_sent(decision.node, decision.reason);
            forward_l2(&frame, node, decision.reason)
        }
        Verdict::Encapsulate { cut, outer } => {
            let (reason, action) = encapsulate(context, *cut, outer, decision.reason);
            if !matches!(reason, Reason::NoRoom) {
                count_sent(decision.node, reason);
            }
            (reason, action)
        }
        Verdict::Decapsulate {
            network,
            cut,
            ethertype,
        } => {
            count_received(decision);
            decapsulate(context, *network, *cut, *ethertype)
        }
    };
    count(reason);
    log(context, reason);
    action
}

/// Writes a line for the frame, where the object is built for it.
#[inline(always)]
pub(crate) fn log(context: &XdpContext, reason: Reason) {
    #[cfg(feature = "packet-log")]
    write_line(context.ctx, reason);
    #[cfg(not(feature = "packet-log"))]
    let _ = (context, reason);
}

/// One function for all that decide, with a stack of its own: inlined into each, the line is more than
/// the verifier walks through.
#[cfg(feature = "packet-log")]
#[inline(never)]
fn write_line(start: *mut xdp_md, reason: Reason) {
    let context = XdpContext::new(start);
    aya_log_ebpf::debug!(
        &context,
        "{} {} ({} bytes)",
        reason.action(),
        reason.label(),
        XdpFrame(&context).length()
    );
}

/// Counts what went to another node.
#[inline(always)]
fn count_sent(id: u16, reason: Reason) {
    if let Some(node) = node_counters(id) {
        let counter = if matches!(reason, Reason::SecondChance) {
            &mut node.second_chances
        } else {
            &mut node.forwarded
        };
        *counter = counter.wrapping_add(1);
    }
}

/// Counts what another node has sent encapsulated, if one has.
#[inline(always)]
fn count_received(decision: &Decision<'_>) {
    if let Some(node) = node_counters(decision.node) {
        node.decapsulated = node.decapsulated.wrapping_add(1);
        node.skewed = node.skewed.wrapping_add(u64::from(decision.is_skewed));
    }
}

/// Sends a frame where a node is: out of the interface that it came in by, or of another.
#[inline(always)]
fn transmit(frame: &XdpFrame<'_>, node: &Node) -> u32 {
    if node.interface == frame.interface() {
        return xdp_action::XDP_TX;
    }
    // SAFETY: takes two numbers. It answers XDP_REDIRECT, or XDP_ABORTED for flags it does not know.
    unsafe { bpf_redirect(node.interface, 0) as u32 }
}

#[inline(always)]
fn forward_l2(frame: &XdpFrame<'_>, node: &Node, reason: Reason) -> (Reason, u32) {
    let before = undo(|| frame.words::<3>(0));
    if frame.write_words(0, node.macs).is_none() {
        return (Reason::Malformed, xdp_action::XDP_PASS);
    }
    if let Some(macs) = before {
        let _ = frame.write_words(0, macs);
    }
    (reason, transmit(frame, node))
}

/// Runs what only a benchmark needs.
#[inline(always)]
fn undo<T>(saved: impl FnOnce() -> Option<T>) -> Option<T> {
    if UNDO { saved() } else { None }
}

/// Sends a packet to a node in new outer headers. One function for all kinds of frames, so that its
/// stack is taken once; it takes numbers and pointers for what the core has as a type.
#[inline(always)]
fn encapsulate(
    context: &XdpContext,
    cut: usize,
    outer: &Outer<'_>,
    reason: Reason,
) -> (Reason, u32) {
    let lengths = (cut as u64) << 16 | u64::from(outer.inner_length);
    let sizes = lengths << 32 | u64::from(outer.flow_hash);
    match wrap(context.ctx, outer.own, outer.node, sizes, outer.steer) {
        xdp_action::XDP_PASS => (Reason::NoRoom, xdp_action::XDP_PASS),
        action => (reason, action),
    }
}

/// Replaces the first `cut` bytes (the link-layer header and perhaps outer headers) by a new
/// link-layer header and outer headers; XDP_PASS, and nothing changed, where there is no room.
///
/// `sizes` is, from its upper end: `cut` (16 bits), bytes of the inner packet (16), hash (32).
///
/// The new link-layer header is that of the way to the node: what tags the frame came with says
/// nothing about the VLAN that it leaves by.
#[inline(never)]
fn wrap(start: *mut xdp_md, own: &Addresses, node: &Node, sizes: u64, steer: u64) -> u32 {
    let context = XdpContext::new(start);
    let frame = XdpFrame(&context);
    let cut = (sizes >> 48) as usize;
    let outer = Outer {
        own,
        node,
        inner_length: (sizes >> 32) as u16,
        flow_hash: sizes as u32,
        steer,
    };
    // As much as the longest link-layer header has, in whole words.
    let before = undo(|| frame.words::<6>(0));
    let is_v4 = node.flags & node_flags::V4 != 0;
    let is_tagged = node.vlan != 0;
    let link = if is_tagged { ETHERNET + TAG } else { ETHERNET };
    let added = link + if is_v4 { OVERHEAD4 } else { OVERHEAD6 };
    if !frame.move_start(cut as i32 - added as i32) {
        return xdp_action::XDP_PASS;
    }
    // From here on the frame has other bytes in front: a failed write cannot happen (there is room
    // for them), and would leave no frame worth passing. The verifier forgot what it knew of the
    // length with the old pointers.
    let written = match (is_v4, is_tagged) {
        (true, false) => frame.write_front::<ETHERNET, _>(node, outer.headers4()),
        (true, true) => frame.write_front::<{ ETHERNET + TAG }, _>(node, outer.headers4()),
        (false, false) => frame.write_front::<ETHERNET, _>(node, outer.headers6()),
        (false, true) => frame.write_front::<{ ETHERNET + TAG }, _>(node, outer.headers6()),
    };
    if written.is_none() {
        return xdp_action::XDP_DROP;
    }
    if let Some(words) = before
        && frame.move_start(added as i32 - cut as i32)
    {
        let _ = frame.write_words(0, words);
    }
    transmit(&frame, node)
}

#[inline(always)]
fn decapsulate(context: &XdpContext, network: usize, cut: usize, ethertype: u16) -> (Reason, u32) {
    match unwrap(context.ctx, network, cut, ethertype) {
        true => (Reason::Decapsulated, xdp_action::XDP_PASS),
        false => (Reason::Malformed, xdp_action::XDP_DROP),
    }
}

/// Cuts the outer headers out: the MAC addresses and tags move to what was inside. False where the
/// frame is shorter than was found, which cannot be.
#[inline(never)]
fn unwrap(start: *mut xdp_md, network: usize, cut: usize, ethertype: u16) -> bool {
    let context = XdpContext::new(start);
    let frame = XdpFrame(&context);
    // What the new link-layer header overwrites.
    let covered = undo(|| frame.words::<6>(cut));
    // One after the other: the compiler knows that a frame without the first has no second and leaves
    // a comparison out, which the verifier then misses.
    let Some(macs) = frame.words::<3>(0) else {
        return false;
    };
    let Some([tag, second]) = frame.words(12) else {
        return false;
    };
    if !frame.move_start(cut as i32) {
        return false;
    }
    let ethertype = ethertype.to_be_bytes();
    let written = frame.write_words(0, macs).and_then(|()| match network {
        ETHERNET => frame.write(12, ethertype),
        18 => frame
            .write_words(12, [tag])
            .and_then(|()| frame.write(16, ethertype)),
        _ => frame
            .write_words(12, [tag, second])
            .and_then(|()| frame.write(20, ethertype)),
    });
    if let Some(words) = covered
        && frame.move_start(-(cut as i32))
    {
        let _ = frame.write_words(cut, words);
    }
    written.is_some()
}

/// The frame of an XDP program. Pointers are made anew for each access: moving the start moves them.
pub(crate) struct XdpFrame<'a>(pub(crate) &'a XdpContext);

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

    /// The same for words.
    #[inline(always)]
    pub(crate) fn write_words<const N: usize>(&self, offset: usize, words: [u32; N]) -> Option<()> {
        let start = self.0.data() + offset;
        if start + 4 * N > self.0.data_end() {
            return None;
        }
        // SAFETY: the check above keeps all words inside the frame, as in `write`.
        unsafe { put(start, words) };
        Some(())
    }

    /// Writes the `LINK` bytes of a link-layer header to a node, with a tag if that is what they have
    /// room for, and outer headers behind it; all with one check of the length.
    #[inline(always)]
    fn write_front<const LINK: usize, const N: usize>(
        &self,
        node: &Node,
        headers: [u32; N],
    ) -> Option<()> {
        let start = self.0.data();
        if start + LINK + 4 * N > self.0.data_end() {
            return None;
        }
        let ethertype = if N * 4 == OVERHEAD4 {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        // SAFETY: the check above keeps all of it inside the frame, as in `write`: the EtherType is
        // the last two bytes of the link-layer header, and a tag the four before it.
        unsafe {
            put(start, node.macs);
            if LINK == ETHERNET + TAG {
                put(start + 12, [u32::from_ne_bytes(tag(node.vlan))]);
            }
            ((start + LINK - 2) as *mut u16).write_unaligned(ethertype.to_be());
            put(start + LINK, headers);
        }
        Some(())
    }

    /// Moves the start of the frame: makes room in front (`by` is negative) or cuts; false where the
    /// driver has no room left, or for a frame that is shorter.
    #[inline(always)]
    fn move_start(&self, by: i32) -> bool {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_adjust_head(self.0.ctx, by) == 0 }
    }

    /// Index of the interface that the frame came in by.
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }
}

/// Writes words, one by one: as a copy of the array it would be one byte by byte.
///
/// # Safety
///
/// All of them are inside the frame.
#[inline(always)]
unsafe fn put<const N: usize>(at: usize, words: [u32; N]) {
    let first = at as *mut u32;
    let mut index = 0;
    while index < N {
        // SAFETY: by the caller's word; the kernel's JITs take unaligned stores.
        unsafe { first.add(index).write_unaligned(words[index]) };
        index += 1;
    }
}

/// A VLAN tag without priority; the id is in network byte order.
#[inline(always)]
const fn tag(vlan: u16) -> [u8; TAG] {
    let [a, b] = ETHERTYPE_VLAN.to_be_bytes();
    let [c, d] = vlan.to_ne_bytes();
    [a, b, c, d]
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
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.0.data() + offset;
        if start + 4 * N > self.0.data_end() {
            return None;
        }
        // SAFETY: as in `read`; the kernel's JITs take unaligned loads.
        Some(unsafe { (start as *const [u32; N]).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // A number to compare lengths with; it proves nothing to the verifier.
        self.0.data_end() - self.0.data()
    }
}

/// [`Tables`] over the maps of the kernel, for the frame of a context.
pub(crate) struct KernelTables<'a>(pub(crate) &'a XdpContext);

/// `BPF_F_CURRENT_NETNS`: the network namespace of the interface.
const CURRENT_NAMESPACE: u64 = u64::MAX;
/// `TCP_LISTEN` of the kernel's socket states.
const LISTEN: u32 = 10;

/// Looks for a socket that has the connection of a tuple of addresses and ports.
///
/// Where there is no such socket the kernel asks `assign`, and the listener it names tells
/// whether an ACK ends a handshake that a SYN cookie stands for: its TCP header is at `cookie`, which is
/// zero where there can be none.
///
/// One function for each family, called by all that decide: the copies of headers take a stack of
/// their own.
#[inline(never)]
fn has_connection4(start: *mut xdp_md, tuple: *mut bpf_sock_tuple, cookie: usize) -> bool {
    has_connection::<12, IPV4>(start, tuple, cookie)
}

/// The same for IPv6.
#[inline(never)]
fn has_connection6(start: *mut xdp_md, tuple: *mut bpf_sock_tuple, cookie: usize) -> bool {
    has_connection::<36, IPV6>(start, tuple, cookie)
}

#[inline(always)]
fn has_connection<const SIZE: usize, const HEADER: usize>(
    start: *mut xdp_md,
    tuple: *mut bpf_sock_tuple,
    cookie: usize,
) -> bool {
    // SAFETY: the tuple is as long as said, and the context that of the program. The kernel counts a
    // reference to what it finds, which is released on the only way on.
    unsafe {
        let size = SIZE as u32;
        let socket =
            uncounted(|| bpf_skc_lookup_tcp(start.cast(), tuple, size, CURRENT_NAMESPACE, 0));
        if socket.is_null() {
            return false;
        }
        let is_here = (*socket).state != LISTEN
            || cookie != 0 && is_cookie::<HEADER>(start, socket.cast(), cookie);
        bpf_sk_release(socket.cast());
        is_here
    }
}

/// Whether the TCP header at `at` bears a cookie that this listener gave out.
#[inline(always)]
unsafe fn is_cookie<const HEADER: usize>(
    start: *mut xdp_md,
    listener: *mut core::ffi::c_void,
    at: usize,
) -> bool {
    let context = XdpContext::new(start);
    let frame = XdpFrame(&context);
    let (Some(mut ip), Some(mut tcp)) = (frame.read::<HEADER>(at - HEADER), frame.read::<20>(at))
    else {
        return false;
    };
    // SAFETY: the caller holds the listener; both headers are copies as long as said.
    unsafe {
        bpf_tcp_check_syncookie(
            listener,
            ip.as_mut_ptr().cast(),
            HEADER as u32,
            tcp.as_mut_ptr().cast(),
            20,
        ) == 0
    }
}

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn may_send_on(&self) -> bool {
        may_send_on()
    }

    #[inline(always)]
    fn came(&self, vip: u32, bytes: usize, is_opening: bool) {
        if let Some(counters) = vip_counters(vip) {
            counters.packets = counters.packets.wrapping_add(1);
            counters.bytes = counters.bytes.wrapping_add(bytes as u64);
            if is_opening {
                counters.syns = counters.syns.wrapping_add(1);
            }
        }
    }

    #[inline(always)]
    fn dropped(&self, vip: u32) {
        if let Some(counters) = vip_counters(vip) {
            counters.drops = counters.drops.wrapping_add(1);
        }
    }

    #[inline(always)]
    fn unit(&self) -> Option<(u16, &Unit)> {
        unit()
    }

    #[inline(always)]
    fn is_own_mac(&self, mac: Mac) -> bool {
        let Some(interfaces) = INTERFACES.get(0) else {
            return false;
        };
        // Whichever of them the frame came in by: on a bond the program runs on the ports, and the frame
        // names one of these. Written out: a loop would be unrolled or not, as the compiler pleases.
        let [a, b, c, d] = &interfaces.0;
        let is = |one: &Interface| {
            one.index != 0 && one.mac.first == mac.first && one.mac.last == mac.last
        };
        is(a) || is(b) || is(c) || is(d)
    }

    #[inline(always)]
    fn mac_here(&self) -> Option<Mac> {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        let here = unsafe { (*self.0.ctx).ingress_ifindex };
        let [a, b, c, d] = &INTERFACES.get(0)?.0;
        let is = |one: &Interface| one.index == here;
        if is(a) {
            return Some(a.mac);
        } else if is(b) {
            return Some(b.mac);
        } else if is(c) {
            return Some(c.mac);
        } else if is(d) {
            return Some(d.mac);
        }
        // The port of a bond is none of them: it has the address of the bond, which must be the only one that
        // is known. Without a branch for each, which the verifier would walk through by every combination.
        let [e, f, g, h] = [a, b, c, d].map(|one| u64::from(one.index));
        let are_several = (e * (f + g + h)) | (f * (g + h)) | (g * h) != 0;
        if are_several || e + f + g + h == 0 {
            return None;
        }
        // What is no interface is all zero.
        Some(Mac {
            first: a.mac.first | b.mac.first | c.mac.first | d.mac.first,
            last: a.mac.last | b.mac.last | c.mac.last | d.mac.last,
            reserved: 0,
        })
    }

    #[inline(always)]
    fn vip4(&self, key: &VipKey4) -> Option<&VipValue> {
        vip4(key)
    }

    #[inline(always)]
    fn vip6(&self, key: &VipKey6) -> Option<&VipValue> {
        vip6(key)
    }

    #[inline(always)]
    fn first_hop(&self, unit: u16, pool: u8, index: u32) -> Option<FirstHop> {
        first_hop(unit, pool, index)
    }

    #[inline(always)]
    fn bucket(&self, unit: u16, pool: u8, index: u32) -> Option<&Bucket> {
        bucket(unit, pool, index)
    }

    #[inline(always)]
    fn node(&self, unit: u16, id: u16) -> Option<&Node> {
        node(unit, id)
    }

    #[inline(always)]
    fn is_peer_mac(&self, mac: Mac) -> bool {
        let bit = mac.bit();
        PEER_MACS
            .get(bit / 32)
            .is_some_and(|word| word >> (bit % 32) & 1 != 0)
    }

    #[inline(always)]
    fn is_listening(&self, set: u8, worker: u32) -> bool {
        listening(set, worker)
    }

    #[inline(always)]
    fn has4(&self, flow: &Flow<u32>, cookie: Option<usize>) -> bool {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        let ends = &raw mut tuple.__bindgen_anon_1.ipv4;
        // SAFETY: the field of a union of integers.
        unsafe {
            (*ends).saddr = flow.source;
            (*ends).daddr = flow.destination;
            (*ends).sport = flow.ports as u16;
            (*ends).dport = flow.service_port();
        }
        has_connection4(self.0.ctx, &raw mut tuple, cookie.unwrap_or(0))
    }

    #[inline(always)]
    fn has6(&self, flow: &Flow<[u32; 4]>, cookie: Option<usize>) -> bool {
        // SAFETY: as in `has4`.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        let ends = &raw mut tuple.__bindgen_anon_1.ipv6;
        // SAFETY: as in `has4`.
        unsafe {
            (*ends).saddr = flow.source;
            (*ends).daddr = flow.destination;
            (*ends).sport = flow.ports as u16;
            (*ends).dport = flow.service_port();
        }
        has_connection6(self.0.ctx, &raw mut tuple, cookie.unwrap_or(0))
    }
}

const _: () = assert!(
    ETHERNET == 14 && TAG == 4,
    "the offsets above start from them"
);
