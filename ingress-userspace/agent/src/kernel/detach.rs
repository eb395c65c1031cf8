//! Takes back what installs left in the kernel: links, routes, maps.
//!
//! What is pinned outlives the process, and without a process that serves by it, it only drops
//! packets: whoever listens on ordinary sockets instead must take it away.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{
    attach,
    error::KernelError,
    kernel_part::{ASSIGN_LINK, STEER_LINK},
    netlink::Netlink,
    pins::{self, Pins, WriterGuard},
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
    pub vips: Vec<Ipv4Addr>,
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
/// [`KernelError`]; what has gone already stays so, and the next call goes on from there.
pub async fn detach(pin_dir: &Path) -> Result<Removed, KernelError> {
    let schemas = Pins::all(pin_dir)?;
    let _writers = lock(&schemas).await?;
    remove(&schemas, Extent::All).await
}

/// Takes back what no other process serves by; `None` while one does.
///
/// Must run as [`detach`] does.
///
/// # Errors
///
/// As [`detach`].
pub async fn withdraw(pin_dir: &Path, extent: Extent) -> Result<Option<Removed>, KernelError> {
    let schemas = Pins::all(pin_dir)?;
    if schemas.is_empty() {
        return Ok(Some(Removed::default()));
    }
    let _writers = lock(&schemas).await?;
    match pins::mark_unused(pin_dir)? {
        Some(_unused) => remove(&schemas, extent).await.map(Some),
        None => Ok(None),
    }
}

async fn lock(schemas: &[Pins]) -> Result<Vec<WriterGuard>, KernelError> {
    let mut writers = Vec::new();
    for pins in schemas {
        writers.push(pins.lock().await?);
    }
    Ok(writers)
}

async fn remove(schemas: &[Pins], extent: Extent) -> Result<Removed, KernelError> {
    let mut removed = Removed::default();
    // Programs first: they are what does harm.
    let mut maps = Vec::new();
    for pins in schemas {
        for name in pins.names()? {
            let Some(program) = program(&name) else {
                maps.push(pins.path(&name));
                continue;
            };
            attach::detach(&pins.path(&name)).map_err(|error| failed(pins.path(&name), error))?;
            removed.programs.push(program);
        }
    }
    removed.programs.sort_unstable();
    if extent == Extent::Programs {
        return Ok(removed);
    }
    // Where nothing was ever pinned, as on most machines, nobody asks for their routes.
    if !schemas.is_empty() {
        let netlink = Netlink::open()?;
        for vip in netlink.own_local().await? {
            netlink.remove_local(vip).await?;
            removed.vips.push(vip);
        }
    }
    // The directories stay: somebody may be waiting for the lock on one.
    for path in maps {
        fs::remove_file(&path).map_err(|error| failed(path, error))?;
        removed.maps += 1;
    }
    Ok(removed)
}

/// What a pin of this name attaches, if it is a link's.
fn program(pin: &str) -> Option<String> {
    if pin == ASSIGN_LINK {
        return Some("assign from the network namespace".to_owned());
    }
    let interface = pin.strip_prefix(STEER_LINK)?;
    Some(format!("steer from {interface}"))
}

fn failed(path: PathBuf, source: io::Error) -> KernelError {
    KernelError::Remove { path, source }
}
