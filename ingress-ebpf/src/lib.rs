//! What the kernel programs and userspace share.
#![cfg_attr(not(test), no_std)]
