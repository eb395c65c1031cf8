//! The last good state of a proxy: what it starts from while the agent is away.
//!
//! Two files in a folder in memory. `state` holds updates as they came, a whole state first: a head
//! (magic and [`wire::VERSION`]), then for each its length (4 bytes, little-endian) and its bytes. What
//! follows the last whole update is cut off by a process that is killed, or changes the state before
//! it: either way, what is read is a state that was in force. `places` holds what was listened on.
//!
//! They hold private keys, so that they must never reach a disk. And what they say is served: where
//! others may put files into the folder, as into `/dev/shm`, nothing of theirs is read or written to.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ingress_model::wire::{self, Place};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

/// Begins a file of this format.
const MAGIC: &[u8; 8] = b"forebay\0";
/// Kinds of file systems that are memory (linux/magic.h).
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
/// Longer files were not written by a proxy.
const LONGEST: u64 = 1 << 31;
/// Changes may take this much beside twice the whole state, until a whole state is asked for.
const SLACK: u64 = 1 << 20;

/// No state can be kept in a folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LastGoodError {
    /// The keys would be written to a disk.
    #[error("{} is not in memory, and private keys must not reach a disk; mount a tmpfs there, or choose another folder with --state-dir", .0.display())]
    OnDisk(PathBuf),
    /// Somebody else could read the keys, and say what is served.
    #[error("{} belongs to another user; choose another folder with --state-dir", .0.display())]
    ForeignFolder(PathBuf),
    /// Another proxy keeps its state there.
    #[error("another proxy uses {}; choose another folder with --state-dir", .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot use {} for the last good state; choose another folder with --state-dir", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The files.
#[derive(Debug)]
pub(crate) struct LastGood {
    folder: PathBuf,
    /// Locked as long as this process lives.
    _lock: File,
    /// Where updates are appended; `None` until a whole state comes.
    state: Option<File>,
    /// Bytes of the whole state, and of what follows it.
    whole: u64,
    changes: u64,
    /// What stood there had to be given up: there may be room for another whole state.
    is_lost: bool,
}

