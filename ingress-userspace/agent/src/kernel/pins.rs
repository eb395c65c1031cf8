//! The pins: links in one directory, maps in one for each schema, one writer at a time, and no map of
//! another layout.
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
    Chances, Interfaces, Meta, NODES, Node, NodeCounters, SCHEMA, SocketSet, UNITS, Unit,
    VIP_SLOTS, VipCounters, VipKey4, VipKey6, VipSlot4, VipSlot6, VipValue, entries,
};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use super::error::KernelError;

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
pub(super) const LAYOUTS: [Layout; 17] = [
    Layout { name: "META", map_type: MapType::Array, key: 4, value: size_of::<Meta>(), entries: 1 },
    Layout { name: "UNITS", map_type: MapType::Array, key: 4, value: size_of::<Unit>(), entries: UNITS },
    Layout { name: "INTERFACES", map_type: MapType::Array, key: 4, value: size_of::<Interfaces>(), entries: 1 },
    Layout { name: "VIPS4", map_type: MapType::Hash, key: size_of::<VipKey4>(), value: size_of::<VipValue>(), entries: entries::VIPS },
    Layout { name: "VIPS6", map_type: MapType::Hash, key: size_of::<VipKey6>(), value: size_of::<VipValue>(), entries: entries::VIPS },
    Layout { name: "VIP_SLOTS4", map_type: MapType::Array, key: 4, value: size_of::<VipSlot4>(), entries: VIP_SLOTS },
    Layout { name: "VIP_SLOTS6", map_type: MapType::Array, key: 4, value: size_of::<VipSlot6>(), entries: VIP_SLOTS },
    Layout { name: "TABLES", map_type: MapType::ArrayOfMaps, key: 4, value: 4, entries: entries::TABLES },
    Layout { name: "FIRST_HOPS", map_type: MapType::ArrayOfMaps, key: 4, value: 4, entries: entries::TABLES },
    Layout { name: "NODES", map_type: MapType::Array, key: 4, value: size_of::<Node>(), entries: entries::NODES },
    Layout { name: "PEER_MACS", map_type: MapType::Array, key: 4, value: 4, entries: entries::PEER_MACS },
    Layout { name: "SOCKS", map_type: MapType::SockMap, key: 4, value: 4, entries: entries::SOCKS },
    Layout { name: "SETS", map_type: MapType::Array, key: 4, value: size_of::<SocketSet>(), entries: entries::SETS },
    Layout { name: "COUNTERS", map_type: MapType::PerCpuArray, key: 4, value: 8, entries: entries::COUNTERS },
    Layout { name: "VIP_COUNTERS", map_type: MapType::PerCpuArray, key: 4, value: size_of::<VipCounters>(), entries: entries::VIP_COUNTERS },
    Layout { name: "NODE_COUNTERS", map_type: MapType::PerCpuArray, key: 4, value: size_of::<NodeCounters>(), entries: NODES },
    Layout { name: "CHANCES", map_type: MapType::PerCpuArray, key: 4, value: size_of::<Chances>(), entries: 1 },
];

/// The directory of the pins: `links`, and one directory with maps for each schema.
#[derive(Clone, Debug)]
pub(super) struct Pins(PathBuf);

/// Directory of the links, whatever maps their programs read.
const LINKS: &str = "links";

/// Directory that only bears the marks of processes with connections.
const CONNECTIONS: &str = "connections";

/// Pin of the sk_lookup link beside the maps, where versions up to schema 2 had it.
pub(super) const ASSIGN_ONCE: &str = "assign_link";

/// Pins of the XDP links there: this and the interface's name.
pub(super) const STEER_ONCE: &str = "steer_link_";

