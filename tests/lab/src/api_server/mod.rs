//! A real Kubernetes API server with etcd and the controller manager, on a machine of the lab.
//!
//! No kubelet and no scheduler: nodes and pods do not exist, EndpointSlices are written by the
//! tests. Every process ends with the namespace, also when the test process is killed.

mod flags;
mod folder;

use std::{
    env, fmt,
    fs::{self, File},
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    mount::MountFlags,
    process::{Pid, Signal, kill_process},
};

use folder::Folder;

use crate::{
    client,
    lab::{self, Namespace},
};

/// Where pods of these tests listen: API servers refuse endpoints on 127.0.0.0/8.
pub const POD: Ipv4Addr = Ipv4Addr::new(198, 18, 20, 2);
/// Longest wait for a server to be ready; it takes 3 s on two idle cores.
const LIMIT: Duration = Duration::from_secs(90);

/// A running control plane; gone when dropped.
pub struct ApiServer {
    // In the order in which they are dropped: the processes, their machine, their files.
    manager: Child,
    server: Mutex<Option<Child>>,
    port: AtomicU16,
    etcd: Mutex<Option<Child>>,
    namespace: Arc<Namespace>,
    binaries: PathBuf,
    dir: Folder,
    nice: &'static str,
    kubeconfig: OnceLock<PathBuf>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer")
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}

/// Tells why this process cannot start an API server, if so.
///
/// # Errors
/// The reason, for a person.
pub fn available() -> Result<(), String> {
    lab::available()?;
    binaries().map(drop)
}

/// The folder with the Kubernetes binaries: `$KUBEBUILDER_ASSETS`. xtask alone looks for them and
/// builds them.
///
/// # Errors
/// The variable is not set; says what sets it.
pub fn binaries() -> Result<PathBuf, String> {
    let folder = env::var_os("KUBEBUILDER_ASSETS").ok_or(
        "KUBEBUILDER_ASSETS names no folder of Kubernetes binaries; \
         `cargo xtask test api` finds or builds them and sets it",
    )?;
    Ok(folder.into())
}

/// The top of the repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
}

