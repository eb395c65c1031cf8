//! sk_lookup: gives a connection to a VIP's port to one of the workers' sockets.
//!
//! The sockets listen on a loopback port that means nothing; only this program leads to them. A VIP
//! never falls through to another socket of the host.
//!
//! The kernel asks it only where no established socket takes a packet, as a rule for the first of a
//! connection: so it may cost more than `steer`. It needs no bounds checks, since it reads a
//! context and no packet.

use aya_ebpf::{
    bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup, sk_action},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use ingress_ebpf::{
    abi::VipKey,
    hash::{self, Flow},
    headers::TCP,
    verdict::{Reason, Tables},
};

use crate::maps::{KernelTables, META, SETS, SOCKS, count};

/// `AF_INET`.
const IPV4_FAMILY: u32 = 2;

#[sk_lookup]
pub(crate) fn assign(context: SkLookupContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the whole run of the program.
    let lookup = unsafe { &*context.lookup };
    if lookup.family != IPV4_FAMILY {
        return sk_action::SK_PASS;
    }
    if lookup.protocol != u32::from(TCP) {
        return unless_vip(lookup);
    }
    // The context keeps the local port in host byte order, the keys in network byte order; the
    // remote port is in network byte order in both (linux/bpf.h, `struct bpf_sk_lookup`).
    let port = (lookup.local_port as u16).to_be();
    let Some(vip) = KernelTables.vip(&VipKey::tcp4(lookup.local_ip4, port)) else {
        return unless_vip(lookup);
    };
    let reason = match choose(&context, lookup, port, vip.set) {
        Some(()) => Reason::Assigned,
        None => Reason::NoListener,
    };
    count(reason);
    if matches!(reason, Reason::Assigned) {
        sk_action::SK_PASS
    } else {
        sk_action::SK_DROP
    }
}

/// Leaves a lookup that no worker serves to the kernel, but for a VIP's: there a socket of the host
/// that is bound to every address would answer, TCP or UDP, though nobody asked for that.
#[inline(always)]
fn unless_vip(lookup: &bpf_sk_lookup) -> u32 {
    match KernelTables.vip(&VipKey::address4(lookup.local_ip4)) {
        Some(_) => {
            count(Reason::ClosedPort);
            sk_action::SK_DROP
        }
        None => sk_action::SK_PASS,
    }
}

/// Assigns a socket of the set by the hash of the flow; `None` where the slot is empty.
#[inline(always)]
fn choose(context: &SkLookupContext, lookup: &bpf_sk_lookup, port: u16, set: u8) -> Option<()> {
    let sockets = SETS.get(u32::from(set))?;
    let seed = META.get(0)?.seed;
    let flow = Flow {
        source: lookup.remote_ip4,
        destination: lookup.local_ip4,
        source_port: lookup.remote_port,
        destination_port: port,
    };
    // `SETS` is read as one eight-byte value: `base` and `count` are of the same generation of
    // workers, also while a new one takes over.
    let slot = hash::slot(flow, seed, *sockets)?;
    // Without the flag the kernel would choose again inside a reuseport group.
    SOCKS
        .redirect_sk_lookup(context, slot, u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT))
        .ok()
}
