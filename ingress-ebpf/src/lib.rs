//! What the kernel programs and userspace share: the pure core of the L4 data plane.
//!
//! PACKET: [`frame`] reads bytes → [`headers`] parses them → [`hash`] picks a bucket → [`verdict`]
//! decides → [`encap`] writes what leaves. [`abi`] is the memory both sides see; [`maglev`]
//! (userspace only) fills the table. The kernel object and the host's tests run the very same code.
#![cfg_attr(not(any(test, feature = "userspace")), no_std)]

#[expect(
    unsafe_code,
    reason = "keys and values cross the kernel boundary as bytes"
)]
pub mod abi;
pub mod encap;
pub mod frame;
pub mod hash;
pub mod headers;
pub mod verdict;

#[cfg(feature = "userspace")]
pub mod maglev;

#[cfg(feature = "fixtures")]
pub mod fixtures;
