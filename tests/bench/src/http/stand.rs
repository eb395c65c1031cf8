//! What all proxies share: the origins, the certificate, the hosts, and a folder that goes away.

use std::{
    fs::{self, Permissions},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    child::{Core, Running, command, wrapper},
    config,
    row::Routes,
};

/// A small answer, 90 bytes with the end of its line.
const BODY: &str = "{\"id\":\"0123456789\",\"name\":\"a small answer, as most are\",\"price\":\"12.34\",\"stock\":\"567890\"}\n";

/// Length of the other answers, in bytes.
const MIDDLE: usize = 16 << 10;
const LARGE: usize = 1 << 20;

/// How long the origin's answer to a path is, in bytes.
pub(super) fn answer_length(path: &str) -> usize {
    match path {
        "/16k" | "/chunked" => MIDDLE,
        "/1m" => LARGE,
        _ => BODY.len(),
    }
}

/// Makes wrk ask the hosts in turn; names them as [`host`] does.
const HOSTS_LUA: &str = include_str!("hosts.lua");

/// Makes wrk send a body of 4 KiB with each request.
const POST_LUA: &str = "wrk.method = 'POST'\nwrk.body = string.rep('x', 4096)\n";

/// How many hosts [`Routes::Many`] are.
const MANY: usize = 10_000;

/// What the proxies stand on; ends when dropped.
pub(super) struct Stand {
    pub(super) origin: SocketAddr,
    pub(super) echo: SocketAddr,
    /// The certificate and its key, in PEM.
    pub(super) chain: String,
    pub(super) key: String,
    /// Whether each process has a core.
    pub(super) pin: bool,
    pub(super) nginx_buffering: bool,
    one_host: Vec<String>,
    many_hosts: Vec<String>,
    _running: [Running; 2],
    folder: TempDir,
}

impl Stand {
    /// Starts the origins on ports that the kernel picks.
    ///
    /// # Errors
    /// nginx is not installed, or the folder cannot be made.
    pub(super) fn start(pin: bool, nginx_buffering: bool) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for settings")?;
        // Workers of an nginx that root started are somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let made = rcgen::generate_simple_self_signed([crate::HOST.to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (name, text) in [
            ("tls.crt", chain.as_str()),
            ("tls.key", &key),
            ("tls.pem", &format!("{chain}{key}")),
            ("hosts.lua", HOSTS_LUA),
            ("post.lua", POST_LUA),
        ] {
            write(folder.path(), name, text.as_bytes())?;
        }
        let (origin, origin_running) = start_origin(folder.path(), pin)?;
        let (echo, echo_running) = start_echo(folder.path(), pin)?;
        Ok(Self {
            origin,
            echo,
            chain,
            key,
            pin,
            nginx_buffering,
            one_host: vec![crate::HOST.to_owned()],
            many_hosts: (0..MANY).map(host).collect(),
            _running: [origin_running, echo_running],
            folder,
        })
    }

    /// Where settings go, and where `tls.crt`, `tls.key` and `tls.pem` are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate of all proxies.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder().join("tls.crt")
    }

    /// The script that makes wrk ask the hosts in turn.
    pub(super) fn hosts_script(&self) -> PathBuf {
        self.folder().join("hosts.lua")
    }

    /// The script that makes wrk send bodies.
    pub(super) fn post_script(&self) -> PathBuf {
        self.folder().join("post.lua")
    }

    /// The hosts that a proxy has a route for.
    pub(super) fn hosts(&self, routes: Routes) -> &[String] {
        match routes {
            Routes::One => &self.one_host,
            Routes::Many => &self.many_hosts,
        }
    }
}

fn start_origin(folder: &Path, pin: bool) -> Result<(SocketAddr, Running)> {
    let own = folder.join("origin");
    let large = own.join("files");
    fs::create_dir_all(&large)?;
    write(&large, "16k", &[b'x'; MIDDLE])?;
    write(&large, "1m", &vec![b'x'; LARGE])?;
    let address = free_address()?;
    let settings = config::origin(&own, address, BODY, &large);
    let path = write(&own, "nginx.conf", settings.as_bytes())?;
    let mut nginx = command(&wrapper(pin, Core::Load)?, "nginx")?;
    let running = Running::start_listening(nginx.arg("-c").arg(path), &[address], &own)
        .context("start the origin, an nginx")?;
    Ok((address, running))
}

fn start_echo(folder: &Path, pin: bool) -> Result<(SocketAddr, Running)> {
    let address = free_address()?;
    let mut echo = command(&wrapper(pin, Core::Load)?, std::env::current_exe()?)?;
    echo.args(["program", "echo"]).arg(address.to_string());
    let running = Running::start_listening(&mut echo, &[address], folder)
        .context("start the origin of WebSockets")?;
    Ok((address, running))
}

/// The first of many is the one that the certificate is for.
fn host(number: usize) -> String {
    if number == 0 {
        crate::HOST.to_owned()
    } else {
        format!("h{number}.{}", crate::HOST)
    }
}

/// An address of loopback that nobody listens on.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Writes a file and returns its path.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