impl LastGood {
    /// Uses `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// It is not in memory, belongs to somebody else, or cannot be written.
    pub(crate) fn open(folder: &Path) -> Result<Self, LastGoodError> {
        let failed = |source: io::Error| LastGoodError::Io {
            path: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let kind = rustix::fs::statfs(folder)
            .map_err(|error| failed(error.into()))?
            .f_type;
        // The type of the field differs between architectures.
        #[allow(clippy::unnecessary_cast, reason = "i64 on most")]
        if !matches!(kind as i64 & 0xffff_ffff, TMPFS | RAMFS) {
            return Err(LastGoodError::OnDisk(folder.to_owned()));
        }
        let (owner, user) = (folder.metadata().map_err(failed)?.uid(), geteuid().as_raw());
        if owner != 0 && owner != user {
            return Err(LastGoodError::ForeignFolder(folder.to_owned()));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let lock = options.custom_flags(no_follow()).open(folder.join("lock"));
        let lock = lock.map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LastGoodError::InUse(folder.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
            state: None,
            whole: 0,
            changes: 0,
            is_lost: false,
        })
    }

    /// The updates that lead to the last state, as bytes; none if there is no state, or one of another
    /// version.
    pub(crate) fn updates(&self) -> Vec<Zeroizing<Vec<u8>>> {
        let read = || {
            let mut file = open_own(&self.path("state"))?;
            // A buffer that grows leaves copies of keys behind.
            let size = file.metadata()?.len();
            if size > LONGEST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let mut bytes =
                Zeroizing::new(vec![0; usize::try_from(size).map_err(io::Error::other)?]);
            file.read_exact(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        match read() {
            Ok(bytes) => split(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot read the last good state");
                Vec::new()
            }
        }
    }

    /// What was listened on.
    pub(crate) fn places(&self) -> Vec<Place> {
        let read = || {
            let mut bytes = Vec::new();
            // One byte more than a message can have makes it none.
            let limit = wire::MESSAGE_LIMIT as u64 + 1;
            let file = open_own(&self.path("places")).ok()?;
            file.take(limit).read_to_end(&mut bytes).ok()?;
            let (version, places) = wire::read::<(u16, Vec<Place>)>(&bytes).ok()?;
            (version == wire::VERSION).then_some(places)
        };
        read().unwrap_or_default()
    }

    /// Keeps an update that is in force by now. If that fails, no state is kept until the next whole
    /// one: what stands there would be an older one than it seems.
    pub(crate) fn keep(&mut self, update: &[u8], is_whole: bool) {
        let kept = if is_whole {
            self.begin(update)
        } else {
            self.append(update)
        };
        self.is_lost = false;
        if let Err(error) = kept {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot keep the last good state");
            self.state = None;
            let _ = std::fs::remove_file(self.path("state.new"));
            // Without the folder there is nothing left that could be read. With an old state out of
            // the way, a new one may fit; else the next one is tried when it comes.
            self.is_lost = std::fs::remove_file(self.path("state")).is_ok();
        }
    }

    /// Keeps what is listened on.
    pub(crate) fn keep_places(&self, places: &[Place]) {
        let write = || {
            let bytes = wire::write(&(wire::VERSION, places)).map_err(io::Error::other)?;
            self.replace("places", &[&bytes]).map(drop)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot keep what is listened on");
        }
    }

    /// Whether the whole state is needed: the changes have become so many that it is shorter, or what
    /// stood there is lost.
    pub(crate) fn wants_whole(&self) -> bool {
        self.is_lost || (self.state.is_some() && self.changes > 2 * self.whole + SLACK)
    }

    fn begin(&mut self, update: &[u8]) -> io::Result<()> {
        let head = [&MAGIC[..], &wire::VERSION.to_le_bytes()].concat();
        let file = self.replace("state", &[&head, &length(update)?, update])?;
        self.state = Some(file);
        (self.whole, self.changes) = (update.len() as u64, 0);
        Ok(())
    }

    fn append(&mut self, update: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.state else {
            return Ok(());
        };
        file.write_all(&length(update)?)?;
        file.write_all(update)?;
        self.changes += update.len() as u64;
        Ok(())
    }

    /// Puts a file of these parts in the place of another, whole.
    fn replace(&self, name: &str, parts: &[&[u8]]) -> io::Result<File> {
        let new = self.path(&format!("{name}.new"));
        let mut file = make_own(&new)?;
        for part in parts {
            file.write_all(part)?;
        }
        std::fs::rename(&new, self.path(name))?;
        Ok(file)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A new file that nobody else may read: not one that somebody has put there, and may have open.
fn make_own(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// A file that this user has made, whoever else may put files beside it.
fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Something that is no file must not be waited for.
    let flags = no_follow() | OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it is not a file of this user's"));
    }
    Ok(file)
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn length(update: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(update.len()).map_err(io::Error::other)?;
    Ok(length.to_le_bytes())
}

/// The updates in a file, up to where it is cut off.
fn split(bytes: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut updates = Vec::new();
    let rest = bytes.strip_prefix(MAGIC);
    let Some(mut rest) = rest.and_then(|rest| rest.strip_prefix(&wire::VERSION.to_le_bytes()))
    else {
        return updates;
    };
    while let Some((length, after)) = rest.split_first_chunk::<4>()
        && let Some((update, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
    {
        updates.push(Zeroizing::new(update.to_vec()));
        rest = after;
    }
    updates
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ingress_model::Transport;

    use super::*;

    /// A folder in memory.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    /// The next process, while this one lives.
    fn reader(folder: &Path) -> LastGood {
        LastGood {
            folder: folder.to_owned(),
            _lock: File::open("/dev/null").unwrap(),
            state: None,
            whole: 0,
            changes: 0,
            is_lost: false,
        }
    }

    fn read(folder: &Path) -> Vec<Vec<u8>> {
        let updates = reader(folder).updates();
        updates.iter().map(|update| update.to_vec()).collect()
    }

    #[test]
    fn what_was_kept_is_read_by_the_next_process() {
        let folder = folder();
        assert_eq!(read(folder.path()).len(), 0);
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"lost: no whole state before it", false);
        assert_eq!(read(folder.path()).len(), 0);
        for (update, is_whole, kept) in [
            (&b"whole"[..], true, &["whole"][..]),
            (b"", false, &["whole", ""]),
            (b"change", false, &["whole", "", "change"]),
            (b"other", true, &["other"]),
        ] {
            state.keep(update, is_whole);
            let kept: Vec<_> = kept.iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(read(folder.path()), kept);
        }
        let places = [Place {
            transport: Transport::Plain,
            address: ([0, 0, 0, 0], 80).into(),
            is_steered: false,
        }];
        state.keep_places(&places);
        assert_eq!(reader(folder.path()).places(), places);
        // Longer than any list of places, and than memory, but sparse.
        for name in ["places", "state"] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_len(LONGEST + 1).unwrap();
        }
        assert_eq!(reader(folder.path()).places(), []);
        assert_eq!(read(folder.path()).len(), 0);
    }

    #[test]
    fn a_folder_is_of_one_proxy_at_a_time() {
        let folder = folder();
        let first = LastGood::open(folder.path()).unwrap();
        let error = LastGood::open(folder.path()).unwrap_err();
        assert!(matches!(error, LastGoodError::InUse(_)), "{error}");
        drop(first);
        LastGood::open(folder.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_gives_the_updates_that_are_whole() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"whole", true);
        state.keep(b"change", false);
        let bytes = std::fs::read(folder.path().join("state")).unwrap();
        let first = MAGIC.len() + 2 + 4 + 5;
        for end in 0..=bytes.len() {
            std::fs::write(folder.path().join("state"), &bytes[..end]).unwrap();
            let whole = usize::from(end >= first) + usize::from(end == bytes.len());
            assert_eq!(read(folder.path()).len(), whole, "{end} bytes");
        }
    }

    #[test]
    fn a_state_of_another_version_is_not_read() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"whole", true);
        let path = folder.path().join("state");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[MAGIC.len()] += 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(folder.path()).len(), 0);
    }

    #[test]
    fn a_state_that_cannot_be_kept_is_removed() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"whole", true);
        // As if the file system were full.
        state.state = Some(File::open("/dev/full").unwrap());
        state.keep(b"change", false);
        assert_eq!(read(folder.path()).len(), 0);
        state.keep(b"later", false);
        assert_eq!(read(folder.path()).len(), 0);
        state.keep(b"whole", true);
        assert_eq!(read(folder.path()), [b"whole"]);
    }

