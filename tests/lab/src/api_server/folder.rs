//! Where the control plane keeps its files.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

/// A temporary folder that goes even when this process is killed: a shell waits for the end of a
/// pipe that nobody else holds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    remover: Child,
}

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("forebay-api-server-")
            .tempdir()?
            .keep();
        // The control plane's processes are killed at the same moment and may still write for
        // another.
        let script = "cat >/dev/null; until rm -rf -- \"$0\"; do sleep 0.1; done 2>/dev/null";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its own group: Ctrl-C is for the tests.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self {
            remover: command.spawn().context("start sh")?,
            path,
        })
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}
