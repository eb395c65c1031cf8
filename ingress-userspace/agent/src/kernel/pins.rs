//! The pins: one directory for each schema, one writer at a time, and no map of another layout.
//!
//! A pin keeps a map or a link alive while no process holds it: that is what lets packets flow
//! between one process and the next. It also means that nothing goes away by itself: what an
//! install no longer wants, it must remove.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{MapInfo, MapType};
use ingress_ebpf::abi::{
    MacKey, Meta, Node, SCHEMA, SelfNode, SocketSet, VipKey, VipValue, entries,
};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use super::{attach, error::KernelError};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// How long another process may hold the lock: an install takes well under a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel must say of a pinned map before it is used again.
///
/// aya opens an existing pin without a look at its layout, and a larger value would be written past
/// the end of what Rust allots.
pub(super) struct Layout {
    /// Name of the map and of its pin.
    pub(super) name: &'static str,
    map_type: MapType,
    key: usize,
    value: usize,
    entries: usize,
}

/// Every map of the object.
#[rustfmt::skip]
pub(super) const LAYOUTS: [Layout; 10] = [
    Layout { name: "META", map_type: MapType::Array, key: 4, value: size_of::<Meta>(), entries: 1 },
    Layout { name: "SELF", map_type: MapType::Array, key: 4, value: size_of::<SelfNode>(), entries: 1 },
    Layout { name: "VIPS", map_type: MapType::Hash, key: size_of::<VipKey>(), value: size_of::<VipValue>(), entries: entries::VIPS },
    Layout { name: "TABLES", map_type: MapType::ArrayOfMaps, key: 4, value: 4, entries: entries::TABLES },
    Layout { name: "NODES", map_type: MapType::Array, key: 4, value: size_of::<Node>(), entries: entries::NODES },
    Layout { name: "PEERS", map_type: MapType::Hash, key: 16, value: 4, entries: entries::PEERS },
    Layout { name: "PEER_MACS", map_type: MapType::Hash, key: size_of::<MacKey>(), value: 4, entries: entries::PEER_MACS },
    Layout { name: "SOCKS", map_type: MapType::SockMap, key: 4, value: 4, entries: entries::SOCKS },
    Layout { name: "SETS", map_type: MapType::Array, key: 4, value: size_of::<SocketSet>(), entries: entries::SETS },
    Layout { name: "COUNTERS", map_type: MapType::PerCpuArray, key: 4, value: 8, entries: entries::COUNTERS },
];

/// The directory of the pins of this schema.
#[derive(Clone, Debug)]
pub(super) struct Pins(PathBuf);

