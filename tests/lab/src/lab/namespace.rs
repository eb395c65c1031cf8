//! One machine of the lab: a thread in network and mount namespaces of its own.
//!
//! The namespaces live as long as the thread and the processes started from it, so nothing is left
//! behind, not even when the test process is killed. `/sys` and `/sys/fs/bpf` are the machine's
//! own: what Forebay pins there outlives Forebay, and ends with the machine.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command},
    sync::mpsc,
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::sys;

type Job = Box<dyn FnOnce() + Send>;

/// A machine of its own as far as the network, `/sys` and pins go; gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes an empty network with the loopback interface up.
    ///
    /// # Errors
    /// The process may not make namespaces, or has no bpffs.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (started, tid) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("lab {name}"))
            .spawn(move || {
                let entered = enter();
                let failed = entered.is_err();
                if started.send(entered).is_err() || failed {
                    return;
                }
                while let Ok(job) = inbox.recv() {
                    job();
                }
            })?;
        let tid = tid
            .recv()
            .map_err(|_| anyhow!("the thread of namespace {name} ended"))?
            .with_context(|| format!("make the namespace {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            tid,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Name given to [`Namespace::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` on the namespace's thread and returns what it returns.
    ///
    /// Sockets opened and threads and processes started by `job` belong to the namespace.
    ///
    /// # Panics
    /// When `job` panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = sender.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        assert!(
            matches!(sent, Some(Ok(()))),
            "the thread of namespace {} ended",
            self.name
        );
        match result.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("the job always sends"),
        }
    }

    /// Starts `command` in the namespace; it is killed when the namespace is dropped or this
    /// process dies.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        sys::end_with_starter(&mut command);
        self.run(move || command.spawn())
    }

    /// What to put before a command in a shell to run it here while this process lives.
    pub fn enter_command(&self) -> String {
        format!("nsenter -t {} -n -m", self.tid)
    }

    /// The network as a file, for as long as this process lives.
    pub(super) fn net_path(&self) -> PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid).into()
    }

    /// Writes a sysctl of this network, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// The kernel has no such sysctl or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        let (to, value) = (path.clone(), value.to_owned());
        self.run(move || std::fs::write(to, value))
            .with_context(|| format!("write {path} in {}", self.name))
    }

    /// Gives names to addresses: lines of this machine's `/etc/hosts`, which replace the file's.
    ///
    /// # Errors
    /// The file cannot be mounted.
    pub fn hosts(&self, lines: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(lines.as_bytes())?;
        // The mount keeps the file after its name is gone.
        self.run(move || rustix::mount::mount_bind(file.path(), "/etc/hosts"))
            .with_context(|| format!("mount /etc/hosts in {}", self.name))
    }

    /// Makes `interface` send whole checksums.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn disable_tx_checksum_offload(&self, interface: &str) -> Result<()> {
        let name = interface.to_owned();
        self.run(move || sys::disable_tx_checksum_offload(&name))
            .with_context(|| format!("turn off tx checksums of {interface} in {}", self.name))
    }

    /// Starts an origin in the namespace.
    ///
    /// # Errors
    /// As [`crate::origin::Origin::start`].
    pub fn origin(&self, pod: &str, address: SocketAddr) -> io::Result<crate::origin::Origin> {
        let pod = pod.to_owned();
        self.run(move || crate::origin::Origin::start(&pod, address))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Closing the channel ends the thread.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into namespaces of its own; returns its thread id.
fn enter() -> Result<i32> {
    sys::unshare_network_and_mounts().context("unshare")?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .context("make the mounts private")?;
    // The machine's /sys shows the machine's interfaces; a fresh one shows this network's.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("sysfs", "/sys", "sysfs", flags, None).context("mount /sys")?;
    rustix::mount::mount("bpf", "/sys/fs/bpf", "bpf", flags, None).context("mount /sys/fs/bpf")?;
    Ok(rustix::thread::gettid().as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_has_nothing_but_its_own_loopback_and_sys() {
        if let Err(reason) = crate::lab::available() {
            return crate::skipped(&reason);
        }
        let namespace = Namespace::new("alone").unwrap();
        let interfaces = namespace.run(|| {
            let names = std::fs::read_dir("/sys/class/net")
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            names.collect::<Vec<_>>()
        });
        assert_eq!(interfaces, ["lo"]);
        let pins = "/sys/fs/bpf/forebay-namespace-test";
        namespace.run(move || std::fs::create_dir(pins).unwrap());
        assert!(
            !std::path::Path::new(pins).exists(),
            "{pins} shows outside the namespace"
        );
        let outside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_ne!(
            namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()),
            outside
        );
    }

    #[test]
    fn processes_die_with_their_namespace() {
        if let Err(reason) = crate::lab::available() {
            return crate::skipped(&reason);
        }
        let namespace = Namespace::new("short").unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = namespace.spawn(command).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(namespace);
        crate::eventually("the process is gone", || {
            child.try_wait().unwrap().is_some()
        });
    }
}
