//! A Unix socket of the process's own: its place, who may connect, and how a dead one is replaced.

use std::{
    fmt,
    fs::{DirBuilder, File},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, fchmod, flock},
    process::geteuid,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait for an accept.
const BACKLOG: i32 = 64;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Answers to people, probes and Prometheus: for this user.
    Admin,
    /// The link to the proxy: for this user and the group of the folder, to which a proxy without
    /// rights belongs.
    Link,
}

impl Purpose {
    fn mode(self) -> Mode {
        let user = Mode::RUSR | Mode::WUSR;
        match self {
            Self::Admin => user,
            Self::Link => user | Mode::RGRP | Mode::WGRP,
        }
    }
}

impl fmt::Display for Purpose {
    /// The flag that chooses the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "--admin-socket",
            Self::Link => "--link",
        })
    }
}

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// A running process has it.
    #[error("another Forebay answers at {}; choose another path with {}", .0.display(), .1)]
    InUse(PathBuf, Purpose),
    /// Something else stands there, which is not ours to remove.
    #[error("{} is not a socket; choose another path with {}", .0.display(), .1)]
    NotASocket(PathBuf, Purpose),
    /// Another user could put a socket of theirs in its place.
    #[error("the folder of {} belongs to another user; choose another path with {}", .0.display(), .1)]
    ForeignFolder(PathBuf, Purpose),
    /// The file system refuses.
    #[error("cannot listen at {}; choose another path with {purpose}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it is for.
        purpose: Purpose,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The socket file; removed when dropped, if it is still the one that this process made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Locked as long as this process lives: two that start at once would each take the other's
    /// new socket for a dead one.
    _lock: File,
}

impl SocketFile {
    /// Listens at `path` for those that the purpose allows (and root), and makes its folder where it is
    /// missing.
    ///
    /// A socket that nobody answers at is replaced.
    ///
    /// # Errors
    /// A running process answers there, or the file system refuses.
    pub(crate) fn bind(path: &Path, purpose: Purpose) -> Result<(Self, UnixListener), SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            purpose,
            source,
        };
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let owner = folder.metadata().map_err(failed)?.uid();
        let user = geteuid();
        if !user.is_root() && owner != 0 && owner != user.as_raw() {
            return Err(SocketError::ForeignFolder(path.to_owned(), purpose));
        }
        let lock = lock(path).map_err(failed)?;
        let lock = lock.ok_or_else(|| SocketError::InUse(path.to_owned(), purpose))?;
        remove_dead(path, purpose, failed)?;
        let listener = listen(path, purpose.mode()).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        let socket = Self {
            path: path.to_owned(),
            identity,
            _lock: lock,
        };
        Ok((socket, listener))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // What stays is dead, and the next process replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The lock file beside `path`; `None` where a running process holds it. It stays when the process
/// ends: to remove a lock is to give it to two.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = rustix::fs::open(
        Path::new(&name),
        rustix::fs::OFlags::RDWR
            | rustix::fs::OFlags::CREATE
            | rustix::fs::OFlags::CLOEXEC
            | rustix::fs::OFlags::NOFOLLOW,
        Mode::RUSR | Mode::WUSR,
    )?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove_dead(
    path: &Path,
    purpose: Purpose,
    failed: impl Fn(io::Error) -> SocketError,
) -> Result<(), SocketError> {
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket(path.to_owned(), purpose));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned(), purpose)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn listen(path: &Path, mode: Mode) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The kernel gives the file the mode of the descriptor: there is no moment at which others may
    // connect, as there would be with a chmod after the bind.
    fchmod(&socket, mode)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // The umask took away what the group may do. To give is no race.
    rustix::fs::chmod(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn only_this_user_may_connect_and_to_the_link_the_group_of_the_folder() {
        let folder = folder();
        for (purpose, expected) in [(Purpose::Admin, 0o600), (Purpose::Link, 0o660)] {
            let path = folder.path().join(format!("new/{expected}.sock"));
            let (_socket, _listener) = SocketFile::bind(&path, purpose).unwrap();
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), expected, "{purpose}");
            assert_eq!(mode(path.parent().unwrap()), 0o700);
        }
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("admin.sock");
        let (_socket, listener) = SocketFile::bind(&path, Purpose::Admin).unwrap();
        let refused = SocketFile::bind(&path, Purpose::Admin).unwrap_err();
        assert!(matches!(refused, SocketError::InUse(..)), "{refused}");
        let asked = UnixStream::connect(&path);
        assert!(asked.is_ok() && listener.accept().is_ok());

        // A program that knows nothing of the lock.
        let other = folder.path().join("other.sock");
        let _other = UnixListener::bind(&other).unwrap();
        let refused = SocketFile::bind(&other, Purpose::Admin).unwrap_err();
        assert!(matches!(refused, SocketError::InUse(..)), "{refused}");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else_is() {
        let folder = folder();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        SocketFile::bind(&path, Purpose::Admin).unwrap();

        let file = folder.path().join("notes");
        std::fs::write(&file, "mine").unwrap();
        let refused = SocketFile::bind(&file, Purpose::Admin).unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(..)), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn at_its_end_it_removes_its_own_socket_only() {
        let folder = folder();
        let path = folder.path().join("admin.sock");
        drop(SocketFile::bind(&path, Purpose::Admin).unwrap());
        assert!(!path.exists());

        let (socket, listener) = SocketFile::bind(&path, Purpose::Admin).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop((socket, listener));
        assert!(path.exists(), "the socket of another process is gone");
    }
}