impl Pins {
    /// Makes the directory of the links, which is the place of the lock, where it is missing.
    ///
    /// # Errors
    ///
    /// [`KernelError::NotBpffs`], [`KernelError::PinDirectory`].
    pub(super) fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        let existing = pin_dir
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let pins = Self(pin_dir.to_owned());
        let filesystem =
            rustix::fs::statfs(existing).map_err(|error| cannot_open(pin_dir)(error.into()))?;
        if filesystem.f_type as i64 != BPF_FS_MAGIC {
            return Err(KernelError::NotBpffs(pin_dir.to_path_buf()));
        }
        let links = pins.0.join(LINKS);
        fs::create_dir_all(&links).map_err(cannot_open(&links))?;
        Ok(pins)
    }

    /// Makes the directory of this schema's maps where it is missing. For whoever holds the lock of
    /// the writers: a process of another version that goes live removes it.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn make_place_of_maps(&self) -> Result<(), KernelError> {
        let maps = self.maps();
        fs::create_dir_all(&maps).map_err(cannot_open(&maps))
    }

    /// The pins that an earlier process may have left; `None` where there are none.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn existing(pin_dir: &Path) -> Result<Option<Self>, KernelError> {
        let pins = Self(pin_dir.to_owned());
        if names(pin_dir)?.is_empty() {
            return Ok(None);
        }
        // The place of the lock; missing where a version made the pins that knew no such directory.
        let links = pins.0.join(LINKS);
        fs::create_dir_all(&links).map_err(cannot_open(&links))?;
        Ok(Some(pins))
    }

    /// Directory of this schema's maps.
    fn maps(&self) -> PathBuf {
        self.0.join(format!("v{SCHEMA}"))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where a link of this name is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.0.join(LINKS).join(name)
    }

    /// The pins of all links.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn links(&self) -> Result<Vec<PathBuf>, KernelError> {
        let mut links = paths(&self.0.join(LINKS))?;
        // Where earlier versions had them.
        for schema in self.schemas()? {
            links.extend(paths(&schema)?.into_iter().filter(|pin| is_link(pin)));
        }
        Ok(links)
    }

    /// The pins of all maps, of every schema.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn all_maps(&self) -> Result<Vec<PathBuf>, KernelError> {
        let mut maps = Vec::new();
        for schema in self.schemas()? {
            maps.extend(paths(&schema)?.into_iter().filter(|pin| !is_link(pin)));
        }
        Ok(maps)
    }

    /// Removes the maps of other schemas, which no program of this one's reads. Whoever still has
    /// them open keeps them.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`], [`KernelError::Remove`].
    pub(super) fn remove_other_schemas(&self) -> Result<(), KernelError> {
        let others = self.schemas()?.into_iter();
        for schema in others.filter(|schema| *schema != self.maps()) {
            let failed = |path: &Path, source| KernelError::Remove {
                path: path.to_owned(),
                source,
            };
            for pin in paths(&schema)? {
                fs::remove_file(&pin).map_err(|error| failed(&pin, error))?;
            }
            fs::remove_dir(&schema).map_err(|error| failed(&schema, error))?;
            tracing::info!(maps = %schema.display(), "removed the maps of another version");
        }
        Ok(())
    }

    fn schemas(&self) -> Result<Vec<PathBuf>, KernelError> {
        let is_schema = |name: &String| {
            let number = name.strip_prefix('v');
            number.is_some_and(|number| number.parse::<u16>().is_ok())
        };
        let names = names(&self.0)?.into_iter();
        Ok(names
            .filter(is_schema)
            .map(|name| self.0.join(name))
            .collect())
    }

    /// Waits until no other process changes the pins; they are this one's until the guard is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`KernelError::Busy`] after ten seconds, [`KernelError::PinDirectory`].
    pub(super) async fn lock(&self) -> Result<WriterGuard, KernelError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_lock()? {
                Some(guard) => return Ok(guard),
                None if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                None => return Err(KernelError::Busy(self.0.clone())),
            }
        }
    }

    /// The same without waiting; `None` while another process changes the pins.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn try_lock(&self) -> Result<Option<WriterGuard>, KernelError> {
        // Not a lock file: bpffs has no ordinary files. The kernel drops the lock with the process,
        // however that ends. Not the directory above: a mark on that one says who serves.
        let links = self.0.join(LINKS);
        let directory: OwnedFd = File::open(&links).map_err(cannot_open(&links))?.into();
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(WriterGuard {
                _directory: directory,
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(cannot_open(&links)(error.into())),
        }
    }

    /// Compares each pinned map with what the programs need.
    ///
    /// # Errors
    ///
    /// [`KernelError::Layout`] for the first that differs, [`KernelError::Map`] for one that cannot
    /// be asked.
    pub(super) fn verify(&self) -> Result<(), KernelError> {
        for layout in &LAYOUTS {
            let path = self.map(layout.name);
            if path.exists() {
                layout.verify(path)?;
            }
        }
        Ok(())
    }

    /// Whether every map is there: then programs of this schema may be running on them.
    pub(super) fn has_all_maps(&self) -> bool {
        LAYOUTS.iter().all(|layout| self.map(layout.name).exists())
    }

    /// Says that this process serves by the pins, while the mark lives. For whoever holds the lock of
    /// the writers.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`], [`KernelError::Busy`].
    pub(super) fn mark_in_use(&self, use_: Use) -> Result<Mark, KernelError> {
        let marked = self.mark(use_, FlockOperation::NonBlockingLockShared)?;
        marked.ok_or_else(|| KernelError::Busy(self.0.clone()))
    }

    /// Keeps others from marking the pins as in use, while the mark lives; `None` where one did. For
    /// whoever holds the lock of the writers.
    ///
    /// # Errors
    ///
    /// [`KernelError::PinDirectory`].
    pub(super) fn mark_unused(&self, use_: Use) -> Result<Option<Mark>, KernelError> {
        self.mark(use_, FlockOperation::NonBlockingLockExclusive)
    }

    fn mark(&self, use_: Use, operation: FlockOperation) -> Result<Option<Mark>, KernelError> {
        let path = match use_ {
            Use::Steering => self.0.clone(),
            Use::Connections => self.0.join(CONNECTIONS),
        };
        fs::create_dir_all(&path).map_err(cannot_open(&path))?;
        let directory: OwnedFd = File::open(&path).map_err(cannot_open(&path))?.into();
        match flock(&directory, operation) {
            Ok(()) => Ok(Some(Mark { directory })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(cannot_open(&path)(error.into())),
        }
    }
}

impl Mark {
    /// Whether no other process says the same as this mark, which [`Pins::mark_in_use`] gave. For
    /// whoever holds the lock of the writers: the mark is not there for a moment.
    ///
    /// # Errors
    ///
    /// What the kernel says to `flock`.
    pub(super) fn is_only_one(&self) -> io::Result<bool> {
        let is_only_one = match flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(error) => return Err(error.into()),
        };
        flock(&self.directory, FlockOperation::NonBlockingLockShared)?;
        Ok(is_only_one)
    }
}

fn is_link(pin: &Path) -> bool {
    let name = pin.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == ASSIGN_ONCE || name.starts_with(STEER_ONCE))
}

fn cannot_open(directory: &Path) -> impl Fn(io::Error) -> KernelError + use<> {
    let path = directory.to_owned();
    move |source| KernelError::PinDirectory {
        path: path.clone(),
        source,
    }
}

/// The paths of what is in a directory.
fn paths(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let names = names(directory)?.into_iter();
    Ok(names.map(|name| directory.join(name)).collect())
}

/// What a process does by the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It accepts connections: the programs must stay.
    Steering,
    /// It has connections: the virtual IPs must stay local.
    Connections,
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
    directory: OwnedFd,
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
