//! A real Kubernetes API server with etcd and the controller manager, on a machine of the lab.
//!
//! No kubelet and no scheduler: nodes and pods do not exist, EndpointSlices are written by the tests.
//! Every process ends with the namespace, also when the test process is killed.

use std::{
    fmt,
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

use crate::{
    client,
    lab::{self, Namespace},
};

/// Where pods of these tests listen: API servers refuse endpoints on 127.0.0.0/8.
pub const POD: Ipv4Addr = Ipv4Addr::new(198, 18, 20, 2);
/// The machine's own address, which the API server announces.
const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 18, 20, 1);
/// The namespace is ours alone, so every port is free.
const PORT: u16 = 6443;
/// Where nobody but the administrator looks.
const HIDDEN_PORT: u16 = 6444;
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";
/// Longest wait for a server to be ready; it takes 3 s on two idle cores.
const LIMIT: Duration = Duration::from_secs(90);
/// What a namespace needs to come and go, and a ServiceAccount to be there.
const CONTROLLERS: [&str; 5] = [
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
];
/// Token of the administrator, who exists in this namespace only.
const ADMIN: &str = "administrator-of-one-test";

/// A running control plane; gone when dropped.
pub struct ApiServer {
    // In the order in which they are dropped: the processes, their machine, their files.
    manager: Option<Child>,
    server: Mutex<Option<Child>>,
    port: AtomicU16,
    etcd: Child,
    namespace: Arc<Namespace>,
    binaries: PathBuf,
    dir: Folder,
    kubeconfig: OnceLock<PathBuf>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("dir", &self.dir.path.as_path()).finish_non_exhaustive()
    }
}

/// Tells why this process cannot start an API server, if so.
///
/// # Errors
/// The reason, for a person.
pub fn available() -> Result<(), String> {
    lab::available()?;
    match binaries() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("no Kubernetes binaries; `cargo xtask setup` builds them".to_owned()),
        Err(error) => Err(format!("no Kubernetes binaries: {error:#}")),
    }
}

