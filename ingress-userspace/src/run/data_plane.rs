//! How connections reach the workers: by XDP and sk_lookup, or by plain sockets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    UsageError,
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
    status: DataPlaneStatus,
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
            status: DataPlaneStatus {
                mode: "sockets".to_owned(),
                degraded: None,
            },
        };
        if !config.vip.is_empty() {
            match data_plane.steer(&settings(config, nodes), workers).await {
                Ok(()) => data_plane.expose(metrics),
                Err(error) => {
                    let reason = format!("{error:#}");
                    tracing::error!(
                        error = reason,
                        "no XDP here: workers listen on plain sockets, nothing is steered"
                    );
                    data_plane.status.degraded = Some(reason);
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

    fn listen(
        &mut self,
        role: Role,
        transport: Transport,
        address: SocketAddr,
    ) -> Result<(), UsageError> {
        let sockets = listener::bind_shared(role, address, self.listeners.len())?;
        let bound = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok())
            .unwrap_or(address);
        self.addresses.push(Address {
            role,
            address: bound,
        });
        for (listeners, socket) in self.listeners.iter_mut().zip(sockets) {
            listeners.push(Listener { socket, transport });
        }
        Ok(())
    }

    async fn steer(&mut self, settings: &kernel::Settings, workers: usize) -> anyhow::Result<()> {
        let dataplane = Dataplane::install(settings).await?;
        let sockets = dataplane
            .bind_listeners(workers)
            .context("cannot bind sockets for the kernel to use")?;
        let again = |socket: &std::net::TcpListener| {
            socket.try_clone().context("cannot duplicate a socket")
        };
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

    /// One set of listeners for each worker; the second call gives none.
    pub(super) fn take_listeners(&mut self) -> Vec<Vec<Listener>> {
        std::mem::take(&mut self.listeners)
    }

    /// Lets the kernel hand connections to the workers, which accept by now.
    ///
    /// # Errors
    /// The maps refuse the sockets.
    pub(super) fn serve(&mut self) -> Result<(), kernel::KernelError> {
        let sockets = std::mem::take(&mut self.unregistered);
        self.kernel
            .as_ref()
            .map_or(Ok(()), |dataplane| dataplane.register(&sockets))
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
                "Packets by what the XDP and sk_lookup programs did, and why.",
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
                    "cannot read the kernel's counters"
                ),
            }
        }));
    }
}

fn settings(config: &RunConfig, nodes: BTreeMap<String, Ipv4Addr>) -> kernel::Settings {
    kernel::Settings {
        vips: config.vip.clone(),
        interfaces: config.xdp_interface.clone(),
        mode: config.xdp_mode,
        forward: config.forward,
        node_name: config.node_name.clone().unwrap_or_default(),
        nodes,
        hash_seed: config.hash_seed,
        pin_dir: config.pin_dir.clone(),
    }
}
