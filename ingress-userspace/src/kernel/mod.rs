//! Keeps the kernel's half in step: programs, maps, links, routes, neighbours and the workers' sockets.
//!
//! [`Dataplane::install`]: `pins` → `load` → `maps` → `attach`; then `sockets` hand the workers' listeners over and
//! [`Dataplane::follow`] keeps `neighbour`s fresh. What was pinned outlives the process: a killed one is
//! replaced by running the same steps again.

mod error;

use std::{collections::BTreeMap, io, net::Ipv4Addr, net::TcpListener, path::PathBuf};

pub use error::KernelError;
pub use ingress_ebpf::verdict::Reason;

/// Where the XDP program runs. The mode asked for is the mode used, or an error: never silently another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, on any interface; slower.
    Generic,
}

/// How a packet travels to the node that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Inside UDP: through any network, 36 bytes longer.
    Udp,
    /// To the owner's MAC address where it is on the same segment, inside UDP elsewhere.
    L2,
}

/// What a node needs to know to take part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Virtual addresses; TCP ports 80 and 443 of each are served.
    pub vips: Vec<Ipv4Addr>,
    /// Interfaces to steer on, at most four. None: connections still reach the workers, nothing is steered.
    pub interfaces: Vec<String>,
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// How packets reach other nodes.
    pub forward: Forward,
    /// This node's name in `nodes`.
    pub node_name: String,
    /// Every node's name and address, this one's among them; the same on all nodes. Empty for a single node.
    pub nodes: BTreeMap<String, Ipv4Addr>,
    /// Directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
}

/// One worker's listening sockets, on loopback ports that nothing but `assign` leads to.
#[derive(Debug)]
pub struct WorkerSockets {
    /// Serves port 80 of the VIPs.
    pub http: TcpListener,
    /// Serves port 443 of the VIPs.
    pub https: TcpListener,
}

/// The installed data plane. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct Dataplane {
    mode: XdpMode,
}

impl Dataplane {
    /// Loads or updates programs, maps, links and routes, and resolves the peers' MAC addresses.
    ///
    /// Must run inside a tokio runtime with I/O and time enabled, in the network namespace of the node.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; what was installed until then stays and does no harm: the next call goes on from it.
    pub async fn install(_settings: &Settings) -> Result<Self, KernelError> {
        Err(KernelError::NoObject)
    }

    /// The mode of the XDP program.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Binds two listening, non-blocking sockets for each worker, with segments that survive encapsulation.
    ///
    /// # Errors
    ///
    /// Whatever the kernel answers to `socket`, `bind` or `listen`.
    pub fn bind_listeners(&self, _workers: usize) -> io::Result<Vec<WorkerSockets>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives the VIPs' new connections to these sockets, in the order of the workers, from one instant on.
    ///
    /// Sockets registered before keep what they have; they leave the map when they are closed.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where the kernel refuses a socket; the earlier sockets then stay in charge.
    pub fn register(&self, _sockets: &[WorkerSockets]) -> Result<(), KernelError> {
        Ok(())
    }

    /// How many frames and connections met each [`Reason`] since the maps were made.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where the kernel refuses to read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        Ok(Vec::new())
    }

    /// Keeps the next hops' MAC addresses fresh, until dropped.
    ///
    /// # Cancel safety
    ///
    /// Each update is a whole map value; dropping the future loses nothing.
    pub async fn follow(&self) {
        std::future::pending().await
    }
}
