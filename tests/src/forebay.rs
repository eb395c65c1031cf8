//! The process under test: builds, starts, asks, stops and restarts the `forebay` binary.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{client, lab::Namespace};

/// Longest wait for `ready`, and for the end after a signal.
const LIMIT: Duration = Duration::from_secs(20);

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
    let folder = running.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("no target folder")?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("no profile folder")?;
    let target = folder.parent().context("no target folder")?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "ingress-userspace", "--bin", "forebay", "--profile"])
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
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
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

/// How to start `forebay run`.
#[derive(Debug)]
pub struct Launch {
    program: Option<PathBuf>,
    args: Vec<OsString>,
    wrapper: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<Arc<Namespace>>,
}

impl Launch {
    /// `forebay run --log-format json ARGS`.
    pub fn new<S: AsRef<str>>(args: &[S]) -> Self {
        let args = ["run", "--log-format", "json"].into_iter().chain(args.iter().map(AsRef::as_ref));
        Self {
            program: None,
            args: args.map(OsString::from).collect(),
            wrapper: vec![],
            environment: vec![],
            namespace: None,
        }
    }

    /// Serves a folder of manifests on ports that the kernel picks.
    pub fn manifests(folder: &Path) -> Self {
        let mut launch =
            Self::new(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--manifests"]);
        launch.args.push(folder.into());
        launch
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: &[S]) -> Self {
        self.args.extend(args.iter().map(|arg| OsString::from(arg.as_ref())));
        self
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
        Ok(Forebay { launch: self, log, running })
    }

    fn command(&self) -> Result<Command> {
        let program = match &self.program {
            Some(program) => program,
            None => binary()?,
        };
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).args(&self.args);
        clean_environment(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Keeps the caller's own settings away from the process under test.
fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("FOREBAY_") || name == "KUBECONFIG" || name == "RUST_LOG")
        {
            command.env_remove(name);
        }
    }
}

/// A running `forebay`; killed when dropped. Its log is printed if the test fails.
#[derive(Debug)]
pub struct Forebay {
    launch: Launch,
    log: Log,
    running: Option<Running>,
}

impl Forebay {
    /// Address of the first HTTP listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn http_addr(&self) -> SocketAddr {
        self.listener("http")
    }

    /// Address of the first HTTPS listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn https_addr(&self) -> SocketAddr {
        self.listener("https")
    }

    /// Address of the admin listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    fn listener(&self, name: &str) -> SocketAddr {
        self.log
            .find(|line| {
                let listening = line["message"] == "listening" && line["listener"] == name;
                if listening { line["address"].as_str()?.parse().ok() } else { None }
            })
            .unwrap_or_else(|| unreachable!("forebay logged no {name} listener:\n{}", self.log.text()))
    }

    /// Asks the admin address for `path`; returns status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        client::get(self.launch.namespace.as_deref(), self.admin(), path)
    }

    /// The answer of `/status`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn status(&self) -> Result<Value> {
        let (_, body) = self.ask("/status")?;
        serde_json::from_str(&body).with_context(|| format!("/status: {body}"))
    }

    /// The answer of `/routes`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn routes(&self) -> Result<Value> {
        let (_, body) = self.ask("/routes")?;
        serde_json::from_str(&body).with_context(|| format!("/routes: {body}"))
    }

    /// Sum over the samples of metric `name` whose labels hold every `label="value"` of `labels`;
    /// `None` when there is no such sample.
    ///
    /// # Errors
    /// No answer from `/metrics`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
        let (_, text) = self.ask("/metrics")?;
        Ok(sum(&text, name, labels))
    }

    /// Lines logged so far that are JSON, oldest first.
    pub fn log(&self) -> Vec<Value> {
        self.log.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything logged so far.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Process id.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or_else(|| unreachable!("forebay was stopped"), |running| running.child.id())
    }

    /// Waits for the line `ready`.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; its log is in the error.
    pub fn wait_for_ready(&mut self) -> Result<()> {
        let ready = self.log.wait_for(|line| line["message"] == "ready");
        ensure!(ready, "forebay is not ready:\n{}", self.log.text());
        Ok(())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<()> {
        let running = self.running.as_ref().context("forebay was stopped")?;
        Ok(kill_process(Pid::from_child(&running.child), Signal::TERM)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after 20 s.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut running = self.running.take().context("forebay was stopped")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = running.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "forebay still runs after {LIMIT:?}:\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again as it was started, after [`Forebay::kill`] or [`Forebay::wait`]; the log
    /// starts anew.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.running = None;
        self.log = Log::default();
        self.running = Some(Running::start(&self.launch, &self.log)?);
        self.wait_for_ready()
    }
}

impl Drop for Forebay {
    #[expect(clippy::print_stderr, reason = "the log of a failed test")]
    fn drop(&mut self) {
        self.running = None;
        if std::thread::panicking() {
            eprintln!("--- log of forebay {:?}\n{}---", self.launch.args, self.log.text());
        }
    }
}

/// The child process and the thread that reads its log; killed when dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    fn start(launch: &Launch, log: &Log) -> Result<Self> {
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
        Ok(Self { child, reader: Some(reader) })
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

/// What a process wrote to stderr, shared with the thread that reads it.
#[derive(Clone, Debug, Default)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    closed: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.change(|log| log.lines.push(line));
    }

    fn close(&self) {
        self.change(|log| log.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    fn text(&self) -> String {
        self.lines().into_iter().map(|line| line + "\n").collect()
    }

    fn find<T>(&self, find: impl Fn(&Value) -> Option<T>) -> Option<T> {
        self.lines().iter().find_map(|line| find(&serde_json::from_str(line).ok()?))
    }

    /// Waits for a line; `false` when the process closed its stderr or 20 s went by without it.
    fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        let deadline = Instant::now() + LIMIT;
        let mut log = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            for line in log.lines.iter().skip(seen) {
                if serde_json::from_str(line).is_ok_and(|line| wanted(&line)) {
                    return true;
                }
            }
            seen = log.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if log.closed || left.is_zero() {
                return false;
            }
            log = self.0.1.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sums samples of the Prometheus text format (version 0.0.4).
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut total = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])) else { continue };
        let wanted = |(label, value): &(&str, &str)| {
            let pair = format!("{label}=\"{value}\"");
            [format!("{{{pair}"), format!(",{pair}")].iter().any(|pair| rest.contains(pair))
        };
        if labels.iter().all(wanted)
            && let Some(value) = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok())
        {
            *total.get_or_insert(0.0) += value;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_whole_names_and_labels() {
        let text = "# TYPE a_total counter\na_total{w=\"0\",r=\"x\"} 1\na_total{w=\"1\",r=\"x\"} 2\na_totals 9\nb 3\n";
        for (name, labels, value) in [
            ("a_total", &[("r", "x")][..], Some(3.0)),
            ("a_total", &[("w", "1")], Some(2.0)),
            ("a_total", &[("w", "2")], None),
            ("b", &[], Some(3.0)),
            ("a", &[], None),
        ] {
            assert_eq!(sum(text, name, labels), value, "{name} {labels:?}");
        }
    }
}
