//! What the kernel programs and userspace share: the pure core of the L4 data plane.
//!
//! PACKET: [`frame`] reads bytes → [`headers`] parses them → [`find`] names the flow → [`hash`] picks a
//! bucket → [`verdict`] decides → [`encap`] writes what leaves; [`announce`] answers who asks where a VIP
//! is. [`family`] is what IPv4 and IPv6 differ
//! in, [`abi`] the memory both sides see; [`owners`] says who
//! owns connections around a change, [`maglev`] and [`vip_slots`] fill the table and the index of VIPs (all userspace
//! only). The kernel
//! object and the host's tests run the very same code.
#![cfg_attr(not(any(test, feature = "userspace")), no_std)]

#[expect(
    unsafe_code,
    reason = "keys and values cross the kernel boundary as bytes"
)]
pub mod abi;
pub mod announce;
pub mod encap;
pub mod family;
pub mod find;
pub mod flow;
pub mod frame;
pub mod hash;
pub mod headers;
pub mod reason;
pub mod tables;
pub mod verdict;

#[cfg(feature = "userspace")]
pub mod maglev;
#[cfg(feature = "userspace")]
pub mod owners;
#[cfg(feature = "userspace")]
pub mod vip_slots;

#[cfg(feature = "fixtures")]
pub mod fixtures;
