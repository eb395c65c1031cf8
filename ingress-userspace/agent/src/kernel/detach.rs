//! Takes back what installs left in the kernel: links, routes, maps.
//!
//! What is pinned outlives the process, and without a process that serves by it, it only drops
//! packets: whoever listens on ordinary sockets instead must take it away.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    error::KernelError,
    links, neighbour,
    netlink::Netlink,
    pins::{Pins, Use},
};

/// How much to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What meets packets. The virtual IPs stay local, so that ordinary sockets can serve them.
    Programs,
    /// Everything.
    All,
}

/// What was taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Programs, and what they were attached to.
    pub programs: Vec<String>,
    /// Virtual IPs that were local.
    pub vips: Vec<IpAddr>,
    /// Number of pinned maps.
    pub maps: usize,
}

impl Removed {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes everything back, whoever serves by it.
///
/// Must run inside a tokio runtime with I/O and time enabled, in the network namespace of the node.
///
/// # Errors
///
/// [`KernelError`], for the first that could not be removed; all else has gone, and the next call goes on
/// from there.
pub async fn detach(pin_dir: &Path) -> Result<Removed, KernelError> {
    // An ordinary user who may not look would be told that there is nothing.
    if let Err(source) = fs::read_dir(pin_dir)
        && source.kind() != io::ErrorKind::NotFound
    {
        let path = pin_dir.to_owned();
        return Err(KernelError::PinDirectory { path, source });
    }
    let Some(pins) = Pins::existing(pin_dir)? else {
        // A bpffs that was mounted anew forgets the pins; the routes stay.
        return Ok(Removed {
            vips: remove_routes().await?,
            ..Removed::default()
        });
    };
    let _writer = pins.lock().await?;
    remove(&pins, Extent::All).await
}

/// Takes back what no other process serves by; `None` while one does, or changes the pins.
///
/// Must run as [`detach`] does.
///
/// # Errors
///
/// As [`detach`].
pub async fn withdraw(pin_dir: &Path, extent: Extent) -> Result<Option<Removed>, KernelError> {
    let Some(pins) = Pins::existing(pin_dir)? else {
        return Ok(Some(Removed::default()));
    };
    // Without waiting: it is asked again and again, and whoever changes the pins may hang.
    let Some(_writer) = pins.try_lock()? else {
        return Ok(None);
    };
    let Some(_unused) = pins.mark_unused(Use::Steering)? else {
        return Ok(None);
    };
    // Asked again and again: without pins, nobody asks the kernel for all its routes.
    if pins.links()?.is_empty() && pins.all_maps()?.is_empty() {
        return Ok(Some(Removed::default()));
    }
    if extent == Extent::All && pins.mark_unused(Use::Connections)?.is_none() {
        // A process that accepts no more still finishes its requests.
        let removed = remove(&pins, Extent::Programs).await?;
        if !removed.is_empty() {
            let programs = removed.programs;
            tracing::info!(
                ?programs,
                "removed what steered; the virtual IPs stay for open requests"
            );
        }
        return Ok(None);
    }
    remove(&pins, extent).await.map(Some)
}

async fn remove(pins: &Pins, extent: Extent) -> Result<Removed, KernelError> {
    let mut removed = Removed::default();
    // What cannot be removed must not keep the rest where it is.
    let mut first_failure = None;
    // Programs first: they are what does harm.
    for link in links::all(pins)? {
        let (pin, description) = (link.pin.clone(), link.description());
        match link.detach() {
            Ok(()) => removed.programs.push(description),
            Err(error) => first_failure = first_failure.or(Some(failed(pin, error))),
        }
    }
    removed.programs.sort_unstable();
    if extent == Extent::All {
        removed.vips = remove_routes().await?;
        // The directories stay: somebody may be waiting for the lock on one.
        for path in pins.all_maps()? {
            match fs::remove_file(&path) {
                Ok(()) => removed.maps += 1,
                Err(error) => first_failure = first_failure.or(Some(failed(path, error))),
            }
        }
    }
    match first_failure {
        None => Ok(removed),
        Some(error) => {
            if !removed.is_empty() {
                let Removed {
                    programs,
                    vips,
                    maps,
                } = &removed;
                tracing::info!(?programs, ?vips, maps, "removed all but what could not be");
            }
            Err(error)
        }
    }
}

/// Takes the virtual IPs back that were made local, and what the kernel was asked to keep fresh.
async fn remove_routes() -> Result<Vec<IpAddr>, KernelError> {
    let netlink = Netlink::open()?;
    neighbour::forget_others(&netlink, &[]).await?;
    let vips = netlink.own_local().await?;
    for vip in &vips {
        netlink.remove_local(*vip).await?;
    }
    Ok(vips)
}

fn failed(path: PathBuf, source: io::Error) -> KernelError {
    KernelError::Remove { path, source }
}
