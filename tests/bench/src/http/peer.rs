//! Starts a proxy with its settings, in a folder that goes away with it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ingress_lab::forebay::{Forebay, Launch};
use tempfile::TempDir;

use super::{
    child::{Core, Running, command, wrapper},
    config::{self, Place},
    proxy::Proxy,
    row::Routes,
    stand::{Stand, free_address, write},
};

/// A proxy under measurement; ends when dropped.
pub(super) struct Peer {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// Where it takes WebSockets; the copy loop cannot tell them from requests.
    pub(super) websocket: SocketAddr,
    process: Process,
    _folder: TempDir,
}

enum Process {
    Forebay {
        proxy: Box<Forebay>,
        /// Where the two are processes of their own.
        agent: Option<Box<Forebay>>,
    },
    Other(Running),
}

impl Peer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It does not, for 30 s.
    pub(super) fn start(proxy: Proxy, routes: Routes, stand: &Stand) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&proxy.to_string())
            .tempdir_in(stand.folder())?;
        if proxy == Proxy::Forebay {
            return forebay(routes, stand, folder);
        }
        let (http, https) = (free_address()?, free_address()?);
        let place = place(folder.path(), [http, https], routes, stand);
        let mut command = command(&wrapper(stand.pin, Core::Proxy)?, proxy.program()?)?;
        let mut websocket = http;
        match proxy {
            Proxy::CopyLoop => {
                websocket = https;
                command.args(["program", "copy-loop"]);
                command.args([
                    format!("{http}={}", stand.origin),
                    format!("{websocket}={}", stand.echo),
                ]);
            }
            Proxy::Nginx => settings(command.arg("-c"), &place, &config::nginx(&place))?,
            Proxy::Haproxy => {
                let (name, hosts) = config::host_map(place.hosts);
                write(place.folder, name, hosts.as_bytes())?;
                command.args(["-db", "-q", "-f"]);
                settings(&mut command, &place, &config::haproxy(&place))?;
            }
            Proxy::Envoy => {
                command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "off"]);
                settings(command.arg("-c"), &place, &config::envoy(&place))?;
            }
            Proxy::Forebay => unreachable!("started above"),
        }
        let running = Running::start_listening(&mut command, &[http, https], folder.path())
            .with_context(|| format!("start {proxy}"))?;
        Ok(Self {
            http,
            https,
            websocket,
            process: Process::Other(running),
            _folder: folder,
        })
    }

    /// Starts Forebay as two processes, as a pod has it: the one that serves gives up all its rights.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn start_two(routes: Routes, stand: &Stand) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("two")
            .tempdir_in(stand.folder())?;
        let manifests = manifests(routes, stand, &folder)?;
        let link = ["--link".to_owned(), shown(&folder.path().join("link"))];
        let agent = Launch::of("agent", &link)
            .args(&["--manifests".to_owned(), shown(&manifests)])
            .args(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(&["--metrics", "off"])
            .start_unready()?;
        let proxy = Launch::of("proxy", &link)
            .args(&["--workers", "1", "--metrics", "off"])
            .start()?;
        Ok(Self::of(proxy, Some(Box::new(agent)), folder))
    }

    fn of(proxy: Forebay, agent: Option<Box<Forebay>>, folder: TempDir) -> Self {
        let http = proxy.http_addr();
        Self {
            http,
            https: proxy.https_addr(),
            websocket: http,
            process: Process::Forebay {
                proxy: Box::new(proxy),
                agent,
            },
            _folder: folder,
        }
    }

    /// Ends it. Forebay by SIGTERM, at which a binary that counts what it does writes that down.
    ///
    /// # Errors
    /// Forebay does not end, or says that it failed.
    pub(super) fn end(self) -> Result<()> {
        if let Process::Forebay { proxy, agent } = self.process {
            for mut forebay in [Some(proxy), agent].into_iter().flatten() {
                forebay.terminate()?;
                let status = forebay.wait()?;
                ensure!(status.success(), "forebay ended with {status}");
            }
        }
        Ok(())
    }

    /// Process id; its children do the work with nginx.
    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Forebay { proxy, .. } => proxy.pid(),
            Process::Other(running) => running.pid(),
        }
    }
}

fn place<'a>(
    folder: &'a Path,
    [http, https]: [SocketAddr; 2],
    routes: Routes,
    stand: &'a Stand,
) -> Place<'a> {
    Place {
        folder,
        tls: stand.folder(),
        http,
        https,
        origin: stand.origin,
        echo: stand.echo,
        nginx_buffering: stand.nginx_buffering,
        hosts: stand.hosts(routes),
    }
}

/// Writes the file of settings and names it to the command.
fn settings(command: &mut Command, place: &Place<'_>, text: &str) -> Result<()> {
    // Envoy goes by the name's end, the others do not mind.
    command.arg(write(place.folder, "settings.yaml", text.as_bytes())?);
    Ok(())
}

fn forebay(routes: Routes, stand: &Stand, folder: TempDir) -> Result<Peer> {
    let manifests = manifests(routes, stand, &folder)?;
    let wrapper = wrapper(stand.pin, Core::Proxy)?;
    let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let forebay = Launch::manifests(&manifests)
        .args(&["--workers", "1"])
        .wrapped_by(&words)
        .start()?;
    Ok(Peer::of(forebay, None, folder))
}

/// Writes the manifests, and gives the folder in which nothing else is.
fn manifests(routes: Routes, stand: &Stand, folder: &TempDir) -> Result<PathBuf> {
    let nowhere = [SocketAddr::from(([127, 0, 0, 1], 0)); 2];
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests)?;
    let place = place(&manifests, nowhere, routes, stand);
    let text = config::manifests(&place, &stand.chain, &stand.key);
    write(place.folder, "bench.yaml", text.as_bytes())?;
    Ok(manifests)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
