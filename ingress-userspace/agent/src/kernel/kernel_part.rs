//! Installs the programs and maps, hands the workers' sockets over, and keeps the neighbours fresh.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ingress_ebpf::{
    abi::{Node, SelfNode, node_flags},
    verdict::Reason,
};
use tokio::time::{Instant, sleep};

use super::{
    attach,
    error::KernelError,
    load::Loaded,
    maps::{Maps, NamedNode, address},
    mode::{Forward, XdpMode},
    neighbour,
    netlink::{Interface, Netlink},
    pins::{Mark, Pins, mark_in_use},
    settings::NodeSettings,
    sockets::{self, WorkerSockets},
};

/// Pin of the sk_lookup link.
pub(super) const ASSIGN_LINK: &str = "assign_link";

/// Pins of the XDP links: this and the interface's name.
pub(super) const STEER_LINK: &str = "steer_link_";

/// How long an install waits for the peers' MAC addresses before it leaves the rest to
/// [`KernelPart::follow`].
const RESOLUTION: Duration = Duration::from_secs(2);

/// Flags of a peer whose frames may come unencapsulated.
const REACHED_BY_MAC: u16 = node_flags::L2 | node_flags::V4;

/// How often routes and neighbours are looked at again.
const REFRESH: Duration = Duration::from_secs(1);

/// The programs, maps and links as installed. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct KernelPart {
    mode: XdpMode,
    forward: Forward,
    /// The smallest MTU of the steered interfaces, in bytes.
    mtu: u32,
    peers: Vec<NamedNode>,
    maps: Mutex<Maps>,
    netlink: Netlink,
    /// Keeps other processes from taking the programs away.
    in_use: Mutex<Option<Mark>>,
}

impl KernelPart {
    /// Loads or updates programs, maps, links and routes, and resolves the peers' MAC addresses.
    ///
    /// Must run inside a tokio runtime with I/O and time enabled, in the network namespace of the
    /// node.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; what is already installed stays, and the next call continues from it. Whoever
    /// does without must [`withdraw`](super::withdraw) it: without sockets it drops connections.
    pub async fn install(settings: &NodeSettings) -> Result<Self, KernelError> {
        let nodes = settings.named_nodes()?;
        let netlink = Netlink::open()?;
        let mut interfaces = Vec::new();
        for name in &settings.interfaces {
            interfaces.push(netlink.interface(name).await?);
        }
        let this_node = settings.this_node(&nodes, &interfaces)?;
        settings.check_vips(&nodes, &netlink.addresses().await?)?;

        // During a rollout the process that this one replaces may still be installing: without the
        // lock, the two would fill one another's maps by turns.
        let pins = Pins::open(&settings.pin_dir)?;
        let _writer = pins.lock().await?;
        let in_use = mark_in_use(&settings.pin_dir)?;
        pins.verify()?;
        let mut loaded = Loaded::load(&pins)?;
        let mut maps = Maps::take(&mut loaded)?;

        let (own, peers): (Vec<_>, Vec<_>) = nodes
            .iter()
            .cloned()
            .partition(|node| node.id == this_node.id);
        // Ids are places in the list of names, so this one may have been a peer's: its MAC address
        // must go.
        for node in &own {
            maps.set_node(
                node.id,
                Node {
                    ip4: address(node.address),
                    ..Node::default()
                },
            )?;
        }
        let mtu = interfaces
            .iter()
            .map(|interface| interface.mtu)
            .min()
            .unwrap_or(1500);
        let kernel_part = Self {
            mode: settings.mode,
            forward: settings.forward,
            mtu,
            peers,
            maps: Mutex::new(maps),
            netlink,
            in_use: Mutex::new(Some(in_use)),
        };
        // Programs that an earlier process attached are running now, on these same maps. They see
        // each step; the new programs come last, when there is nothing left that they could miss.
        kernel_part.fill(settings, this_node, &nodes).await?;
        attach_all(&mut loaded, &pins, settings.mode, &interfaces)?;
        Ok(kernel_part)
    }

