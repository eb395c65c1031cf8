//! The file that says which nodes share the virtual IPs: read at the start, and again when it changes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ingress_agent::membership::{LONGEST, Membership, MembershipError};
use rustix::fs::OFlags;

/// A file of nodes, as it was read last.
pub(super) struct NodesFile {
    path: PathBuf,
    /// What was read last, whether or not it could be used.
    text: Option<String>,
}

/// Why a file of nodes cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodesFileError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It may have no end, or wait for somebody to write.
    #[error("{} is no ordinary file", .0.display())]
    NoFile(PathBuf),
    /// It is longer than any set of nodes.
    #[error("{} is longer than {LONGEST} bytes", .0.display())]
    TooLong(PathBuf),
    /// It says what cannot be.
    #[error("{}", .0.display())]
    Content(PathBuf, #[source] MembershipError),
}

impl NodesFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`NodesFileError`], which names the file and the field.
    pub(super) fn open(path: &Path) -> Result<(Self, Membership), NodesFileError> {
        let text = read(path)?;
        let membership = Membership::read(&text)
            .map_err(|error| NodesFileError::Content(path.to_owned(), error))?;
        let file = Self {
            path: path.to_owned(),
            text: Some(text),
        };
        Ok((file, membership))
    }

    /// What it says, if that is something else than the last time.
    pub(super) fn changed(&mut self) -> Option<Result<Membership, NodesFileError>> {
        let text = match read(&self.path) {
            Ok(text) => text,
            // Asked each time, since it may be a moment between two versions; the caller tells it once.
            Err(error) => {
                self.text = None;
                return Some(Err(error));
            }
        };
        if self.text.as_ref() == Some(&text) {
            return None;
        }
        let membership = Membership::read(&text)
            .map_err(|error| NodesFileError::Content(self.path.clone(), error));
        self.text = Some(text);
        Some(membership)
    }

    /// Has it say the same once more.
    pub(super) fn repeat(&mut self) {
        self.text = None;
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<String, NodesFileError> {
    let failed = |error| NodesFileError::Read(path.to_owned(), error);
    // Asked first, since to open a device may do something; and opened without waiting, since it may have
    // become a pipe by then.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(NodesFileError::NoFile(path.to_owned()));
    }
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(NodesFileError::NoFile(path.to_owned()));
    }
    let mut text = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(NodesFileError::TooLong(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_told_when_it_changes_and_whatever_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.yaml");
        assert!(NodesFile::open(&path).is_err());
        let text = |epoch: u64| {
            format!("nodes: [{{id: 1, name: n1, address: 198.18.0.11}}]\nepoch: {epoch}\n")
        };
        fs::write(&path, text(1)).unwrap();
        let (mut file, membership) = NodesFile::open(&path).unwrap();
        assert_eq!(membership.epoch, 1);
        assert!(file.changed().is_none());
        fs::write(&path, text(2)).unwrap();
        assert_eq!(file.changed().unwrap().unwrap().epoch, 2);
        fs::write(&path, "epoch: 3").unwrap();
        let error = file.changed().unwrap().unwrap_err();
        let error = format!("{:#}", anyhow::Error::from(error));
        assert!(
            error.contains("nodes.yaml") && error.contains("nodes`"),
            "{error}"
        );
        assert!(file.changed().is_none(), "it is told once");
        fs::remove_file(&path).unwrap();
        assert!(file.changed().unwrap().is_err());
        fs::write(&path, text(2)).unwrap();
        assert_eq!(file.changed().unwrap().unwrap().epoch, 2);
        fs::write(&path, "#".repeat(LONGEST as usize + 1)).unwrap();
        let error = file.changed().unwrap().unwrap_err();
        assert!(matches!(error, NodesFileError::TooLong(_)), "{error}");
    }

    /// One that waits for somebody at the other end would stop the whole process.
    #[test]
    fn what_is_no_ordinary_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [pipe, folder.path().to_owned(), "/dev/zero".into()] {
            let (done, is_done) = std::sync::mpsc::channel();
            let shown = path.display().to_string();
            std::thread::spawn(move || done.send(NodesFile::open(&path).map(drop)));
            let patience = std::time::Duration::from_secs(5);
            let opened = is_done.recv_timeout(patience);
            let error = opened.expect("it does not wait").unwrap_err();
            let error = format!("{:#}", anyhow::Error::from(error));
            assert!(error.contains(&shown), "{error}");
        }
    }
}
