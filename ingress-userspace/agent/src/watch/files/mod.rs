//! The manifests below a folder, read again when they change. Blocking I/O, no clock of its own.
//!
//! What a file said last stays in force while the file is broken, unreadable or emptied; only a
//! file that is gone takes its objects with it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    super::{index::Index, kept::Unread},
    manifest::{self, Fault, Identity, Located, Reading},
};
use ingress_model::{Problem, Subject};

/// A larger file is not read; the largest object that an API server takes is 3 MiB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A file this young may change again without a change of its times.
const UNSETTLED: Duration = Duration::from_millis(100);

/// All manifests below one folder.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Folders that could not be listed, in the last scan.
    unreadable: BTreeMap<PathBuf, String>,
}

/// What tells that a file is another one or was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Default)]
struct File {
    /// `None` where the next scan has to read the file whatever its times say.
    signature: Option<Signature>,
    /// Of the text that was read last.
    digest: Option<u64>,
    /// With `path:line` of each.
    objects: BTreeMap<Identity, (Located, Arc<str>)>,
    /// Why those cannot be read of which there is no earlier version.
    unread: BTreeMap<Identity, Unread>,
    /// It says something of which nobody knows what object it is.
    has_gaps: bool,
    /// That part may be an IngressClass.
    hides_classes: bool,
    problems: Vec<Problem>,
    skipped: BTreeMap<String, u64>,
}

impl Files {
    /// Nothing is read before the first [`scan`](Self::scan).
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Reads what is new or changed, and tells whether there was any.
    ///
    /// # Errors
    /// The folder itself cannot be listed; everything known stays.
    pub(super) fn scan(&mut self) -> io::Result<bool> {
        let mut walk = Walk::default();
        walk.folder(&self.root)?;
        let mut changed = self.unreadable != walk.unreadable;
        self.files.retain(|path, _| {
            let hidden = walk
                .unreadable
                .keys()
                .any(|folder| path.starts_with(folder));
            let stays = hidden || walk.found.contains_key(path);
            changed |= !stays;
            stays
        });
        for (path, signature) in walk.found {
            let file = self.files.entry(path.clone()).or_default();
            if file.signature != Some(signature) {
                changed |= file.read(&path, signature);
            }
        }
        self.unreadable = walk.unreadable;
        Ok(changed)
    }

    /// Everything the files say. Of two files with the same object, the first by path wins.
    pub(super) fn index(&self) -> Index {
        let mut index = Index::default();
        for (path, reason) in &self.unreadable {
            let subject = Subject::file(path.display().to_string());
            let message = format!("cannot be listed: {reason}");
            index.problems.push(subject.error("", message));
        }
        let has_gaps = self.files.values().any(|file| file.has_gaps);
        index.has_gaps = has_gaps || !self.unreadable.is_empty();
        let hides_classes = self.files.values().any(|file| file.hides_classes);
        index.hides_classes = hides_classes || !self.unreadable.is_empty();
        for file in self.files.values() {
            index.problems.extend(file.problems.iter().cloned());
            for (kind, count) in &file.skipped {
                *index.skipped.entry(kind.clone()).or_default() += count;
            }
            for (located, place) in file.objects.values() {
                let name = located.identity.name.clone();
                let owner = index.objects.insert_first(name, &located.object, place);
                if let Some(owner) = owner {
                    let subject = Subject::file(&**place).called(located.identity.to_string());
                    let message = format!("is also in {owner}, which wins");
                    index.problems.push(subject.warning("", message));
                }
            }
        }
        for (identity, unread) in self.files.values().flat_map(|file| &file.unread) {
            let Identity { kind, name } = identity.clone();
            index.objects.insert_unread(kind, name, unread.clone());
        }
        index
    }
}