impl ApiServer {
    /// The control plane that all tests of this process share; it ends with the process.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<Result<Arc<ApiServer>, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            Self::start()
                .map(Arc::new)
                .map_err(|error| format!("{error:#}"))
        });
        shared.clone().map_err(anyhow::Error::msg)
    }

    /// Starts etcd, the API server and the controller manager at once and waits until they are
    /// ready.
    ///
    /// # Errors
    /// A binary is missing, no namespace can be made, or the server is not ready in time; the error has its log.
    pub fn start() -> Result<Self> {
        Self::start_at(NORMAL)
    }

    /// As [`start`](Self::start), at the lowest priority: a process under measurement then shares its
    /// cores with the API server and etcd as little as if they ran on another machine.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_behind_all_others() -> Result<Self> {
        Self::start_at(LOWEST)
    }

    fn start_at(nice: &'static str) -> Result<Self> {
        let started = Instant::now();
        say("starting etcd, kube-apiserver and kube-controller-manager");
        let binaries = binaries().map_err(anyhow::Error::msg)?;
        let namespace = Arc::new(Namespace::new("cluster")?);
        namespace.up("lo")?;
        for address in [flags::MACHINE, POD] {
            namespace.address("lo", address, 32)?;
        }
        let dir = Folder::new()?;
        flags::write_credentials(dir.path())?;
        let machine = Machine {
            namespace: &namespace,
            binaries: &binaries,
            dir: dir.path(),
            nice,
        };
        let etcd = Mutex::new(Some(machine.start("etcd", &flags::etcd(dir.path()))?));
        let server = Mutex::new(Some(
            machine.start("kube-apiserver", &flags::server(dir.path(), flags::PORT))?,
        ));
        let manager = machine.start("kube-controller-manager", &flags::manager(dir.path()))?;
        let (port, kubeconfig) = (AtomicU16::new(flags::PORT), OnceLock::new());
        let running = Self {
            manager,
            server,
            port,
            etcd,
            namespace,
            binaries,
            dir,
            nice,
            kubeconfig,
        };
        running.wait_until_ready()?;
        say(&format!(
            "API server ready after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(running)
    }

    /// The machine it runs on; Forebay and pods of the test belong there too.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Kills the API server, as a crash would; etcd lives on.
    pub fn kill_server(&self) {
        kill(&self.server);
    }

    /// Kills etcd, as a crash would. The API server answers no more, or ends; start it again, too.
    pub fn kill_etcd(&self) {
        kill(&self.etcd);
    }

    /// Starts etcd again after [`kill_etcd`](Self::kill_etcd), with what it had stored.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn restart_etcd(&self) -> Result<()> {
        let child = self
            .machine()
            .start("etcd", &flags::etcd(self.dir.path()))?;
        *self.etcd.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    fn machine(&self) -> Machine<'_> {
        Machine {
            namespace: &self.namespace,
            binaries: &self.binaries,
            dir: self.dir.path(),
            nice: self.nice,
        }
    }

    /// Starts the API server again after [`kill_server`](Self::kill_server) and waits until it is
    /// ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_server(&self) -> Result<()> {
        self.start_server(flags::PORT, &[])
    }

    /// As [`restart_server`](Self::restart_server), but on a port that only
    /// [`kubectl`](Self::kubectl) knows: what is changed then has happened behind Forebay's back.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_server_hidden(&self) -> Result<()> {
        self.start_server(flags::HIDDEN_PORT, &[])
    }

    /// As [`restart_server`](Self::restart_server), but as a server that lists no objects on a
    /// watch: every release before 1.34 unless told otherwise.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_server_without_streaming_lists(&self) -> Result<()> {
        self.start_server(flags::PORT, &["--feature-gates=WatchList=false"])
    }

    /// Stops the API server where it stands: the kernel still accepts connections for it, and
    /// nothing answers, as when its machine was unplugged.
    ///
    /// # Errors
    /// There is no server, or it takes no signal.
    pub fn freeze_server(&self) -> Result<()> {
        self.signal_server(Signal::STOP)
    }

    /// Lets the API server go on after [`freeze_server`](Self::freeze_server).
    ///
    /// # Errors
    /// As there.
    pub fn thaw_server(&self) -> Result<()> {
        self.signal_server(Signal::CONT)
    }

    fn signal_server(&self, signal: Signal) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let child = server.as_ref().context("the API server does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    fn start_server(&self, port: u16, more: &[&str]) -> Result<()> {
        let mut flags = flags::server(self.dir.path(), port);
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let child = self.machine().start("kube-apiserver", &flags)?;
        self.port.store(port, Ordering::SeqCst);
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.wait_until_ready()
    }

    fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.load(Ordering::SeqCst))
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let url = format!("{}/readyz", self.address());
            let answer = client::curl_in(&self.namespace, &["--insecure", "--max-time", "5", &url]);
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = server
                .as_mut()
                .is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            drop(server);
            if ended || Instant::now() > deadline {
                bail!(
                    "API server is not ready (ended: {ended}):\n{}",
                    self.log("kube-apiserver")
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of a process's log.
    pub fn log(&self, name: &str) -> String {
        let text =
            fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// Asks etcd to forget every revision but the last, so that watches from before get 410.
    ///
    /// # Errors
    /// etcd does not answer as it should.
    pub fn compact(&self) -> Result<()> {
        let post = |path: &str, body: &str| {
            let url = format!("{}{path}", flags::ETCD);
            client::curl_in(&self.namespace, &["--data", body, &url]).and_then(|answer| {
                ensure!(
                    answer.status == 200,
                    "etcd {path}: {} {}",
                    answer.status,
                    answer.text()
                );
                answer.json::<serde_json::Value>()
            })
        };
        let range = post("/v3/kv/range", r#"{"key": "AA=="}"#)?;
        let revision = range["header"]["revision"]
            .as_str()
            .context("etcd names no revision")?
            .to_owned();
        post(
            "/v3/kv/compaction",
            &format!(r#"{{"revision": "{revision}", "physical": true}}"#),
        )
        .map(drop)
    }

    /// Runs kubectl as the administrator, with `stdin`, and returns what it prints.
    ///
    /// # Errors
    /// kubectl fails; its words are in the error.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        let mut command = Command::new(self.binaries.join("kubectl"));
        command.args(["--server", &self.address()]).args(args);
        command
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("HOME", self.dir.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.namespace.spawn(command).context("start kubectl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A kubectl that ends early says why itself.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {}: {errors}",
            args.join(" ")
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The kubeconfig of the administrator.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Creates or changes the objects of `manifests`.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            manifests,
        )
        .map(drop)
    }

    /// Deletes an object, such as `ingress/web`, and waits until it is gone.
    ///
    /// # Errors
    /// There is no such object.
    pub fn delete(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl(&["delete", "--namespace", namespace, object], "")
            .map(drop)
    }

    /// Applies `deploy/base/rbac.yaml` and gives the path of a kubeconfig with a token of its
    /// ServiceAccount.
    ///
    /// # Errors
    /// The file is refused, or no token is to be had.
    pub fn forebay_kubeconfig(&self) -> Result<PathBuf> {
        if let Some(path) = self.kubeconfig.get() {
            return Ok(path.clone());
        }
        let path = self.write_kubeconfig(&self.token()?)?;
        // Of two tests that come here at once, either's will do.
        Ok(self.kubeconfig.get_or_init(|| path).clone())
    }

    /// A kubeconfig with a token of a ServiceAccount that the test has made.
    ///
    /// # Errors
    /// No token is to be had.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        self.write_kubeconfig(&self.token_of(namespace, account)?)
    }

    fn write_kubeconfig(&self, token: &str) -> Result<PathBuf> {
        let mut file = tempfile::Builder::new()
            .prefix("forebay-")
            .suffix(".kubeconfig")
            .tempfile_in(self.dir.path())?;
        file.write_all(flags::kubeconfig(self.dir.path(), token).as_bytes())?;
        // Kept until the folder goes.
        Ok(file.into_temp_path().keep()?)
    }

    /// Puts the token of that ServiceAccount where the kubelet puts it in a pod, on this machine
    /// only, and gives the variables that a pod has.
    ///
    /// # Errors
    /// As [`forebay_kubeconfig`](Self::forebay_kubeconfig), or the place cannot be mounted.
    pub fn pod_credentials(&self) -> Result<[(&'static str, &'static str); 2]> {
        let (token, authority) = (self.token()?, fs::read(self.dir.path().join("server.crt"))?);
        self.namespace.run(move || -> Result<()> {
            rustix::mount::mount(
                "tmpfs",
                "/run",
                "tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV,
                None,
            )?;
            // `/var/run` is a link to `/run`.
            let folder = Path::new("/run/secrets/kubernetes.io/serviceaccount");
            fs::create_dir_all(folder)?;
            fs::write(folder.join("ca.crt"), authority)?;
            fs::write(folder.join("namespace"), "forebay-system")?;
            Ok(fs::write(folder.join("token"), token)?)
        })?;
        Ok([
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
        ])
    }

    /// A token of the ServiceAccount, after its rules were applied.
    fn token(&self) -> Result<String> {
        let rbac = fs::read_to_string(workspace().join("deploy/base/rbac.yaml"))?;
        self.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: forebay-system}\n")?;
        self.apply(&rbac)?;
        self.token_of("forebay-system", "forebay")
    }

    fn token_of(&self, namespace: &str, account: &str) -> Result<String> {
        let token = self.kubectl(&["create", "token", account, "--namespace", namespace], "")?;
        Ok(token.trim().to_owned())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        end(&mut self.manager);
        self.kill_server();
        self.kill_etcd();
    }
}

fn kill(process: &Mutex<Option<Child>>) {
    let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut child) = process.take() {
        end(&mut child);
    }
}

fn end(child: &mut Child) {
    // Fails when it has ended by itself, which is as good.
    let _ = child.kill();
    let _ = child.wait();
}

/// Priorities, as nice(1) takes them: added to that of this process.
const NORMAL: &str = "0";
const LOWEST: &str = "19";

/// Where processes are started.
struct Machine<'a> {
    namespace: &'a Namespace,
    binaries: &'a Path,
    dir: &'a Path,
    nice: &'static str,
}

impl Machine<'_> {
    fn start(&self, name: &str, flags: &[String]) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{name}.log")))?;
        // Set before the program starts: each of its threads has a priority of its own.
        let mut command = Command::new("nice");
        command
            .args(["-n", self.nice])
            .arg(self.binaries.join(name))
            .args(flags)
            .env("HOME", self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.namespace
            .spawn(command)
            .with_context(|| format!("start {name}"))
    }
}

#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
fn say(text: &str) {
    eprintln!("api server: {text}");
}
