//! Starts the origin and the proxies, each with its settings in a folder that goes away.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ingress_lab::forebay::{Forebay, Launch};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Options,
    config::{self, Place},
};

/// A proxy under measurement; ends when dropped.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    process: Process,
}

enum Process {
    Forebay(Box<Forebay>),
    Other(Running),
}

/// A child process that is told to end, and waited for, when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Peer {
    /// Process id; its children do the work with nginx.
    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Forebay(forebay) => forebay.pid(),
            Process::Other(running) => running.0.id(),
        }
    }
}

/// What all proxies forward to.
pub(super) struct Origin {
    address: SocketAddr,
    _running: Running,
}

impl Origin {
    /// Starts it on a port that the kernel picks.
    pub(super) fn start(folder: &Path, pin: bool) -> Result<Self> {
        let address = free_address()?;
        let path = write(folder, "origin.conf", &config::origin(folder, address))?;
        let running = start(
            wrapper(pin, Core::Load)?,
            "nginx",
            &["-c".as_ref(), path.as_os_str()],
        )?;
        wait_for(address).context("the origin, an nginx")?;
        Ok(Self {
            address,
            _running: running,
        })
    }
}

/// Starts every proxy that is wanted and installed; the others come back as reasons.
pub(super) fn start_all(
    folder: &Path,
    origin: &Origin,
    options: &Options,
) -> Result<(Vec<Peer>, Vec<String>)> {
    let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()])?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    write(folder, "tls.crt", &chain)?;
    write(folder, "tls.key", &key)?;
    write(folder, "tls.pem", &format!("{chain}{key}"))?;
    let (mut peers, mut left_out) = (Vec::new(), Vec::new());
    for name in ["nginx", "forebay", "haproxy", "envoy"] {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted == name) {
            continue;
        }
        if name == "forebay" {
            peers.push(forebay(folder, origin, options)?);
            continue;
        }
        let program = if name == "envoy" {
            std::env::var_os("FOREBAY_ENVOY")
        } else {
            None
        };
        let program = program.unwrap_or_else(|| name.into());
        let Some(version) = version(Path::new(&program)) else {
            left_out.push(format!("{name}, which is not installed"));
            continue;
        };
        peers.push(other(
            name,
            Path::new(&program),
            version,
            folder,
            origin,
            options,
        )?);
    }
    Ok((peers, left_out))
}

fn forebay(folder: &Path, origin: &Origin, options: &Options) -> Result<Peer> {
    let manifests = folder.join("manifests");
    std::fs::create_dir(&manifests)?;
    write(&manifests, "bench.yaml", &config::manifests(origin.address))?;
    let mut launch = Launch::manifests(&manifests).args(&["--workers", "1"]);
    let wrapper = wrapper(!options.no_pin, Core::Proxy)?;
    if !wrapper.is_empty() {
        launch = launch.wrapped_by(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let forebay = launch.start()?;
    let (http, https) = (forebay.http_addr(), forebay.https_addr());
    let version = version(ingress_lab::forebay::binary()?).unwrap_or_default();
    Ok(Peer {
        name: "forebay",
        version,
        http,
        https,
        process: Process::Forebay(Box::new(forebay)),
    })
}

fn other(
    name: &'static str,
    program: &Path,
    version: String,
    folder: &Path,
    origin: &Origin,
    options: &Options,
) -> Result<Peer> {
    let (http, https) = (free_address()?, free_address()?);
    let place = Place {
        folder,
        http,
        https,
        origin: origin.address,
    };
    let (text, flags): (String, &[&str]) = match name {
        "nginx" => (config::nginx(&place), &["-c"]),
        "haproxy" => (config::haproxy(&place), &["-db", "-q", "-f"]),
        "envoy" => (
            config::envoy(&place),
            &[
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "-l",
                "off",
                "-c",
            ],
        ),
        _ => bail!("no settings for {name}"),
    };
    let path = write(
        folder,
        &format!("{name}.{}", if name == "envoy" { "yaml" } else { "conf" }),
        &text,
    )?;
    let mut arguments: Vec<&std::ffi::OsStr> = flags.iter().map(AsRef::as_ref).collect();
    arguments.push(path.as_os_str());
    let running = start(wrapper(!options.no_pin, Core::Proxy)?, program, &arguments)?;
    wait_for(http)
        .and_then(|()| wait_for(https))
        .with_context(|| format!("{name} with {text}"))?;
    Ok(Peer {
        name,
        version,
        http,
        https,
        process: Process::Other(running),
    })
}

/// Which core a process has.
#[derive(Clone, Copy)]
pub(super) enum Core {
    /// The one that is measured.
    Proxy,
    /// The load's and the origin's.
    Load,
}

/// The command that ties a process to a core; empty where there is one core, or no wish for it.
pub(super) fn wrapper(pin: bool, core: Core) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism()?.get();
    if !pin || cores < 2 {
        return Ok(Vec::new());
    }
    let number = match core {
        Core::Proxy => 0,
        Core::Load => cores - 1,
    };
    Ok(["taskset", "-c", &number.to_string()]
        .map(str::to_owned)
        .to_vec())
}

fn start(
    wrapper: Vec<String>,
    program: impl AsRef<Path>,
    arguments: &[&std::ffi::OsStr],
) -> Result<Running> {
    let mut words = wrapper.iter().map(Path::new).chain([program.as_ref()]);
    let mut command = Command::new(words.next().context("no program")?);
    command
        .args(words)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command
        .spawn()
        .with_context(|| format!("start {}", program.as_ref().display()))?;
    Ok(Running(child))
}

fn version(program: &Path) -> Option<String> {
    let flag = match program.file_name()?.to_str()? {
        "nginx" | "haproxy" => "-v",
        _ => "--version",
    };
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // The first word that has a number in it and dots: `nginx/1.22.1`, `2.6.12-1`, `0.1.0`.
    let number =
        |word: &&str| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
    text.split([' ', '/', '\n', '-', '+'])
        .find(number)
        .map(|word| word.chars().take(12).collect())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on {address} after 10 s");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
