//! Forebay under measurement: one process, or agent and proxy as two.

use anyhow::Result;
use ingress_lab::forebay::{Forebay, Launch};
use tempfile::TempDir;

use super::source::Source;

/// Most processes that one can be.
const PROCESSES: usize = 2;

/// The processes; ended when dropped.
#[derive(Debug)]
pub(super) struct Running {
    /// The one that serves.
    pub(super) proxy: Forebay,
    agent: Option<Forebay>,
    /// Holds the link and, in memory, the last good state of two.
    _folder: TempDir,
}

impl Running {
    /// Starts it, without waiting for it.
    pub(super) fn start(source: &impl Source, two_processes: bool) -> Result<Self> {
        let namespace = source.namespace();
        let flags = source.flags()?;
        let ports = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"];
        let workers = ["--workers", "2"];
        let folder = TempDir::new_in("/dev/shm")?;
        if !two_processes {
            let launch = Launch::new(&ports).args(&flags).args(&workers);
            return Ok(Self {
                proxy: launch.within(&namespace).start_unready()?,
                agent: None,
                _folder: folder,
            });
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let at = ["--link".to_owned(), path("link.sock")];
        let off = ["--metrics", "off"];
        let agent = Launch::of("agent", &at).args(&ports).args(&flags);
        let agent = agent.args(&off).within(&namespace).start_unready()?;
        let proxy = Launch::of("proxy", &at).args(&workers).args(&off);
        let proxy = proxy.args(&["--state-dir", &path("state")]);
        Ok(Self {
            proxy: proxy.within(&namespace).start_unready()?,
            agent: Some(agent),
            _folder: folder,
        })
    }

    /// What costs are counted of.
    pub(super) fn processes(&self) -> Processes {
        let agent = self.agent.as_ref().map(Forebay::pid);
        Processes([Some(self.proxy.pid()), agent])
    }
}

/// Process ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processes([Option<u32>; PROCESSES]);

impl Processes {
    /// The sum of what `of` says of each.
    pub(super) fn sum(&self, of: impl Fn(u32) -> Result<u64>) -> Result<u64> {
        self.0.iter().flatten().map(|pid| of(*pid)).sum()
    }
}
