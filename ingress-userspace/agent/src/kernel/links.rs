//! The pinned links: each keeps a program attached while no process holds it.
//!
//! They lie apart from the maps, and are found by what they are attached to. A link outlives the
//! layout of the maps that its program reads: a version with other maps puts its program into the
//! same link, so that each packet meets one program or the other. And an interface can be renamed,
//! which its link does not notice.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::{
    error::KernelError,
    pins::{ASSIGN_ONCE, Pins, STEER_ONCE},
    sys::{self, Hook},
};

/// Pin of the sk_lookup link.
const ASSIGN: &str = "assign";

/// Pins of the XDP links: this and the interface's index.
const STEER: &str = "steer_";

/// A link and where it is pinned.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) pin: PathBuf,
    pub(super) hook: Hook,
    /// None without CAP_BPF: then the pin's name alone tells what it is.
    link: Option<OwnedFd>,
}

/// Every link that is pinned.
///
/// # Errors
///
/// [`KernelError::PinDirectory`], [`KernelError::Attach`].
pub(super) fn all(pins: &Pins) -> Result<Vec<PinnedLink>, KernelError> {
    let mut links = Vec::new();
    for pin in pins.links()? {
        let failed = |error: io::Error| KernelError::attach(format!("{}", pin.display()), error);
        match sys::open_pin(&pin) {
            Ok(link) => links.push(PinnedLink {
                hook: sys::link_hook(link.as_fd()).map_err(failed)?,
                link: Some(link),
                pin,
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                links.push(PinnedLink {
                    hook: hook_by_name(&pin),
                    link: None,
                    pin,
                });
            }
            // Removed since its directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(links)
}

impl PinnedLink {
    /// Puts another program in: each packet meets the old one or the new one. The pin gets the place
    /// that its hook gives it.
    ///
    /// # Errors
    ///
    /// What the kernel says to `BPF_LINK_UPDATE` or `rename`.
    pub(super) fn update(&mut self, pins: &Pins, program: BorrowedFd<'_>) -> io::Result<()> {
        let link = self.link.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        sys::update_link(link.as_fd(), program)?;
        self.settle(pins)
    }

    /// Moves the pin to where its hook places it; whoever is cut short leaves it in one place or the
    /// other, and [`all`] looks in both.
    ///
    /// # Errors
    ///
    /// What the kernel says to `rename`.
    pub(super) fn settle(&mut self, pins: &Pins) -> io::Result<()> {
        let place = place(pins, self.hook);
        if place != self.pin {
            // A link that is pinned there is attached to nothing: an interface has one program of
            // XDP, a namespace one link of ours.
            fs::rename(&self.pin, &place)?;
            self.pin = place;
        }
        Ok(())
    }

    /// Detaches the program now and removes the pin.
    ///
    /// # Errors
    ///
    /// What the kernel says to `unlink`.
    pub(super) fn detach(self) -> io::Result<()> {
        // Explicitly: closing the last handle detaches too, but at a time of the kernel's choosing,
        // and the interface would be busy for whoever comes next. A link whose interface or namespace
        // is gone has nothing to detach from. Without CAP_BPF the folder's owner may remove the pin
        // all the same, and it was the last handle.
        if let Some(link) = &self.link {
            drop(sys::detach_link(link.as_fd()));
        }
        fs::remove_file(&self.pin)
    }

    /// What it attaches, for people.
    pub(super) fn description(&self) -> String {
        match self.hook {
            Hook::Namespace(_) => "assign from the network namespace".to_owned(),
            Hook::Interface(index) => format!("steer from {}", interface_name(index)),
            Hook::Gone | Hook::Foreign => format!("{}, attached to nothing", self.pin.display()),
        }
    }
}

/// Where the link of this hook is pinned.
pub(super) fn place(pins: &Pins, hook: Hook) -> PathBuf {
    let name = match hook {
        Hook::Interface(index) => format!("{STEER}{index}"),
        Hook::Namespace(_) | Hook::Gone | Hook::Foreign => ASSIGN.to_owned(),
    };
    pins.link(&name)
}

/// What the name of a pin says of its hook.
fn hook_by_name(pin: &Path) -> Hook {
    let name = pin.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    if [ASSIGN, ASSIGN_ONCE].contains(&name) {
        return Hook::Namespace(0);
    }
    let index = name
        .strip_prefix(STEER)
        .and_then(|index| index.parse().ok());
    let index = index.or_else(|| interface_index(name.strip_prefix(STEER_ONCE)?));
    index.map_or(Hook::Gone, Hook::Interface)
}

fn interface_name(index: u32) -> String {
    let name = any_socket().and_then(|socket| netdevice::index_to_name(socket, index));
    name.unwrap_or_else(|_| format!("interface {index}"))
}

fn interface_index(name: &str) -> Option<u32> {
    any_socket()
        .and_then(|socket| netdevice::name_to_index(socket, name))
        .ok()
}

/// What the kernel wants to be asked through for an interface of this thread's namespace.
fn any_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
}
