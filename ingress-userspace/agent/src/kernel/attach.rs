//! Attaches the programs by links that outlive the process, and updates those that are already
//! there.
//!
//! A pinned link is what makes a hand-over seamless: the program in it is replaced by one call, so
//! that each packet meets the old one or the new one, and nothing is detached in between.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use aya::programs::{ProgramError, SkLookup, Xdp, links::FdLink};

use super::{
    error::{KernelError, os_error},
    links::{self, PinnedLink},
    mode::XdpMode,
    netlink::Interface,
    pins::Pins,
    sys::Hook,
};

/// The link that steers on an interface, in the mode that is asked for.
pub(super) fn on<'a>(
    links: &'a mut [PinnedLink],
    interface: &Interface,
    mode: XdpMode,
) -> Option<&'a mut PinnedLink> {
    links
        .iter_mut()
        .find(|link| link.hook == Hook::Interface(interface.index) && interface.xdp == Some(mode))
}

/// Puts a program on an interface where no link of ours does so in this mode.
///
/// # Errors
///
/// [`KernelError::OtherXdp`], [`KernelError::Mode`], [`KernelError::Privilege`],
/// [`KernelError::Attach`].
pub(super) fn xdp(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
    pins: &Pins,
) -> Result<(), KernelError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        KernelError::attach(format!("steer to {}", interface.name), error)
    };
    // A link cannot change its mode.
    for link in links::all(pins)? {
        if link.hook == Hook::Interface(interface.index) {
            link.detach().map_err(|error| failed(error.into()))?;
        }
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
    pin(link, pins, Hook::Interface(interface.index)).map_err(failed)
}

/// Pins a new link. One that is pinned there already is that of an interface or a namespace which is
/// gone: indices come again.
fn pin(
    link: FdLink,
    pins: &Pins,
    hook: Hook,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let place = links::place(pins, hook);
    match fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    link.pin(place)?;
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

/// Puts `steer` into the link of an interface.
///
/// # Errors
///
/// [`KernelError::Privilege`], [`KernelError::Attach`].
pub(super) fn steer(
    program: &mut Xdp,
    interface: &Interface,
    link: &mut PinnedLink,
    pins: &Pins,
) -> Result<(), KernelError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        KernelError::attach(format!("steer to {}", interface.name), error)
    };
    let program = program.fd().map_err(|error| failed(error.into()))?;
    link.update(pins, program.as_fd())
        .map_err(|error| failed(error.into()))
}

/// Puts `assign` on this thread's network namespace: into the link that is there, else into a new
/// one.
///
/// # Errors
///
/// [`KernelError::Privilege`], [`KernelError::Attach`].
pub(super) fn assign(
    program: &mut SkLookup,
    links: &mut [PinnedLink],
    pins: &Pins,
) -> Result<(), KernelError> {
    attach_sk_lookup(program, links, pins)
        .map_err(|error| KernelError::attach("assign to the network namespace", error))
}

fn attach_sk_lookup(
    program: &mut SkLookup,
    links: &mut [PinnedLink],
    pins: &Pins,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The thread's, not the process': `setns` moves one thread alone, as tests do.
    let namespace = File::open("/proc/thread-self/ns/net")?;
    let hook = Hook::Namespace(namespace.metadata()?.ino());
    match links.iter_mut().find(|link| link.hook == hook) {
        Some(link) => Ok(link.update(pins, program.fd()?.as_fd())?),
        None => {
            let id = program.attach(namespace)?;
            pin(FdLink::from(program.take_link(id)?), pins, hook)
        }
    }
}
