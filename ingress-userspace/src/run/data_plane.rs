//! How connections reach the workers: by XDP and sk_lookup, or by plain sockets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinSet};

use super::{
    UsageError,
    handover::{self, Door},
    listener::{self, Address, Role},
};
use ingress_agent::kernel::{self, Dataplane, WorkerSockets};
use ingress_proxy::{
    metrics::{Kind, Registry},
    worker::{Listener, Transport},
};

use crate::{admin::DataPlaneStatus, config::RunConfig};

/// The listeners of the workers and, where VIPs are given, the kernel part in front of them.
pub(super) struct DataPlane {
    kernel: Option<Arc<Dataplane>>,
    /// Second descriptors of the sockets that the kernel is to hand connections to; gone once it
    /// does, so that a worker which closes its own ends the socket.
    unregistered: Vec<WorkerSockets>,
    listeners: Vec<Vec<Listener>>,
    addresses: Vec<Address>,
    /// Where the successor of this process gets the plain sockets that this one has taken over:
    /// closed until this one serves.
    doors: Vec<Door>,
    /// One for each door that waits, or that could not be made: how many successors serve by its
    /// sockets.
    successors: Vec<watch::Receiver<usize>>,
    waiting: JoinSet<()>,
    status: DataPlaneStatus,
    /// Why the virtual IPs that were asked for are not served here.
    refusal: Option<String>,
}

impl DataPlane {
    /// Decides before anything is served.
    ///
    /// Where BPF is refused, workers listen on plain sockets; status, metrics and log say so.
    ///
    /// # Errors
    /// A port is busy or may not be had, or flags do not go together.
    pub(super) async fn start(
        config: &RunConfig,
        workers: usize,
        metrics: &Registry,
    ) -> anyhow::Result<Self> {
        let nodes = config.nodes().map_err(UsageError::from)?;
        let mut data_plane = Self {
            kernel: None,
            unregistered: Vec::new(),
            listeners: (0..workers).map(|_| Vec::new()).collect(),
            addresses: Vec::new(),
            doors: Vec::new(),
            successors: Vec::new(),
            waiting: JoinSet::new(),
            status: DataPlaneStatus {
                mode: "sockets".to_owned(),
                degraded: None,
            },
            refusal: None,
        };
        if let Some(reason) = config.takes_no_part() {
            tracing::warn!(reason, "serving ordinary sockets, no virtual IPs");
            data_plane.status.degraded = Some(reason);
        } else if !config.vip.is_empty() {
            let seed = config.seed().map_err(UsageError::from)?;
            let settings = settings(config, nodes, seed);
            match data_plane.steer(&settings, workers).await {
                Ok(()) => data_plane.expose(metrics),
                Err(error) => {
                    let reason = format!("{error:#}");
                    tracing::error!(
                        error = reason,
                        "XDP is unavailable: workers listen on plain sockets"
                    );
                    data_plane.status.degraded = Some(reason.clone());
                    data_plane.refusal = Some(reason);
                }
            }
        }
        let (http, https) = data_plane.plain_addresses(config);
        for address in http {
            data_plane.listen(Role::Http, Transport::Plain, address)?;
        }
        for address in https {
            data_plane.listen(Role::Https, Transport::Tls, address)?;
        }
        Ok(data_plane)
    }

