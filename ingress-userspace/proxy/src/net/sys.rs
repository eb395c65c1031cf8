//! Registers descriptors with the runtime: what its types ask us to promise.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `fd` for `interest`. Must be called in a runtime; `fd` must not block.
pub(super) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives and always gives the same descriptor; the
    // `AsyncFd` takes it over.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
