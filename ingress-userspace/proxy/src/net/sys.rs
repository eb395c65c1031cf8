//! What the types of the runtime and of the system calls ask us to promise about descriptors.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `fd` for `interest`. Must be called in a runtime; `fd` must not block.
pub(super) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives and always gives the same descriptor; the
    // `AsyncFd` takes it over.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Bytes in the send queue of `socket` that the other side has not acknowledged (`tcp(7)`).
#[cfg(not(fuzzing))]
pub(super) fn unacknowledged(socket: impl std::os::fd::AsFd) -> io::Result<u32> {
    use rustix::ioctl::{Getter, Opcode, ioctl};

    const SIOCOUTQ: Opcode = 0x5411;
    // SAFETY: the kernel writes an int for this opcode.
    let count = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) }?;
    Ok(u32::try_from(count).unwrap_or(0))
}
