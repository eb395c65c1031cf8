//! Attaches the programs by links that outlive the process, and updates those that are already
//! there.
//!
//! A pinned link is what makes a hand-over seamless: the program in it is replaced by one call, so
//! that each packet meets the old one or the new one, and nothing is detached in between.

use std::{
    fs,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use aya::programs::{
    ProgramError, SkLookup, Xdp,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::{
    error::{KernelError, os_error},
    mode::XdpMode,
    netlink::Interface,
    sys::{self, LinkTarget},
};

/// Puts `steer` on an interface: into the pinned link where it still leads there, else into a new
/// one.
///
/// # Errors
///
/// [`KernelError::OtherXdp`], [`KernelError::Mode`], [`KernelError::Privilege`],
/// [`KernelError::Attach`].
pub(super) fn xdp(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
    pin: &Path,
) -> Result<(), KernelError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        KernelError::attach(format!("steer to {}", interface.name), error)
    };
    if let Some(link) = open(pin).map_err(|error| failed(error.into()))? {
        let target = sys::link_target(link.as_fd()).map_err(|error| failed(error.into()))?;
        if target == LinkTarget(u64::from(interface.index)) && interface.xdp == Some(mode) {
            return update_xdp(program, pin).map_err(failed);
        }
        // The interface is another one by now, or the mode changed: a link cannot follow either.
        detach(pin).map_err(|error| failed(error.into()))?;
    }
    let aya_mode = match mode {
        XdpMode::Native => aya::programs::XdpMode::Driver,
        XdpMode::Generic => aya::programs::XdpMode::Skb,
    };
    let id = program
        .attach_to_if_index(interface.index, aya_mode)
        .map_err(|error| refused(error, interface, mode))?;
    let link = program
        .take_link(id)
        .map_err(|error| failed(error.into()))?;
    // Without `bpf_link` support aya attaches by netlink: such a link ends with the process.
    let link = FdLink::try_from(link).map_err(|error| failed(error.into()))?;
    link.pin(pin)
        .map(drop)
        .map_err(|error| failed(error.into()))
}

fn update_xdp(
    program: &mut Xdp,
    pin: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    // The pin keeps the link; this handle of it may close.
    drop(program.take_link(id)?);
    Ok(())
}

/// Names the reason why the kernel refused to attach.
fn refused(error: ProgramError, interface: &Interface, mode: XdpMode) -> KernelError {
    match os_error(&error) {
        Some(libc::EBUSY | libc::EEXIST) => KernelError::OtherXdp(interface.name.clone()),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) => KernelError::Mode {
            interface: interface.name.clone(),
            mode: mode.name(),
            source: error.into(),
        },
        _ => KernelError::attach(format!("steer to {}", interface.name), error),
    }
}

/// Puts `assign` on this thread's network namespace.
///
/// # Errors
///
/// [`KernelError::Privilege`], [`KernelError::Attach`].
pub(super) fn sk_lookup(program: &mut SkLookup, pin: &Path) -> Result<(), KernelError> {
    attach_sk_lookup(program, pin)
        .map_err(|error| KernelError::attach("assign to the network namespace", error))
}

fn attach_sk_lookup(
    program: &mut SkLookup,
    pin: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The thread's, not the process': `setns` moves one thread alone, as tests do.
    let namespace = File::open("/proc/thread-self/ns/net")?;
    if let Some(link) = open(pin)? {
        if sys::link_target(link.as_fd())? == LinkTarget(namespace.metadata()?.ino()) {
            return Ok(sys::update_link(link.as_fd(), program.fd()?.as_fd())?);
        }
        detach(pin)?;
    }
    let id = program.attach(namespace)?;
    FdLink::from(program.take_link(id)?).pin(pin)?;
    Ok(())
}

/// Detaches a pinned link, if there is one, and removes the pin.
///
/// # Errors
///
/// What the kernel says to `BPF_OBJ_GET` or `unlink`.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    match open(pin) {
        Ok(None) => return Ok(()),
        // Explicitly: closing the last handle detaches too, but at a time of the kernel's choosing,
        // and the interface would be busy for whoever comes next.
        // A link whose interface or namespace is gone has nothing to detach from.
        Ok(Some(link)) => drop(sys::detach_link(link.as_fd())),
        // Without CAP_BPF. The folder's owner may remove the pin all the same, and it was the last
        // handle.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    fs::remove_file(pin)
}

fn open(pin: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::open_pin(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
