//! The kernel object: XDP `steer` and `pass`, sk_lookup `assign`, and their maps.
//!
//! # How it is built
//!
//! With bpf-linker in `PATH`, a compiler with rust-src, and from the workspace's top level:
//!
//! ```text
//! RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/ebpf-build \
//! RUSTFLAGS="-C debuginfo=2 -C link-arg=--btf -C target-cpu=v3 \
//! -C link-arg=--cpu-features=+allows-misaligned-mem-access" \
//! /usr/bin/cargo build --package ingress-ebpf --bin forebay-ebpf --features programs \
//!     --profile ebpf --target bpfel-unknown-none -Z build-std=core
//! cp target/ebpf-build/bpfel-unknown-none/ebpf/forebay-ebpf target/ebpf/forebay.bpf.o
//! ```
//!
//! With rustup, `cargo +nightly build` takes the place of `RUSTC`, `RUSTC_BOOTSTRAP` and
//! `/usr/bin/cargo`. The target directory is one of its own: the host's flags differ. `--features
//! packet-log` in place of `programs`, and no `--cpu-features`: a line for each packet in Forebay's
//! log (`cargo xtask build-ebpf --packet-log`; `FOREBAY_LOG=info,forebay::packet=debug`).
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "packets, maps and kernel functions are reached by pointers"
    )
)]

#[cfg(target_arch = "bpf")]
mod announce;
#[cfg(target_arch = "bpf")]
mod assign;
#[cfg(target_arch = "bpf")]
mod entry;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod steer;

/// `bpf_sk_assign` and others are for programs whose licence is compatible with the kernel's.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier would refuse the loop.
    loop {}
}

/// Keeps `--all-features` on a host from failing; there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
