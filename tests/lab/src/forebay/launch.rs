//! Builds the binary, and starts it with flags, variables and a place.

use std::{
    ffi::OsString,
    fs::Permissions,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, OnceLock},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Forebay, LIMIT, log::Log};
use crate::lab::Namespace;

/// Path of the binary under test.
///
/// `FOREBAY_BIN` wins; otherwise the workspace's binary of the running test's profile, brought up
/// to date by cargo once a process.
///
/// # Errors
/// cargo fails.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FOREBAY_BIN") {
        return Ok(path.into());
    }
    // target/PROFILE/deps/test-0123 or target/PROFILE/demo
    let running = std::env::current_exe()?;
    let folder = running
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("no target folder")?;
    let profile = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("no profile folder")?;
    let target = folder.parent().context("no target folder")?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // One set of features with what `cargo xtask` builds, so that neither undoes the other's
        // work.
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--exclude",
            "xtask",
            "--bin",
            "forebay",
            "--profile",
        ])
        .arg(if profile == "debug" { "dev" } else { profile })
        .arg("--target-dir")
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "cargo build of forebay: {status}");
    Ok(folder.join("forebay"))
}

/// Runs `forebay` with `args` to its end, for what ends by itself: wrong flags, `--help`.
///
/// # Errors
/// The binary cannot be built or started, or still runs after 20 s.
pub fn run_to_end<S: AsRef<str>>(args: &[S]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(args.iter().map(AsRef::as_ref));
    clean_environment(&mut command);
    let folder = socket_folder()?;
    command.env("FOREBAY_ADMIN_SOCKET", folder.path().join("admin.sock"));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(LIMIT) {
        Ok(output) => Ok(output?),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            bail!("forebay still ran after {LIMIT:?}")
        }
    }
}

/// How to start `forebay run`, `agent` or `proxy`.
#[derive(Debug)]
pub struct Launch {
    program: Option<PathBuf>,
    pub(super) args: Vec<OsString>,
    wrapper: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// Holds its admin socket.
    folder: Arc<TempDir>,
    pub(super) namespace: Option<Arc<Namespace>>,
}

impl Launch {
    /// `forebay run --log-format json ARGS`, with an admin socket of its own.
    ///
    /// # Panics
    /// When the temporary folder takes no new one.
    pub fn new<S: AsRef<str>>(args: &[S]) -> Self {
        Self::of("run", args)
    }

    /// `forebay COMMAND --log-format json ARGS`, likewise.
    ///
    /// # Panics
    /// When the temporary folder takes no new one.
    pub fn of<S: AsRef<str>>(command: &str, args: &[S]) -> Self {
        let args = [command, "--log-format", "json"]
            .into_iter()
            .chain(args.iter().map(AsRef::as_ref));
        Self {
            program: None,
            args: args.map(OsString::from).collect(),
            wrapper: vec![],
            environment: vec![],
            folder: Arc::new(socket_folder().unwrap_or_else(|error| {
                unreachable!("the temporary folder takes no new folder: {error}")
            })),
            namespace: None,
        }
    }

    /// Serves a folder of manifests on ports that the kernel picks.
    pub fn manifests(folder: &Path) -> Self {
        let mut launch = Self::new(&[
            "--http",
            "127.0.0.1:0",
            "--https",
            "127.0.0.1:0",
            "--manifests",
        ]);
        launch.args.push(folder.into());
        launch
    }

    /// Follows a cluster, on ports that the kernel picks.
    pub fn cluster(kubeconfig: &str) -> Self {
        Self::new(&[
            "--http",
            "127.0.0.1:0",
            "--https",
            "127.0.0.1:0",
            "--kubeconfig",
            kubeconfig,
        ])
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: &[S]) -> Self {
        self.args
            .extend(args.iter().map(|arg| OsString::from(arg.as_ref())));
        self
    }

    /// Where its admin socket will be.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs another copy of the binary than [`binary`].
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Starts it by another program, such as `setpriv --reuid 65534`, that ends in an exec.
    #[must_use]
    pub fn wrapped_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Starts it on a machine of the lab.
    #[must_use]
    pub fn within(mut self, namespace: &Arc<Namespace>) -> Self {
        self.namespace = Some(Arc::clone(namespace));
        self
    }

    /// Starts it and waits for `ready`.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; its log is in the error.
    pub fn start(self) -> Result<Forebay> {
        let mut forebay = self.start_unready()?;
        forebay.wait_for_ready()?;
        Ok(forebay)
    }

    /// Starts it and waits for nothing.
    ///
    /// # Errors
    /// The binary cannot be built or started.
    pub fn start_unready(self) -> Result<Forebay> {
        let log = Log::default();
        let running = Some(Running::start(&self, &log)?);
        Ok(Forebay {
            launch: self,
            log,
            running,
        })
    }

    fn command(&self) -> Result<Command> {
        let program = match &self.program {
            Some(program) => program,
            None => binary()?,
        };
        let mut words = self
            .wrapper
            .iter()
            .map(OsString::as_os_str)
            .chain([program.as_os_str()]);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).args(&self.args);
        clean_environment(&mut command);
        command.env("FOREBAY_ADMIN_SOCKET", self.admin_socket());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

/// A folder that a process under test can make its socket in, whatever user it runs as.
fn socket_folder() -> std::io::Result<TempDir> {
    let folder = TempDir::new()?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
    Ok(folder)
}

/// Keeps the caller's own settings away from the process under test.
fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("FOREBAY_") || name == "KUBECONFIG" || name == "RUST_LOG"
        }) {
            command.env_remove(name);
        }
    }
}

/// The child process and the thread that reads its log; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(launch: &Launch, log: &Log) -> Result<Self> {
        let mut command = launch.command()?;
        let child = match &launch.namespace {
            Some(namespace) => namespace.spawn(command),
            None => command.spawn(),
        };
        let mut child = child.context("start forebay")?;
        let stderr = child.stderr.take().context("stderr is a pipe")?;
        let log = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.push(line);
            }
            log.close();
        });
        Ok(Self {
            child,
            reader: Some(reader),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