    /// This process serves by the programs no longer: they may be taken away.
    pub fn leave(&self) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        *in_use = None;
    }

    /// The mode of the XDP program.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Binds two listening, non-blocking sockets per worker, with an MSS that leaves room for
    /// encapsulation.
    ///
    /// # Errors
    ///
    /// An error of `socket`, `bind` or `listen`.
    pub fn bind_listeners(&self, workers: usize) -> io::Result<Vec<WorkerSockets>> {
        (0..workers).map(|_| sockets::bind(self.mtu)).collect()
    }

    /// Atomically switches the VIPs' new connections to these sockets, which are in worker order.
    ///
    /// Earlier sockets keep their connections; closing one removes it from the map.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] if the kernel refuses a socket; the earlier sockets then stay in use.
    pub fn register(&self, sockets: &[WorkerSockets]) -> Result<(), KernelError> {
        sockets::register(&mut self.maps(), sockets)
    }

    /// Frames and connections per [`Reason`] since the maps were created.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] if the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        self.maps().counters()
    }

    /// Keeps the next hops' MAC addresses fresh, until dropped.
    ///
    /// # Cancel safety
    ///
    /// Each update is a whole map value; dropping the future loses nothing.
    pub async fn follow(&self) {
        let mut unresolved = usize::MAX;
        loop {
            sleep(REFRESH).await;
            match self.refresh_peers().await {
                Ok(now) if now != unresolved && now > 0 => {
                    tracing::warn!(unresolved = now, "some nodes' MAC addresses are unknown");
                    unresolved = now;
                }
                Ok(now) => unresolved = now,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot refresh the nodes' MAC addresses"
                ),
            }
        }
    }

    /// Fills the maps in an order that leaves no reference without its target; the VIPs are last.
    async fn fill(
        &self,
        settings: &NodeSettings,
        this_node: SelfNode,
        nodes: &[NamedNode],
    ) -> Result<(), KernelError> {
        self.resolve_peers().await?;
        self.maps().set_members(this_node, nodes)?;
        self.maps().swap_table(nodes, settings.hash_seed)?;
        // Before `steer` knows them: a packet that it passes must find its address local, or the
        // kernel would route it away.
        for vip in &settings.vips {
            self.netlink.add_local(*vip).await?;
        }
        let gone = self.maps().set_vips(&settings.vips)?;
        for vip in gone {
            self.netlink.remove_local(vip).await?;
        }
        Ok(())
    }

    /// Waits for the peers' MAC addresses, for as long as is worth it.
    async fn resolve_peers(&self) -> Result<(), KernelError> {
        let deadline = Instant::now() + RESOLUTION;
        while self.refresh_peers().await? > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Writes how each peer is reached now; returns how many cannot be.
    async fn refresh_peers(&self) -> Result<usize, KernelError> {
        let nodes = neighbour::resolve(&self.netlink, &self.peers, self.forward).await?;
        let on_segment = nodes
            .iter()
            .filter(|(_, node)| node.flags & REACHED_BY_MAC == REACHED_BY_MAC);
        let mut maps = self.maps();
        maps.set_peer_macs(on_segment.map(|(id, node)| (node.mac, *id)))?;
        for (id, node) in &nodes {
            maps.set_node(*id, *node)?;
        }
        Ok(nodes
            .iter()
            .filter(|(_, node)| node.flags & node_flags::V4 == 0)
            .count())
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        // Each map value is written whole, so a panic elsewhere leaves nothing half done.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts `steer` on the interfaces and nowhere else, then `assign` on the network namespace.
///
/// `steer` first: it drops the SYNs that nobody would accept, and their clients try again. Without
/// it the kernel, or `assign`, would answer them with resets.
fn attach_all(
    loaded: &mut Loaded,
    pins: &Pins,
    mode: XdpMode,
    interfaces: &[Interface],
) -> Result<(), KernelError> {
    let pin_names: Vec<_> = interfaces
        .iter()
        .map(|interface| format!("{STEER_LINK}{}", interface.name))
        .collect();
    for (interface, pin_name) in interfaces.iter().zip(&pin_names) {
        attach::xdp(loaded.steer()?, interface, mode, &pins.path(pin_name))?;
        tracing::info!(interface = interface.name, mode = mode.name(), "steering");
    }
    pins.remove_other_links(STEER_LINK, &pin_names);
    attach::sk_lookup(loaded.assign()?, &pins.path(ASSIGN_LINK))
}