impl Pins {
    /// Makes the directory where it is missing.
    ///
    /// # Errors
    ///
    /// [`KernelError::NotBpffs`], [`KernelError::PinDirectory`].
    pub(super) fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        let existing = pin_dir
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let directory = pin_dir.join(format!("v{SCHEMA}"));
        let failed = |source: io::Error| KernelError::PinDirectory {
            path: directory.clone(),
            source,
        };
        let filesystem = rustix::fs::statfs(existing).map_err(|error| failed(error.into()))?;
        if filesystem.f_type as i64 != BPF_FS_MAGIC {
            return Err(KernelError::NotBpffs(pin_dir.to_path_buf()));
        }
        fs::create_dir_all(&directory).map_err(failed)?;
        Ok(Self(directory))
    }

    /// The directories of every schema that are there.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn all(pin_dir: &Path) -> Result<Vec<Self>, KernelError> {
        let is_schema = |name: &str| {
            let number = name.strip_prefix('v');
            number.is_some_and(|number| number.parse::<u16>().is_ok())
        };
        let names = names(pin_dir)?.into_iter();
        let schemas = names.filter(|name| is_schema(name));
        Ok(schemas.map(|name| Self(pin_dir.join(name))).collect())
    }

    /// The names of the pins that are there.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn names(&self) -> Result<Vec<String>, KernelError> {
        names(&self.0)
    }

    /// Where an object of this name is pinned. bpffs allows no dot in a name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.replace('.', "_"))
    }

    /// Detaches a pinned link and removes its pin. One that is not there is fine.
    fn remove_link(&self, name: &str) {
        if let Err(error) = attach::detach(&self.path(name)) {
            tracing::warn!(pin = name, %error, "cannot detach a program");
        }
    }

    /// Detaches the pinned links whose names start with `prefix`, but for those in `wanted`.
    pub(super) fn remove_other_links(&self, prefix: &str, wanted: &[String]) {
        let wanted: Vec<_> = wanted.iter().map(|name| self.path(name)).collect();
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !wanted.contains(&entry.path())) {
            if let Some(name) = entry
                .file_name()
                .to_str()
                .filter(|name| name.starts_with(prefix))
            {
                self.remove_link(name);
            }
        }
    }

    /// Waits until no other process changes the pins; they are this one's until the guard is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`KernelError::Busy`] after ten seconds, [`KernelError::PinDirectory`].
    pub(super) async fn lock(&self) -> Result<WriterGuard, KernelError> {
        let failed = |source: io::Error| KernelError::PinDirectory {
            path: self.0.clone(),
            source,
        };
        // Not a lock file: bpffs has no ordinary files. The kernel drops the lock with the process,
        // however that ends.
        let directory: OwnedFd = File::open(&self.0).map_err(failed)?.into();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(WriterGuard {
                        _directory: directory,
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(KernelError::Busy(self.0.clone()));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Compares each pin that is there with what the programs need.
    ///
    /// # Errors
    ///
    /// [`KernelError::Layout`] for the first that differs, [`KernelError::Map`] for one that cannot
    /// be asked.
    pub(super) fn verify(&self) -> Result<(), KernelError> {
        for layout in &LAYOUTS {
            let path = self.path(layout.name);
            if path.exists() {
                layout.verify(path)?;
            }
        }
        Ok(())
    }
}

/// Keeps others from marking the pins of `pin_dir` as in use, while it lives; `None` where one did.
/// For whoever holds the lock of the writers.
///
/// # Errors
///
/// [`KernelError::PinDirectory`].
pub(super) fn mark_unused(pin_dir: &Path) -> Result<Option<Mark>, KernelError> {
    mark(pin_dir, FlockOperation::NonBlockingLockExclusive)
}

/// Says that this process serves by the pins of `pin_dir`, while it lives. For whoever holds the lock
/// of the writers.
///
/// # Errors
///
/// [`KernelError::PinDirectory`], [`KernelError::Busy`].
pub(super) fn mark_in_use(pin_dir: &Path) -> Result<Mark, KernelError> {
    let marked = mark(pin_dir, FlockOperation::NonBlockingLockShared)?;
    marked.ok_or_else(|| KernelError::Busy(pin_dir.to_owned()))
}

fn mark(pin_dir: &Path, operation: FlockOperation) -> Result<Option<Mark>, KernelError> {
    let failed = |source: io::Error| KernelError::PinDirectory {
        path: pin_dir.to_owned(),
        source,
    };
    let directory: OwnedFd = File::open(pin_dir).map_err(failed)?.into();
    match flock(&directory, operation) {
        Ok(()) => Ok(Some(Mark {
            _directory: directory,
        })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// The names in a directory; none where it is not there.
fn names(directory: &Path) -> Result<Vec<String>, KernelError> {
    let failed = |source: io::Error| KernelError::PinDirectory {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_out_of_sight(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Not there, or where an ordinary user, who pins nothing, may not look.
fn is_out_of_sight(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

/// What a process says of the pins, while it lives.
#[derive(Debug)]
#[must_use = "others may say something else when this is dropped"]
pub(super) struct Mark {
    _directory: OwnedFd,
}

/// The only writer of the pins, while it lives.
#[must_use = "the pins are free for others when this is dropped"]
pub(super) struct WriterGuard {
    _directory: OwnedFd,
}

impl Layout {
    fn verify(&self, path: PathBuf) -> Result<(), KernelError> {
        let failed = |error: aya::maps::MapError| KernelError::map(self.name, error);
        let info = MapInfo::from_pin(&path).map_err(failed)?;
        let found_type = info.map_type().map_err(failed)?;
        let properties = [
            ("type", found_type as u64, self.map_type as u64),
            ("key size", u64::from(info.key_size()), self.key as u64),
            (
                "value size",
                u64::from(info.value_size()),
                self.value as u64,
            ),
            (
                "max entries",
                u64::from(info.max_entries()),
                self.entries as u64,
            ),
        ];
        match properties
            .into_iter()
            .find(|(_, found, expected)| found != expected)
        {
            Some((field, found, expected)) => Err(KernelError::Layout {
                path,
                field,
                found,
                expected,
            }),
            None => Ok(()),
        }
    }
}