    #[test]
    fn nobody_else_may_read_it() {
        let folder = folder();
        let inner = folder.path().join("state-dir");
        let mut state = LastGood::open(&inner).unwrap();
        state.keep(b"whole", true);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&inner.join("state"))), (0o700, 0o600));
    }

    #[test]
    fn keys_are_not_written_to_a_disk() {
        // No tmpfs, wherever the test runs.
        let error = LastGood::open(Path::new("/proc/self")).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }

    #[test]
    fn many_changes_ask_for_a_whole_state() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(&[0; 1000], true);
        let change = vec![0; SLACK as usize / 2];
        for wants_whole in [false, false, true] {
            state.keep(&change, false);
            assert_eq!(state.wants_whole(), wants_whole);
        }
        state.keep(&[0; 1000], true);
        assert!(!state.wants_whole());
    }

    #[test]
    fn a_state_that_was_lost_is_asked_for_once() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"whole", true);
        state.state = Some(File::open("/dev/full").unwrap());
        state.keep(b"change", false);
        assert!(state.wants_whole());
        // There is no room for it either.
        let new = folder.path().join("state.new");
        std::fs::create_dir(&new).unwrap();
        state.keep(b"whole", true);
        assert!(!state.wants_whole());
        std::fs::remove_dir(&new).unwrap();
        state.keep(b"whole", true);
        assert!(!state.wants_whole());
        assert_eq!(read(folder.path()), [b"whole"]);
    }

    #[test]
    fn a_whole_state_that_does_not_fit_beside_the_old_one_is_asked_for_again() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"old", true);
        let new = folder.path().join("state.new");
        std::fs::create_dir(&new).unwrap();
        state.keep(b"whole", true);
        assert_eq!(read(folder.path()).len(), 0);
        assert!(state.wants_whole());
    }

    #[test]
    fn keys_are_not_written_to_what_somebody_else_has_put_there() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        std::fs::write(&elsewhere, "mine").unwrap();
        let new = folder.path().join("state.new");
        std::os::unix::fs::symlink(&elsewhere, &new).unwrap();
        state.keep(b"key", true);
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"mine");
        // Anybody may read it, and has it open maybe.
        std::fs::write(&new, "").unwrap();
        let mut open = File::open(&new).unwrap();
        state.keep(b"key", true);
        let mut seen = Vec::new();
        open.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"");
        assert_eq!(read(folder.path()), [b"key"]);
    }

    #[test]
    fn a_state_that_somebody_else_has_put_there_is_not_read() {
        let folder = folder();
        let mut state = LastGood::open(folder.path()).unwrap();
        state.keep(b"whole", true);
        let path = folder.path().join("state");
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(read(folder.path()).len(), 0);
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&elsewhere, &path).unwrap();
        assert_eq!(read(folder.path()).len(), 1);
        let stranger = Some(rustix::process::Uid::from_raw(65534));
        if rustix::fs::chown(&path, stranger, None).is_ok() {
            assert_eq!(read(folder.path()).len(), 0);
        }
        std::fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(read(folder.path()).len(), 0);
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let folder = folder();
        let stranger = Some(rustix::process::Uid::from_raw(65534));
        if rustix::fs::chown(folder.path(), stranger, None).is_err() {
            println!("SKIPPED: only root can give a folder away");
            return;
        }
        let error = LastGood::open(folder.path()).unwrap_err();
        assert!(matches!(error, LastGoodError::ForeignFolder(_)), "{error}");
    }

    #[test]
    fn places_of_another_version_are_not_read() {
        let folder = folder();
        let state = LastGood::open(folder.path()).unwrap();
        let places = [Place {
            transport: Transport::Plain,
            address: ([0, 0, 0, 0], 80).into(),
            is_steered: false,
        }];
        state.keep_places(&places);
        assert_eq!(reader(folder.path()).places(), places);
        let other = wire::write(&(wire::VERSION + 1, &places[..])).unwrap();
        std::fs::write(folder.path().join("places"), other).unwrap();
        assert_eq!(reader(folder.path()).places(), []);
    }
}
