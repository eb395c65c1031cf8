//! What is served: the lab's hosts, from a folder.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ingress_lab::{
    forebay::{Forebay, Launch},
    lab::write_manifests,
};
use tempfile::TempDir;

/// A folder of manifests.
pub(crate) struct Site(TempDir);

impl Site {
    /// The lab's hosts with pods given by Service, name and address.
    pub(crate) fn new(pods: &[(&str, &str, SocketAddr)]) -> Self {
        let folder = TempDir::new().unwrap();
        write_manifests(folder.path(), pods).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file into the folder in one step, or another in its place.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.path().join(format!(".{name}"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path().join(name)).unwrap();
    }

    /// The certificate that clients trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.crt")
    }

    /// A process with two workers, on ports that the kernel picks.
    pub(crate) fn serve(&self) -> Forebay {
        Launch::manifests(self.path())
            .args(&["--workers", "2"])
            .start()
            .unwrap()
    }

    /// One more process on the ports of another, not started yet.
    pub(crate) fn beside(&self, http: SocketAddr, https: SocketAddr, args: &[&str]) -> Launch {
        let (http, https) = (http.to_string(), https.to_string());
        Launch::new(&["--http", &http, "--https", &https])
            .args(&["--manifests", self.path().to_str().unwrap()])
            .args(args)
    }
}