impl File {
    /// Reads the file and tells whether anything it says may differ.
    fn read(&mut self, path: &Path, signature: Signature) -> bool {
        let text = match text(path, signature.size) {
            Ok(text) => text,
            // Gone since it was listed: the next scan sees that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.digest = None;
                return self.keep(path, format!("cannot be read: {error}"));
            }
        };
        self.signature = signature.settled().then_some(signature);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let digest = Some(hasher.finish());
        if self.digest == digest {
            return false;
        }
        self.digest = digest;
        if text.is_empty() && !self.objects.is_empty() {
            return self.keep(
                path,
                "is empty; delete the file to take its objects away".to_owned(),
            );
        }
        let json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        self.take(path, manifest::read(&text, json));
        true
    }

    /// Notes why the file says nothing now; what it said before stays.
    fn keep(&mut self, path: &Path, message: String) -> bool {
        let subject = Subject::file(path.display().to_string());
        let problems = vec![subject.error("", format!("{message}{}", self.in_force()))];
        let changed = self.problems != problems;
        self.problems = problems;
        self.has_gaps = true;
        // Of a file that was emptied it is known what it says.
        self.hides_classes = self.digest.is_none();
        changed
    }

    fn in_force(&self) -> String {
        match self.objects.len() {
            0 => String::new(),
            1 => "; its last good version stays in force".to_owned(),
            count => format!("; its {count} last good objects stay in force"),
        }
    }

    fn take(&mut self, path: &Path, reading: Reading) {
        let mut before = std::mem::take(&mut self.objects);
        self.unread.clear();
        self.problems.clear();
        let hides_any =
            |fault: &Fault| fault.object.is_empty() && fault.message != manifest::NO_OBJECT;
        self.has_gaps = reading.faults.iter().any(hides_any);
        self.hides_classes = self.has_gaps && reading.mentions_classes;
        self.skipped = reading.skipped;
        for located in reading.objects {
            let place: Arc<str> = format!("{}:{}", path.display(), located.line).into();
            before.remove(&located.identity);
            if let Some((first, _)) = self.objects.get(&located.identity) {
                let subject = Subject::file(&*place).called(located.identity.to_string());
                let message = format!("is also on line {}, which wins", first.line);
                self.problems.push(subject.warning("", message));
                continue;
            }
            self.objects
                .insert(located.identity.clone(), (located, place));
        }
        // With a fault in the file, an object that is missing now may be the one that cannot be
        // read.
        let kept = if reading.faults.is_empty() {
            BTreeMap::new()
        } else {
            before
        };
        for Fault {
            line,
            object,
            identity,
            outline,
            message,
        } in reading.faults
        {
            let place = format!("{}:{line}", path.display());
            let named = kept.keys().any(|identity| identity.to_string() == object);
            let consequence = match kept.len() {
                _ if named => "; its last good version stays in force".to_owned(),
                _ if outline.is_some() => {
                    "; its hosts and paths answer 503, as far as they can be read".to_owned()
                }
                0 => String::new(),
                _ if !object.is_empty() => String::new(),
                count => format!("; the {count} last good objects of the file stay in force"),
            };
            let subject = Subject::file(place).called(object);
            self.problems
                .push(subject.error("", format!("{message}{consequence}")));
            if let Some(identity) = identity.filter(|_| !named) {
                let unread = Unread {
                    uid: None,
                    error: message.into(),
                    outline,
                };
                self.unread.insert(identity, unread);
            }
        }
        self.objects.extend(kept);
    }
}

fn text(path: &Path, size: u64) -> io::Result<String> {
    if size > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 64 MiB",
        ));
    }
    String::from_utf8(fs::read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

impl Signature {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Times are only as fine as the kernel's tick: a write within it can leave them as they are.
    fn settled(&self) -> bool {
        let since_epoch = Duration::new(
            u64::try_from(self.changed.0).unwrap_or(0),
            u32::try_from(self.changed.1).unwrap_or(0).min(999_999_999),
        );
        let changed = SystemTime::UNIX_EPOCH + since_epoch;
        SystemTime::now()
            .duration_since(changed)
            .is_ok_and(|age| age > UNSETTLED)
    }
}

/// One pass over the folder. Follows symbolic links; leaves out names that begin with a dot, as the
/// `..data` of a ConfigMap's mount (its files are reached through the links beside it).
#[derive(Default)]
struct Walk {
    found: BTreeMap<PathBuf, Signature>,
    unreadable: BTreeMap<PathBuf, String>,
    visited: HashSet<(u64, u64)>,
}

impl Walk {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        let metadata = fs::metadata(folder)?;
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let mut entries = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        for path in entries {
            self.entry(path);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf) {
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let Ok(metadata) = fs::metadata(&path) else {
            return;
        };
        if hidden {
            return;
        }
        if metadata.is_dir() {
            match self.folder(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.unreadable.insert(path, error.to_string());
                }
                Ok(()) | Err(_) => {}
            }
            return;
        }
        let manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e));
        if manifest && metadata.is_file() {
            self.found.insert(path, Signature::of(&metadata));
        }
    }
}

/// What a folder with one file of that text says.
#[cfg(any(test, fuzzing))]
pub(crate) fn index_of(text: &str) -> Index {
    let mut files = Files::new(PathBuf::new());
    let mut file = File::default();
    file.take(Path::new("test.yaml"), manifest::read(text, false));
    files.files.insert("test.yaml".into(), file);
    files.index()
}

#[cfg(test)]
mod tests;
