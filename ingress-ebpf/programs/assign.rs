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
    abi::{ANY_SERVICE, Keys, VipKey4, VipKey6, VipValue, service},
    family::{Family as _, V4, V6},
    flow::{self, Flow},
    hash::{self, Digest},
    headers::TCP,
    reason::Reason,
};

use crate::maps::{SETS, SOCKS, count, unit, vip4, vip6};

/// `AF_INET` and `AF_INET6`.
const IPV4_FAMILY: u32 = 2;
const IPV6_FAMILY: u32 = 10;

#[sk_lookup]
pub(crate) fn assign(context: SkLookupContext) -> u32 {
    // SAFETY: the kernel passes a valid context for the whole run of the program.
    match unsafe { (*context.lookup).family } {
        IPV4_FAMILY => assign4(context.lookup),
        IPV6_FAMILY => assign6(context.lookup),
        _ => sk_action::SK_PASS,
    }
}

/// Not inlined, like its twin: the compiler would have one load for the fields of both, by a pointer
/// into the context, and the verifier wants the context itself with a constant offset.
#[inline(never)]
fn assign4(start: *mut bpf_sk_lookup) -> u32 {
    // SAFETY: as in `assign`.
    let lookup = unsafe { &*start };
    let address = lookup.local_ip4;
    let vip = |service| vip4(&VipKey4 { address, service });
    if vip(ANY_SERVICE).is_none() {
        return sk_action::SK_PASS;
    }
    answer(serve(start, vip(wanted(lookup)), |keys| {
        let flow = Flow {
            source: lookup.remote_ip4,
            destination: address,
            ports: flow::ports(lookup.remote_port, local_port(lookup)),
        };
        V4::digest(&flow, keys)
    }))
}

#[inline(never)]
fn assign6(start: *mut bpf_sk_lookup) -> u32 {
    // SAFETY: as in `assign`.
    let lookup = unsafe { &*start };
    let address = words(&lookup.local_ip6);
    let vip = |service| vip6(&VipKey6 { address, service });
    if vip(ANY_SERVICE).is_none() {
        return sk_action::SK_PASS;
    }
    answer(serve(start, vip(wanted(lookup)), |keys| {
        let flow = Flow {
            source: words(&lookup.remote_ip6),
            destination: address,
            ports: flow::ports(lookup.remote_port, local_port(lookup)),
        };
        V6::digest(&flow, keys)
    }))
}

/// Reads an address word by word: the kernel lets a program have no more of a context at once, and the
/// compiler would read two together.
#[inline(always)]
fn words(address: &[u32; 4]) -> [u32; 4] {
    let [a, b, c, d] = address;
    // SAFETY: references, so valid and aligned.
    [a, b, c, d].map(|word| unsafe { core::ptr::from_ref(word).read_volatile() })
}

#[inline(always)]
fn answer(reason: Reason) -> u32 {
    count(reason);
    if matches!(reason, Reason::Assigned) {
        sk_action::SK_PASS
    } else {
        sk_action::SK_DROP
    }
}

/// What a VIP would have to serve.
#[inline(always)]
fn wanted(lookup: &bpf_sk_lookup) -> u32 {
    if lookup.protocol != u32::from(TCP) {
        // No key has it: VIPs serve TCP.
        return service(0, u8::MAX);
    }
    service(local_port(lookup), TCP)
}

/// The context keeps the local port in host byte order, the keys in network byte order; the remote
/// port is in network byte order in both (linux/bpf.h, `struct bpf_sk_lookup`).
#[inline(always)]
fn local_port(lookup: &bpf_sk_lookup) -> u16 {
    (lookup.local_port as u16).to_be()
}

/// Gives what came for a VIP to a worker. A socket of the host that is bound to every address would
/// answer for it otherwise, TCP or UDP, though nobody asked for that.
#[inline(always)]
fn serve(
    start: *mut bpf_sk_lookup,
    vip: Option<&VipValue>,
    digest: impl FnOnce(&Keys) -> Digest,
) -> Reason {
    let Some(vip) = vip else {
        return Reason::ClosedPort;
    };
    match choose(start, vip, digest) {
        Some(()) => Reason::Assigned,
        None => Reason::NoListener,
    }
}

/// Assigns a socket of the set by the hash of the flow; `None` where no worker is left.
#[inline(always)]
fn choose(
    start: *mut bpf_sk_lookup,
    vip: &VipValue,
    digest: impl FnOnce(&Keys) -> Digest,
) -> Option<()> {
    // `SETS` is read as one eight-byte value: `base` and `count` are of the same generation of
    // workers, also while a new one takes over.
    let sockets = *SETS.get(u32::from(vip.set))?;
    let (_, unit) = unit()?;
    let worker = digest(&unit.keys).worker(&unit.keys);
    let context = SkLookupContext::new(start);
    let mut probe = 0;
    while probe < hash::PROBES {
        let slot = hash::slot(worker, sockets, probe)?;
        // Without the flag the kernel would choose again inside a reuseport group. A slot is empty
        // where a worker has died: its share goes to the next.
        let assigned =
            SOCKS.redirect_sk_lookup(&context, slot, u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT));
        if assigned.is_ok() {
            return Some(());
        }
        probe += 1;
    }
    None
}
