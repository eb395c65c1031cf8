//! An agent and a proxy as two processes, as in a pod.

use std::{net::SocketAddr, path::Path};

use ingress_lab::forebay::{Forebay, Launch};
use tempfile::TempDir;

/// Both, and what they share.
pub(crate) struct Pair {
    pub(crate) agent: Forebay,
    pub(crate) proxy: Forebay,
    link: TempDir,
    state: TempDir,
}

impl Pair {
    /// Serves the manifests of a folder at these addresses; returns when the proxy is ready.
    pub(crate) fn start(manifests: &Path, http: SocketAddr, https: SocketAddr) -> Self {
        let mut pair = Self::start_unready(manifests, http, https);
        pair.proxy.wait_for_ready().unwrap();
        pair
    }

    /// On ports that the kernel picks.
    pub(crate) fn serve(manifests: &Path) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        Self::start(manifests, any, any)
    }

    /// As [`start`](Self::start), but waits for nothing.
    pub(crate) fn start_unready(manifests: &Path, http: SocketAddr, https: SocketAddr) -> Self {
        let manifests = ["--manifests", manifests.to_str().unwrap()];
        Self::of(&manifests, http, https)
    }

    /// An agent with these flags, and its proxy.
    pub(crate) fn of(source: &[&str], http: SocketAddr, https: SocketAddr) -> Self {
        let link = TempDir::new().unwrap();
        // In memory: it holds private keys.
        let state = TempDir::new_in("/dev/shm").unwrap();
        let path = link.path().join("link.sock");
        let at = ["--link", path.to_str().unwrap(), "--metrics", "off"];
        let (http, https) = (http.to_string(), https.to_string());
        let agent = Launch::of("agent", &at)
            .args(source)
            .args(&["--http", &http, "--https", &https])
            .start_unready()
            .unwrap();
        let proxy = Launch::of("proxy", &at)
            .args(&["--workers", "2", "--lame-duck", "2s"])
            .args(&["--state-dir", state.path().to_str().unwrap()])
            .start_unready()
            .unwrap();
        Self {
            agent,
            proxy,
            link,
            state,
        }
    }

    /// Where a proxy connects to the agent.
    pub(crate) fn link(&self) -> std::path::PathBuf {
        self.link.path().join("link.sock")
    }

    /// Where the proxy keeps its last good state.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    /// As a pod is ended: both hear it at once. Gives their exit codes.
    pub(crate) fn end(mut self) -> (Option<i32>, Option<i32>) {
        self.agent.terminate().unwrap();
        self.proxy.terminate().unwrap();
        let proxy = self.proxy.wait().unwrap();
        let agent = self.agent.wait().unwrap();
        (agent.code(), proxy.code())
    }
}
