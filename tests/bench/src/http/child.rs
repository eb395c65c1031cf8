//! Child processes: each has a core, and none outlives the benchmark.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
    thread::{CpuSet, sched_getaffinity},
};

/// How long a program may take until it listens; 10,000 routes take some of them seconds.
const START: Duration = Duration::from_secs(30);

/// Which core a process has.
#[derive(Clone, Copy)]
pub(super) enum Core {
    /// The one that is measured.
    Proxy,
    /// The load's and the origins'.
    Load,
}

impl Core {
    /// Its number among those that may be used; none if there are not two.
    fn of(self, allowed: &[usize]) -> Option<usize> {
        let (first, last) = (allowed.first()?, allowed.last()?);
        let core = match self {
            Self::Proxy => first,
            Self::Load => last,
        };
        (first != last).then_some(*core)
    }
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
    let number = core.of(&allowed_cores()?).map(|number| number.to_string());
    if let Some(number) = number.as_ref().filter(|_| pin) {
        words.extend(["taskset", "-c", number]);
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

/// The cores that this process may use: in a container, or under `taskset`, not all there are.
fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("ask for the cores of this process")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
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

    /// Starts it and waits until it listens on all of the addresses. What it says goes to a file in
    /// `folder`.
    ///
    /// # Errors
    /// It ends, which shows what it said, or does not listen for 30 s.
    pub(super) fn start_listening(
        command: &mut Command,
        addresses: &[SocketAddr],
        folder: &Path,
    ) -> Result<Self> {
        let said = folder.join("said");
        let file = File::create(&said).with_context(|| format!("create {}", said.display()))?;
        let mut running = Self::start(command.stdout(file.try_clone()?).stderr(file))?;
        running
            .wait_until_listening(addresses)
            .with_context(|| {
                fs::read_to_string(&said)
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .with_context(|| format!("{command:?}"))?;
        Ok(running)
    }

    fn wait_until_listening(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let deadline = Instant::now() + START;
        for address in addresses {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = self.0.try_wait()? {
                    bail!("ended with {status}");
                }
                ensure!(
                    Instant::now() < deadline,
                    "nothing listens on {address} after {START:?}"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_taken_from_those_that_may_be_used() {
        for (allowed, proxy, load) in [
            (&[0, 1][..], Some(0), Some(1)),
            (&[2, 3, 5], Some(2), Some(5)),
            (&[3], None, None),
            (&[], None, None),
        ] {
            assert_eq!(Core::Proxy.of(allowed), proxy, "{allowed:?}");
            assert_eq!(Core::Load.of(allowed), load, "{allowed:?}");
        }
    }

    #[test]
    fn a_program_that_ends_instead_of_listening_is_an_error_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let address = super::super::stand::free_address().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo unknown directive >&2; exit 3"]);
        let start = Instant::now();
        let error = Running::start_listening(&mut command, &[address], folder.path())
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        assert!(error.contains("unknown directive"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(start.elapsed() < START, "waited {:?}", start.elapsed());
    }
}