/// The folder with the binaries: `$KUBEBUILDER_ASSETS`, else the cache that `cargo xtask setup` fills.
fn binaries() -> Result<Option<PathBuf>> {
    let sums = workspace().join("tests/tools/kubernetes/go.sum");
    let output = Command::new("sha256sum").arg(&sums).output().context("run sha256sum")?;
    let hash = String::from_utf8_lossy(&output.stdout);
    let key = hash.get(..16).with_context(|| format!("no hash of {}", sums.display()))?;
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/forebay"));
    let xdg = || std::env::var_os("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("forebay"));
    let cache = std::env::var_os("FOREBAY_CACHE").map(PathBuf::from).or_else(xdg).or_else(home);
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let folders = given.into_iter().chain(cache.map(|cache| cache.join(format!("kubernetes-{key}"))));
    let whole = |folder: &PathBuf| ["etcd", "kube-apiserver", "kubectl"].iter().all(|name| folder.join(name).is_file());
    Ok({ folders }.find(whole))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

impl ApiServer {
    /// The control plane that all tests of this process share; it ends with the process.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<Result<Arc<ApiServer>, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map(Arc::new).map_err(|error| format!("{error:#}")));
        shared.clone().map_err(anyhow::Error::msg)
    }

    /// Starts etcd, the API server and the controller manager at once and waits until they are ready.
    ///
    /// # Errors
    /// A binary is missing, no namespace can be made, or the server is not ready in time; the error has its log.
    pub fn start() -> Result<Self> {
        let started = Instant::now();
        say("starting etcd, kube-apiserver and kube-controller-manager");
        let binaries = binaries()?.context("no Kubernetes binaries")?;
        let namespace = Arc::new(Namespace::new("cluster")?);
        namespace.up("lo")?;
        for address in [MACHINE, POD] {
            namespace.address("lo", address, 32)?;
        }
        let dir = Folder::new()?;
        write_credentials(dir.path.as_path())?;
        let machine = Machine { namespace: &namespace, binaries: &binaries, dir: dir.path.as_path() };
        let etcd = machine.start("etcd", &etcd_flags(dir.path.as_path()))?;
        let server = Mutex::new(Some(machine.start("kube-apiserver", &server_flags(dir.path.as_path(), PORT))?));
        // KUBEBUILDER_ASSETS of others may lack it; only default ServiceAccounts are missing then.
        let manager = match binaries.join("kube-controller-manager").is_file() {
            true => Some(machine.start("kube-controller-manager", &manager_flags(dir.path.as_path()))?),
            false => None,
        };
        let (port, kubeconfig) = (AtomicU16::new(PORT), OnceLock::new());
        let running = Self { manager, server, port, etcd, namespace, binaries, dir, kubeconfig };
        running.wait_until_ready()?;
        say(&format!("API server ready after {:.1} s", started.elapsed().as_secs_f64()));
        Ok(running)
    }

    /// The machine it runs on; Forebay and pods of the test belong there too.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Kills the API server, as a crash would; etcd lives on.
    pub fn kill_server(&self) {
        end(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Starts the API server again after [`kill_server`](Self::kill_server) and waits until it is ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_server(&self) -> Result<()> {
        self.start_server(PORT)
    }

    /// As [`restart_server`](Self::restart_server), but on a port that only [`kubectl`](Self::kubectl) knows:
    /// what is changed then has happened behind Forebay's back.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn restart_server_hidden(&self) -> Result<()> {
        self.start_server(HIDDEN_PORT)
    }

    fn start_server(&self, port: u16) -> Result<()> {
        let machine = Machine { namespace: &self.namespace, binaries: &self.binaries, dir: self.dir.path.as_path() };
        let child = machine.start("kube-apiserver", &server_flags(self.dir.path.as_path(), port))?;
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
            let ended = server.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            drop(server);
            if ended || Instant::now() > deadline {
                bail!("API server is not ready (ended: {ended}):\n{}", self.log("kube-apiserver"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of a process's log.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.path.as_path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// Asks etcd to forget every revision but the last, so that watches from before get 410.
    ///
    /// # Errors
    /// etcd does not answer as it should.
    pub fn compact(&self) -> Result<()> {
        let post = |path: &str, body: &str| {
            let url = format!("{ETCD}{path}");
            client::curl_in(&self.namespace, &["--data", body, &url]).and_then(|answer| {
                ensure!(answer.status == 200, "etcd {path}: {} {}", answer.status, answer.text());
                answer.json::<serde_json::Value>()
            })
        };
        let range = post("/v3/kv/range", r#"{"key": "AA=="}"#)?;
        let revision = range["header"]["revision"].as_str().context("etcd names no revision")?.to_owned();
        post("/v3/kv/compaction", &format!(r#"{{"revision": "{revision}", "physical": true}}"#)).map(drop)
    }

    /// Runs kubectl as the administrator, with `stdin`, and returns what it prints.
    ///
    /// # Errors
    /// kubectl fails; its words are in the error.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        let mut command = Command::new(self.binaries.join("kubectl"));
        command.args(["--server", &self.address()]).args(args);
        command
            .env("KUBECONFIG", self.dir.path.as_path().join("admin.kubeconfig"))
            .env("HOME", self.dir.path.as_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.spawn(command).context("start kubectl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A kubectl that ends early says why itself.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {errors}", args.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Creates or changes the objects of `manifests`.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests).map(drop)
    }

    /// Deletes an object, such as `ingress/web`, and waits until it is gone.
    ///
    /// # Errors
    /// There is no such object.
    pub fn delete(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl(&["delete", "--namespace", namespace, object], "").map(drop)
    }

    /// Applies `deploy/base/rbac.yaml` and gives the path of a kubeconfig with a token of its ServiceAccount.
    ///
    /// # Errors
    /// The file is refused, or no token is to be had.
    pub fn forebay_kubeconfig(&self) -> Result<PathBuf> {
        if let Some(path) = self.kubeconfig.get() {
            return Ok(path.clone());
        }
        let rbac = fs::read_to_string(workspace().join("deploy/base/rbac.yaml"))?;
        self.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: forebay-system}\n")?;
        self.apply(&rbac)?;
        let token = self.kubectl(&["create", "token", "forebay", "--namespace", "forebay-system"], "")?;
        let mut file =
            tempfile::Builder::new().prefix("forebay-").suffix(".kubeconfig").tempfile_in(self.dir.path.as_path())?;
        file.write_all(kubeconfig(self.dir.path.as_path(), token.trim()).as_bytes())?;
        // Kept until the folder goes. Of two tests that come here at once, either's will do.
        let path = file.into_temp_path().keep()?;
        Ok(self.kubeconfig.get_or_init(|| path).clone())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        end(&mut self.manager);
        self.kill_server();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // Fails when it has ended by itself, which is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A temporary folder that goes even when this process is killed: a shell waits for the end of a pipe that
/// nobody else holds.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    remover: Child,
}

impl Folder {
    fn new() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("forebay-api-server-").tempdir()?.keep();
        // The control plane's processes are killed at the same moment and may still write for another.
        let script = "cat >/dev/null; until rm -rf -- \"$0\"; do sleep 0.1; done 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own group: Ctrl-C is for the tests.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self { remover: command.spawn().context("start sh")?, path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

/// Where processes are started.
struct Machine<'a> {
    namespace: &'a Namespace,
    binaries: &'a Path,
    dir: &'a Path,
}

impl Machine<'_> {
    fn start(&self, name: &str, flags: &[String]) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let mut command = Command::new(self.binaries.join(name));
        command.args(flags).env("HOME", self.dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.namespace.spawn(command).with_context(|| format!("start {name}"))
    }
}

fn etcd_flags(dir: &Path) -> Vec<String> {
    vec![
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=default={ETCD_PEER}"),
    ]
}

fn server_flags(dir: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // Without it the server looks for an interface that has a default route.
        format!("--advertise-address={MACHINE}"),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", path("accounts.pub")),
        format!("--service-account-signing-key-file={}", path("accounts.key")),
        format!("--tls-cert-file={}", path("server.crt")),
        format!("--tls-private-key-file={}", path("server.key")),
        format!("--token-auth-file={}", path("tokens.csv")),
    ]
}

fn manager_flags(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", path("admin.kubeconfig")),
        format!("--service-account-private-key-file={}", path("accounts.key")),
        format!("--root-ca-file={}", path("server.crt")),
        "--leader-elect=false".into(),
        format!("--controllers={}", CONTROLLERS.join(",")),
        "--bind-address=127.0.0.1".into(),
        "--secure-port=10257".into(),
        format!("--cert-dir={}", path("manager")),
    ]
}

/// Writes the server's certificate, the key that signs tokens, and the administrator's kubeconfig.
fn write_credentials(dir: &Path) -> Result<()> {
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let server = rcgen::generate_simple_self_signed(names)?;
    fs::write(dir.join("server.crt"), server.cert.pem())?;
    fs::write(dir.join("server.key"), server.signing_key.serialize_pem())?;
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    fs::write(dir.join("tokens.csv"), format!("{ADMIN},admin,1,\"system:masters\"\n"))?;
    fs::write(dir.join("admin.kubeconfig"), kubeconfig(dir, ADMIN))?;
    Ok(())
}

fn kubeconfig(dir: &Path, token: &str) -> String {
    let authority = dir.join("server.crt");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{PORT}', certificate-authority: '{}'}}}}]\n\
         users: [{{name: test, user: {{token: '{token}'}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
        authority.display()
    )
}

#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
fn say(text: &str) {
    eprintln!("api server: {text}");
}