    /// Addresses for plain sockets: all of them without a kernel part, else those asked for by a
    /// flag.
    fn plain_addresses(&self, config: &RunConfig) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        if self.kernel.is_some() {
            return (config.http.clone(), config.https.clone());
        }
        let root = rustix::process::geteuid().is_root();
        (config.http_addresses(root), config.https_addresses(root))
    }

    /// Takes the sockets of the process that serves `address` now, or binds new ones.
    fn listen(
        &mut self,
        role: Role,
        transport: Transport,
        address: SocketAddr,
    ) -> Result<(), UsageError> {
        // A flag may name it twice: this process would ask itself for its sockets.
        let is_served = |own: &Address| own.role == role && own.address == address;
        if self.addresses.iter().any(is_served) {
            return Ok(());
        }
        let inheritance = handover::inherit(role, address).unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "cannot take over the listening sockets; connections waiting on the old process may be lost"
            );
            None
        });
        let (mut sockets, inherited) = inheritance.map_or_else(Default::default, |from| {
            tracing::info!(%address, sockets = from.sockets.len(), "took over the listening sockets");
            (from.sockets, Some(from.link))
        });
        listener::bind_shared(role, address, self.listeners.len(), &mut sockets)?;
        let bound = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok())
            .unwrap_or(address);
        self.addresses.push(Address {
            role,
            address: bound,
        });
        let follows = inherited.is_some();
        match Door::open(role, bound, &sockets, inherited) {
            Ok(door) if follows => self.doors.push(door),
            // Nobody else would answer, and this process may never come to serve.
            Ok(door) => self.wait(door),
            Err(error) => {
                tracing::warn!(%error, address = %bound, "cannot offer the listening sockets to a successor");
                // None will: whoever serves the address beside this process has other sockets.
                self.successors.push(watch::channel(0).1);
                let degraded =
                    format!("cannot offer the sockets of {bound} to a successor: {error}");
                self.status.degraded.get_or_insert(degraded);
            }
        }
        // More sockets than workers are left by a process that had more workers.
        let workers = self.listeners.len();
        for (number, socket) in sockets.into_iter().enumerate() {
            if let Some(listeners) = self.listeners.get_mut(number % workers) {
                listeners.push(Listener { socket, transport });
            }
        }
        Ok(())
    }

    async fn steer(&mut self, settings: &kernel::Settings, workers: usize) -> anyhow::Result<()> {
        let dataplane = Dataplane::install(settings).await?;
        let sockets = dataplane
            .bind_listeners(workers)
            .context("cannot bind the sockets for sk_lookup")?;
        let again = |socket: &TcpListener| socket.try_clone().context("cannot duplicate a socket");
        let unregistered = sockets.iter().map(|WorkerSockets { http, https }| {
            Ok(WorkerSockets {
                http: again(http)?,
                https: again(https)?,
            })
        });
        self.unregistered = unregistered.collect::<anyhow::Result<_>>()?;
        for (listeners, WorkerSockets { http, https }) in self.listeners.iter_mut().zip(sockets) {
            listeners.push(Listener {
                socket: http,
                transport: Transport::Plain,
            });
            listeners.push(Listener {
                socket: https,
                transport: Transport::Tls,
            });
        }
        for vip in &settings.vips {
            for (role, port) in [(Role::Http, 80), (Role::Https, 443)] {
                self.addresses.push(Address {
                    role,
                    address: SocketAddr::new(IpAddr::V4(*vip), port),
                });
            }
        }
        self.status.mode = format!("xdp-{}", dataplane.mode());
        self.kernel = Some(Arc::new(dataplane));
        Ok(())
    }

    /// The bound addresses.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    /// What `/status` shows.
    pub(super) fn status(&self) -> DataPlaneStatus {
        self.status.clone()
    }

    /// Why the virtual IPs that this node was asked for are not served here; `None` where all is as
    /// asked.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// One set of listeners for each worker, to which connections come from now on; the second call
    /// gives none.
    ///
    /// # Errors
    /// A port was taken by a process that shares it with nobody.
    pub(super) fn take_listeners(&mut self) -> std::io::Result<Vec<Vec<Listener>>> {
        let listeners = std::mem::take(&mut self.listeners);
        for listener in listeners.iter().flatten() {
            listener::listen(&listener.socket)?;
        }
        Ok(listeners)
    }

    /// Lets the kernel hand connections to the workers, which accept by now, and waits for a
    /// successor.
    ///
    /// # Errors
    /// The maps refuse the sockets.
    pub(super) fn serve(&mut self) -> Result<(), kernel::KernelError> {
        for door in std::mem::take(&mut self.doors) {
            self.wait(door);
        }
        let sockets = std::mem::take(&mut self.unregistered);
        self.kernel
            .as_ref()
            .map_or(Ok(()), |dataplane| dataplane.register(&sockets))
    }

    fn wait(&mut self, door: Door) {
        let (serving, successors) = watch::channel(0);
        self.successors.push(successors);
        self.waiting.spawn(async move {
            if let Err(error) = door.wait(serving).await {
                tracing::warn!(%error, "cannot wait for a successor");
            }
        });
    }

    /// Whether a successor serves all that this process serves, by the same sockets.
    pub(super) fn is_replaced(&self) -> bool {
        self.kernel.is_none()
            && !self.successors.is_empty()
            && self.successors.iter().all(|one| *one.borrow() > 0)
    }

    /// Passes no sockets on any more: the workers do not accept from them.
    pub(super) fn close_doors(&mut self) {
        self.waiting.abort_all();
    }

    /// Keeps the kernel's maps in step with the network, until dropped.
    pub(super) async fn follow(&self) {
        match &self.kernel {
            Some(dataplane) => dataplane.follow().await,
            None => std::future::pending().await,
        }
    }

    fn expose(&self, metrics: &Registry) {
        let Some(dataplane) = self.kernel.clone() else {
            return;
        };
        metrics.collect_with(Box::new(move |exposition| {
            let name = "forebay_steer_packets_total";
            exposition.family(
                name,
                Kind::Counter,
                "Packets by action of the XDP and sk_lookup programs and by reason.",
            );
            match dataplane.counters() {
                Ok(counters) => {
                    for (reason, count) in counters {
                        exposition.sample(
                            name,
                            &[("action", reason.action()), ("reason", reason.label())],
                            count,
                        );
                    }
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the BPF counters"
                ),
            }
        }));
    }
}

fn settings(
    config: &RunConfig,
    nodes: BTreeMap<String, Ipv4Addr>,
    hash_seed: u64,
) -> kernel::Settings {
    // The namespace's own list; /sys may show the interfaces of another.
    let present = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let interfaces = interfaces_of(&present, &config.xdp_interface);
    if interfaces != config.xdp_interface {
        tracing::info!(asked = ?config.xdp_interface, ?interfaces, "steering on the interfaces that this node has");
    }
    kernel::Settings {
        vips: config.vip.clone(),
        interfaces,
        mode: config.xdp_mode,
        forward: config.forward,
        node_name: config.node_name.clone().unwrap_or_default(),
        nodes,
        hash_seed,
        pin_dir: config.pin_dir.clone(),
    }
}

/// Those of the `asked` interfaces that `present`, the text of `/proc/net/dev`, lists; all of them
/// where it lists none, so that the kernel's answer names one.
fn interfaces_of(present: &str, asked: &[String]) -> Vec<String> {
    let names: Vec<_> = present
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    let found = asked.iter().filter(|name| names.contains(&name.as_str()));
    let found: Vec<_> = found.cloned().collect();
    if found.is_empty() {
        asked.to_vec()
    } else {
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_the_interfaces_that_it_has() {
        let present = "Inter-|   Receive\n face |bytes\n    lo:  1 2\n  eno1: 3 4\neth0.5:5 6\n";
        for (asked, taken) in [
            (&["eth0", "eno1"][..], &["eno1"][..]),
            (&["eth0.5", "eno1"], &["eth0.5", "eno1"]),
            (&["eth0"], &["eth0"]),
        ] {
            let asked: Vec<_> = asked.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(interfaces_of(present, &asked), taken, "{asked:?}");
        }
    }
}
