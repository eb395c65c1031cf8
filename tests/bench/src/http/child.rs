//! Child processes: each has a core, and none outlives the benchmark.

use std::{
    ffi::OsStr,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Which core a process has.
#[derive(Clone, Copy)]
pub(super) enum Core {
    /// The one that is measured.
    Proxy,
    /// The load's and the origins'.
    Load,
}

/// Makes room for the connections of all rows, in this process and its children.
pub(super) fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of descriptors")
}

/// The words before a command that make its process end with this one, and tie it to a core if
/// that is wanted and there is one to spare.
pub(super) fn wrapper(pin: bool, core: Core) -> Result<Vec<String>> {
    let mut words = vec!["setpriv", "--pdeathsig", "TERM"];
    let cores = std::thread::available_parallelism()?.get();
    let number = match core {
        Core::Proxy => 0,
        Core::Load => cores - 1,
    }
    .to_string();
    if pin && cores > 1 {
        words.extend(["taskset", "-c", &number]);
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

/// A command for a process on that core.
pub(super) fn command(wrapper: &[String], program: impl AsRef<OsStr>) -> Result<Command> {
    let (first, rest) = wrapper.split_first().context("no wrapper")?;
    let mut command = Command::new(first);
    command.args(rest).arg(program).stdin(Stdio::null());
    Ok(command)
}

/// A child process that is told to end, and waited for, when dropped.
pub(super) struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("start {command:?}"))?))
    }

    /// Starts it without a word from it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start_silent(command: &mut Command) -> Result<Self> {
        Self::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Process id.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What it prints, if that is a pipe and was not taken yet.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
