//! Prepares the programs and maps, goes live with the workers' sockets, and keeps the neighbours and
//! interfaces fresh.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ingress_ebpf::{
    abi::{
        self, ENCAP_PORT, Interfaces, Mac, Node, NodeCounters, SocketSet, VipCounters, node_flags,
        vip_flags,
    },
    reason::Reason,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    announce::{self, Place, Telling},
    attach,
    error::{KernelError, with_causes},
    links::{self, PinnedLink},
    load::Loaded,
    maps::{FilledUnit, InForce, Maps, SocketSets, addresses},
    mode::{Announce, Forward, XdpMode},
    neighbour::{self, Reached},
    netlink::{Interface, Netlink},
    pins::{Mark, Pins, Use, WriterGuard},
    settings::{NodeSettings, check_nodes, own, steered},
    sockets::{self, IpVersion, Sockets, WorkerSockets},
    sys::Hook,
};
use crate::membership::{Membership, NamedNode};

/// How long [`KernelPart::prepare`] waits for the peers' MAC addresses before it leaves the rest to
/// [`KernelPart::follow`].
const RESOLUTION: Duration = Duration::from_secs(2);

/// How often routes, neighbours and interfaces are looked at again.
const REFRESH: Duration = Duration::from_secs(1);

/// How long all packets of a node must have been steered by another table before it is said.
const COMPARISON: Duration = Duration::from_secs(5);

/// How long nobody must have answered for a node before it is said: it may be starting.
const SILENCE: Duration = Duration::from_secs(5);

/// What other nodes' packets were steered by.
#[derive(Debug)]
struct Skew {
    since: Instant,
    /// As they were then.
    counters: BTreeMap<String, NodeCounters>,
    /// One whose table was another, in the time before.
    node: Option<String>,
}

/// The programs, maps and links of this process. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct KernelPart {
    settings: NodeSettings,
    /// The smallest MTU of the steered interfaces, in bytes.
    mtu: u32,
    installed: Mutex<Installed>,
    netlink: Netlink,
    pins: Pins,
    /// Whether a future of this process has the lock of the writers, and waits for something.
    is_writing: AtomicBool,
    /// Keeps other processes from taking the programs away.
    in_use: Mutex<Option<Mark>>,
    /// Keeps other processes from taking the virtual IPs away.
    _connections: Mark,
    condition: watch::Sender<Option<String>>,
    announced: watch::Sender<Vec<Announced>>,
    skew: Mutex<Skew>,
    /// Since when there has been a peer that nobody answers for.
    silence: Mutex<Option<Instant>>,
    /// Keeps the port of packets between nodes from other sockets; `None` where one has it.
    _encap_port: Option<UdpSocket>,
}

/// Who announces a virtual IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The virtual IP.
    pub vip: IpAddr,
    /// Name of the node.
    pub node: String,
    /// Whether it is this node.
    pub is_here: bool,
}

/// What this process has in the kernel.
#[derive(Debug)]
struct Installed {
    /// Kept: an interface that is made anew needs its program again.
    programs: Loaded,
    maps: Maps,
    interfaces: Interfaces,
    /// Who shares the virtual IPs, by the unit of this process.
    view: View,
    /// The same as it is since another process has taken over.
    noted: Option<View>,
    /// Number of this process' unit, once it is live: another process that goes live has another.
    fill: Option<u32>,
    /// The slots of the workers' sockets, once it is live.
    sets: Option<SocketSets>,
    /// How the other nodes are reached.
    reached: Reached,
    /// Every MAC address by which one was reached: a frame from one that has moved may still come.
    peer_macs: BTreeSet<[u8; 6]>,
    /// Index of each interface that is steered on, by its name.
    live: BTreeMap<String, u32>,
    /// How often the link of each had come up.
    ups: BTreeMap<String, u32>,
    /// The virtual IPs that this node announces, by the unit of this process.
    own_vips: BTreeSet<IpAddr>,
    telling: Telling,
    /// Leaves every virtual IP to others.
    is_silent: bool,
}

/// The lock of the writers, and that this process has it.
struct Writer<'a> {
    _guard: WriterGuard,
    is_writing: &'a AtomicBool,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.is_writing.store(false, Ordering::Relaxed);
    }
}

/// The nodes, seen from one of them.
#[derive(Clone, Debug)]
struct View {
    membership: Membership,
    own: NamedNode,
}

impl View {
    fn new(membership: &Membership, own_name: &str) -> Result<Self, KernelError> {
        Ok(Self {
            own: own(membership, own_name)?.clone(),
            membership: membership.clone(),
        })
    }

    /// The other nodes that there are.
    fn peers(&self) -> impl Iterator<Item = &NamedNode> {
        let nodes = self.membership.nodes.values();
        nodes.filter(|node| node.id != self.own.id && !node.is_gone)
    }
}

impl Installed {
    /// Notes how each peer is reached now.
    fn learn(&mut self, reached: Reached) {
        let macs = reached.nodes.iter();
        let macs = macs.filter_map(|(_, node)| neighbour::mac_on_segment(node));
        self.peer_macs.extend(macs);
        self.reached = reached;
    }

    /// Puts a unit in force, if there is a new one, with the peers' MAC addresses.
    fn flip(&mut self, unit: Option<FilledUnit>) -> Result<(), KernelError> {
        // First: who is no peer yet sends no frames.
        self.maps.set_peer_macs(self.peer_macs.iter().copied())?;
        if let Some(unit) = unit {
            self.maps.flip(unit)?;
            self.fill = Some(unit.fill);
        }
        Ok(())
    }

    fn write_peers(&mut self) -> Result<(), KernelError> {
        self.maps.set_peer_macs(self.peer_macs.iter().copied())?;
        for (id, node) in &self.reached.nodes {
            self.maps.set_node(*id, *node)?;
        }
        Ok(())
    }
}

impl KernelPart {
    /// Loads programs and maps, takes the interfaces, and resolves the other nodes' MAC addresses,
    /// without a change for any packet.
    ///
    /// An interface without a program of ours gets one that lets all pass: so whatever refuses it is
    /// found out now, and going live is an update of a link. Must run inside a tokio runtime with I/O
    /// and time enabled, in the network namespace of the node.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; what is there already stays, and the next call continues from it. Whoever
    /// does without must [`withdraw`](super::withdraw) it: what an earlier process left drops
    /// connections.
    pub async fn prepare(settings: &NodeSettings) -> Result<Self, KernelError> {
        let view = View::new(&settings.membership, &settings.node_name)?;
        let netlink = Netlink::open()?;
        let mut interfaces = Vec::new();
        for name in &settings.interfaces {
            interfaces.push(netlink.interface(name).await?);
        }
        let steered = steered(&interfaces)?;
        settings.check_vips(&netlink.addresses().await?)?;

        // During a rollout the process that this one replaces may still be preparing: without the
        // lock, the two would fill one another's maps by turns.
        let pins = Pins::open(&settings.pin_dir)?;
        let _writer = pins.lock().await?;
        let in_use = pins.mark_in_use(Use::Steering)?;
        let connections = pins.mark_in_use(Use::Connections)?;
        pins.make_place_of_maps()?;
        pins.verify()?;
        let are_maps_new = !pins.has_all_maps();
        let mut programs = Loaded::load(&pins)?;
        let maps = Maps::take(&mut programs)?;
        reserve(
            &mut programs,
            &pins,
            settings.mode,
            &interfaces,
            are_maps_new,
        )?;

        let mtu = interfaces
            .iter()
            .map(|interface| interface.mtu)
            .min()
            .unwrap_or(1500);
        let kernel_part = Self {
            settings: settings.clone(),
            mtu,
            installed: Mutex::new(Installed {
                programs,
                maps,
                interfaces: steered,
                view: view.clone(),
                noted: None,
                fill: None,
                sets: None,
                reached: Reached::default(),
                peer_macs: BTreeSet::new(),
                live: BTreeMap::new(),
                ups: BTreeMap::new(),
                own_vips: BTreeSet::new(),
                telling: Telling::new(settings.announce == Announce::L2),
                is_silent: false,
            }),
            netlink,
            pins,
            is_writing: AtomicBool::new(false),
            in_use: Mutex::new(Some(in_use)),
            _connections: connections,
            condition: watch::Sender::new(None),
            announced: watch::Sender::new(Vec::new()),
            _encap_port: sockets::reserve_port()
                .inspect_err(|error| {
                    tracing::warn!(
                        %error,
                        port = ENCAP_PORT,
                        "cannot reserve the UDP port of packets between nodes; a socket that has it hears nothing from others"
                    );
                })
                .ok(),
            silence: Mutex::new(None),
            skew: Mutex::new(Skew {
                since: Instant::now(),
                counters: BTreeMap::new(),
                node: None,
            }),
        };
        let reached = kernel_part.resolve_in_time(&view).await?;
        kernel_part.learn(reached);
        kernel_part.warn_of_questions();
        Ok(kernel_part)
    }

    /// Says it where this node's own questions would lead neighbours astray.
    fn warn_of_questions(&self) {
        let is_announced = self.settings.announce == Announce::L2;
        if !is_announced || !self.settings.vips.iter().any(IpAddr::is_ipv4) {
            return;
        }
        for interface in &self.settings.interfaces {
            if announce::asks_as_any(interface) {
                tracing::warn!(
                    interface,
                    "this node may ask for its neighbours in the name of a virtual IP, which they then \
                     take to be here; set net.ipv4.conf.all.arp_announce=2"
                );
            }
        }
    }

    /// This process serves by the programs no longer: they may be taken away.
    pub fn leave(&self) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        *in_use = None;
    }

    /// No new connection comes to this process' sockets from now on, while those in their queues and
    /// handshakes that have begun can be accepted. `steer` drops the first packet of a new one, whose
    /// client tries again. `false` where another process has them.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`], [`KernelError::PinDirectory`].
    pub fn stop(&self) -> Result<bool, KernelError> {
        let writer = self.pins.try_lock()?;
        // Another process that has the lock is about to take them. This one's own may have it at the time
        // to look at neighbours, and waits for the kernel.
        if writer.is_none() && !self.is_writing.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if self.is_superseded()? {
            return Ok(false);
        }
        let mut installed = self.installed();
        let Some(sets) = installed.sets.take() else {
            return Ok(false);
        };
        // The slots stay taken: the next process takes others.
        let emptied = sets.map(|set| SocketSet { count: 0, ..set });
        installed.maps.set_socket_sets(emptied)?;
        Ok(true)
    }

    /// Leaves the virtual IPs that this node announces to others, if there are any: for a process that ends
    /// where they take over by themselves. What was pinned answers for them no more.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`], [`KernelError::PinDirectory`].
    pub fn stop_announcing(&self) -> Result<(), KernelError> {
        let writer = self.pins.try_lock()?;
        let is_others = writer.is_none() && !self.is_writing.load(Ordering::Relaxed);
        if is_others || !self.was_live() || self.is_superseded()? {
            return Ok(());
        }
        let mut installed = self.installed();
        installed.is_silent = true;
        self.announce(&mut installed)
    }

    fn writer(&self, guard: WriterGuard) -> Writer<'_> {
        self.is_writing.store(true, Ordering::Relaxed);
        Writer {
            _guard: guard,
            is_writing: &self.is_writing,
        }
    }

    fn is_left(&self) -> bool {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.is_none()
    }

    /// The mode of the XDP program.
    pub fn mode(&self) -> XdpMode {
        self.settings.mode
    }

    /// Why frames are not steered as asked, as it changes; `None` while all is well.
    pub fn condition(&self) -> watch::Receiver<Option<String>> {
        self.condition.subscribe()
    }

    /// Who announces which virtual IP, as it changes; nobody does where [`Announce::None`] is asked for.
    pub fn announced(&self) -> watch::Receiver<Vec<Announced>> {
        self.announced.subscribe()
    }

    /// The node that announces a virtual IP, as this node sees it.
    fn announcer<'a>(&self, installed: &'a Installed, vip: IpAddr) -> Option<&'a NamedNode> {
        if self.settings.announce == Announce::None {
            return None;
        }
        let View { membership, own } = &installed.view;
        let except = installed.is_silent.then_some(own.id).into_iter();
        membership.announcer(vip, self.settings.hash_seed, &except.collect())
    }

    /// The virtual IPs, and what the programs do with questions for them.
    fn vips(&self, installed: &Installed) -> Vec<(IpAddr, u16)> {
        let flags = |vip: &IpAddr| match self.announcer(installed, *vip) {
            None => 0,
            Some(node) if node.id == installed.view.own.id => vip_flags::ANNOUNCED,
            Some(_) => vip_flags::ELSEWHERE,
        };
        let vips = self.settings.vips.iter();
        vips.map(|vip| (*vip, flags(vip))).collect()
    }

    /// Has the programs answer for what this node announces by now, and for nothing else.
    fn announce(&self, installed: &mut Installed) -> Result<(), KernelError> {
        let vips = self.vips(installed);
        if installed.maps.flags_differ(&vips)? {
            installed.maps.set_vips(&vips)?;
        }
        self.note_announced(installed);
        Ok(())
    }

    /// Notes who announces what by now, and has neighbours told of what has come here.
    fn note_announced(&self, installed: &mut Installed) {
        let own = installed.view.own.id;
        let mut announced = Vec::new();
        for vip in &self.settings.vips {
            if let Some(node) = self.announcer(installed, *vip) {
                announced.push(Announced {
                    vip: *vip,
                    node: node.name.clone(),
                    is_here: node.id == own,
                });
            }
        }
        let here = announced.iter().filter(|announced| announced.is_here);
        let here: BTreeSet<_> = here.map(|announced| announced.vip).collect();
        let before = std::mem::replace(&mut installed.own_vips, here.clone());
        let new: Vec<_> = here.difference(&before).copied().collect();
        installed.telling.keep(&here);
        installed.telling.begin(new, Instant::now());
        self.announced.send_if_modified(|told| {
            let is_new = *told != announced;
            if is_new {
                for Announced { vip, node, is_here } in &announced {
                    if !told
                        .iter()
                        .any(|told| told.vip == *vip && told.node == *node)
                    {
                        tracing::info!(%vip, node, is_here, "announced");
                    }
                }
                *told = announced;
            }
            is_new
        });
    }

    /// Says what is to be said to neighbours by now, and has them heard.
    async fn tell_neighbours(&self) -> Result<(), KernelError> {
        let due = self.installed().telling.take_due(Instant::now());
        if due.is_empty() {
            return Ok(());
        }
        // Of the virtual IPs' networks, one may be a VLAN of an interface: there frames are tagged.
        let (all, networks) = (
            self.netlink.interfaces().await?,
            self.netlink.networks().await?,
        );
        let mut installed = self.installed();
        let steered = installed.interfaces.0;
        let steered = steered.iter().filter(|one| one.index != 0);
        let mac_of = |index| steered.clone().find(|one| one.index == index);
        for vip in due {
            let vlans = all.values().filter_map(|interface| {
                let parent = mac_of(interface.vlan_of?.0)?;
                let is_in = |network: &&super::announce::Network| {
                    network.interface == interface.index && network.contains(vip)
                };
                networks.iter().find(is_in)?;
                Some((interface.index, parent.mac.bytes()))
            });
            let places = steered.clone().map(|one| (one.index, one.mac.bytes()));
            let places: Vec<Place> = places.chain(vlans).collect();
            installed.telling.hear(vip, &places);
            installed.telling.say(vip, &places);
        }
        Ok(())
    }

    /// The same where it is no failure of whoever calls: it is tried again.
    async fn try_to_tell(&self) {
        if let Err(error) = self.tell_neighbours().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell neighbours of virtual IPs"
            );
        }
    }

    /// Binds two listening, non-blocking sockets per worker, for virtual IPs of this version, with an
    /// MSS that leaves room for encapsulation.
    ///
    /// # Errors
    ///
    /// An error of `socket`, `bind` or `listen`.
    pub fn bind_listeners(
        &self,
        workers: usize,
        version: IpVersion,
    ) -> io::Result<Vec<WorkerSockets>> {
        // A client's packet goes on to its owner by whichever interface leads there, steered or not.
        let to_peers = self
            .installed()
            .reached
            .nodes
            .iter()
            .map(|(_, node)| node.mtu)
            .min();
        let mtu = to_peers.map_or(self.mtu, |mtu| self.mtu.min(u32::from(mtu)));
        (0..workers).map(|_| sockets::bind(mtu, version)).collect()
    }

    /// The versions of the virtual IPs: the workers need sockets of each.
    pub fn versions(&self) -> impl Iterator<Item = IpVersion> {
        let vips = &self.settings.vips;
        let is_there = |version: &IpVersion| vips.iter().any(|vip| IpVersion::of(*vip) == *version);
        IpVersion::ALL.into_iter().filter(is_there)
    }

    /// Gives the VIPs' new connections to these sockets, which are in worker order, and puts this
    /// process' programs in the place of those that run.
    ///
    /// No packet meets a gap: sockets before programs, routes before VIPs, and each link is updated
    /// at once. Earlier sockets keep their connections; closing one removes it from the map. May be
    /// called again, with other sockets.
    ///
    /// # Errors
    ///
    /// [`KernelError`]; connections go where they went before. The next call, by whomever, goes
    /// through all steps again. [`KernelError::Detached`] where somebody has taken back what this
    /// process was live by.
    pub async fn go_live(&self, sockets: &Sockets) -> Result<(), KernelError> {
        let _writer = self.writer(self.pins.lock().await?);
        // Nobody would find maps without pins: nothing would be kept fresh, and the next process would
        // begin with others.
        if !self.installed().maps.are_pinned(&self.pins)? {
            return Err(KernelError::Detached);
        }
        let (before, fill) = {
            let installed = self.installed();
            (installed.maps.in_force()?, installed.fill)
        };
        let live = self
            .put_in_force(|maps| sockets::register(maps, sockets))
            .await;
        if live.is_err() {
            // Another process may serve as before, unless its connections are led to sockets that
            // nobody is going to accept from.
            self.installed().fill = fill;
            if let Err(error) = self.give_back(&before).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot put back what was in force"
                );
            }
        }
        live?;
        // What is left over from here on harms nobody.
        self.try_to_tell().await;
        self.forget_others().await;
        if let Err(error) = self.pins.remove_other_schemas() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove the maps of another version"
            );
        }
        Ok(())
    }

    /// Whether this process has been live, by whatever is there now.
    pub fn was_live(&self) -> bool {
        self.installed().fill.is_some()
    }

    /// Has the kernel keep no neighbour fresh that leads to no peer.
    async fn forget_others(&self) {
        let peers: Vec<_> = self.installed().view.peers().cloned().collect();
        if let Err(error) = neighbour::forget_others(&self.netlink, &peers).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot have the kernel forget former next hops"
            );
        }
    }

    /// The steps of [`Self::go_live`] that packets notice.
    async fn put_in_force(
        &self,
        give_connections: impl FnOnce(&mut Maps) -> Result<SocketSets, KernelError>,
    ) -> Result<(), KernelError> {
        let mut interfaces = Vec::new();
        for name in &self.settings.interfaces {
            interfaces.push(self.netlink.interface(name).await?);
        }
        let steered = steered(&interfaces)?;
        let view = self.installed().view.clone();
        self.learn(self.resolve(&view).await?);
        let unit = self.fill()?;
        // Where the programs that run read the same maps, this alone is the hand-over of the workers.
        let sets = give_connections(&mut self.installed().maps)?;
        let vips = self.vips(&self.installed());
        self.serve(&vips).await?;
        let mut installed = self.installed();
        // Table, nodes, own id and keys, at once.
        installed.flip(unit)?;
        // Right before the programs: one that still runs on another interface knows its frames until
        // now.
        installed.maps.set_interfaces(steered)?;
        installed.interfaces = steered;
        self.attach(&mut installed, &interfaces)?;
        installed.sets = Some(sets);
        let ups = interfaces.into_iter();
        installed.ups = ups.map(|one| (one.name, one.ups)).collect();
        // Neighbours are told again, whoever was here before.
        installed.own_vips.clear();
        self.note_announced(&mut installed);
        Ok(())
    }

    /// Serves these virtual IPs, with their flags, and no others.
    async fn serve(&self, vips: &[(IpAddr, u16)]) -> Result<(), KernelError> {
        // Before `steer` knows them: a packet that it passes must find its address local, or the
        // kernel would route it away.
        for (vip, _) in vips {
            self.netlink.add_local(*vip).await?;
        }
        self.installed().maps.set_vips(vips)?;
        // A virtual IP that the maps forgot but the kernel still takes for local would answer with
        // resets. Asked of the kernel, since a process may have ended between the two steps.
        for vip in self.netlink.own_local().await? {
            if !vips.iter().any(|(served, _)| *served == vip) {
                self.netlink.remove_local(vip).await?;
            }
        }
        Ok(())
    }

    /// Puts back what was in force before, if anything was.
    async fn give_back(&self, before: &InForce) -> Result<(), KernelError> {
        if !before.is_anything() {
            return Ok(());
        }
        self.installed().maps.put_back(before)?;
        self.serve(&before.vips).await
    }

    /// Fills a unit for this process, unless its own is in force.
    fn fill(&self) -> Result<Option<FilledUnit>, KernelError> {
        let mut installed = self.installed();
        if installed.fill == Some(installed.maps.fill()?) {
            return Ok(None);
        }
        let (view, reached) = (installed.view.clone(), installed.reached.nodes.clone());
        self.fill_unit(&mut installed, &view, reached).map(Some)
    }

    /// Fills a unit for nodes that are reached in this way.
    fn fill_unit(
        &self,
        installed: &mut Installed,
        view: &View,
        mut reached: Vec<(u16, Node)>,
    ) -> Result<FilledUnit, KernelError> {
        let own = Node {
            addresses: addresses(view.own.address),
            flags: node_flags::V4,
            ..Node::default()
        };
        reached.push((view.own.id, own));
        installed.maps.fill_unit(
            &view.own,
            &view.membership,
            &reached,
            self.settings.hash_seed,
            self.settings.forward == Forward::L2,
        )
    }

    /// Steers by another membership from now on: table, nodes and own id change in one store.
    ///
    /// Connections go on where the change was prepared on every node; see
    /// [`ingress_ebpf::owners`]. Where another process has gone live meanwhile, this is its business.
    ///
    /// # Errors
    ///
    /// [`KernelError::Settings`] where this node is not in it; what was in force stays so, as it does
    /// at any other error.
    pub async fn apply(&self, membership: &Membership) -> Result<(), KernelError> {
        let view = View::new(membership, &self.settings.node_name)?;
        check_nodes(&self.settings.vips, membership)?;
        let _writer = self.writer(self.pins.lock().await?);
        let is_live = self.was_live();
        if is_live && self.is_superseded()? {
            // Noted all the same: should the other one end, this process serves again.
            self.installed().noted = Some(view);
            return Ok(());
        }
        // A table that names a node which cannot be reached yet would keep its packets here.
        let reached = self.resolve_in_time(&view).await?;
        {
            let mut installed = self.installed();
            // Without being live there is nothing of this process for packets to meet, and what there is,
            // another one's, is not this one's to write.
            if is_live {
                let unit = self.fill_unit(&mut installed, &view, reached.nodes.clone())?;
                installed.learn(reached);
                installed.flip(Some(unit))?;
            } else {
                installed.learn(reached);
            }
            // Not before: whoever waits for all nodes to be at this epoch goes on when they say so.
            installed.view = view;
            installed.noted = None;
            if is_live && let Err(error) = self.announce(&mut installed) {
                // All else is in force. It is tried again.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot change who announces virtual IPs"
                );
            }
        }
        if is_live {
            self.try_to_tell().await;
            self.forget_others().await;
        }
        Ok(())
    }

    /// Whether connections for the virtual IPs are handed to workers of this process, as far as it
    /// knows.
    pub fn is_serving(&self) -> bool {
        if self.is_left() {
            return false;
        }
        let installed = self.installed();
        installed.fill.is_some() && installed.sets.is_some()
    }

    /// Whether packets are steered by this very membership.
    pub fn is_steering_by(&self, membership: &Membership) -> bool {
        self.installed().view.membership == *membership
    }

    /// The epoch of the membership that packets are steered by.
    pub fn epoch(&self) -> u64 {
        self.installed().view.membership.epoch
    }

    /// Puts `assign` on the network namespace, then `steer` on the interfaces and nowhere else.
    ///
    /// In this order, since the sockets are there: what `steer` passes finds a worker at once.
    fn attach(
        &self,
        installed: &mut Installed,
        interfaces: &[Interface],
    ) -> Result<(), KernelError> {
        let mut links = links::all(&self.pins)?;
        attach::assign(installed.programs.assign()?, &mut links, &self.pins)?;
        for interface in interfaces {
            steer(installed, interface, self.settings.mode, &self.pins)?;
        }
        installed
            .live
            .retain(|name, _| self.settings.interfaces.contains(name));
        let is_wanted = |hook| match hook {
            Hook::Interface(index) => interfaces.iter().any(|interface| interface.index == index),
            Hook::Namespace(_) => true,
            Hook::Gone | Hook::Foreign => false,
        };
        for link in links::all(&self.pins)? {
            if !is_wanted(link.hook) {
                remove(link);
            }
        }
        Ok(())
    }

    /// Frames and connections per [`Reason`] since the maps were created.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] if the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        self.installed().maps.counters()
    }

    /// What came for each VIP since it is one.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] if a map cannot be read.
    pub fn vip_counters(&self) -> Result<Vec<(IpAddr, VipCounters)>, KernelError> {
        self.installed().maps.vip_counters()
    }

    /// What went to each other node and came from it, by its name, since the maps were created.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] if the map cannot be read.
    pub fn node_counters(&self) -> Result<Vec<(String, NodeCounters)>, KernelError> {
        let installed = self.installed();
        let counters =
            |node: &NamedNode| Ok((node.name.clone(), installed.maps.node_counters(node.id)?));
        installed.view.peers().map(counters).collect()
    }

    /// Keeps the next hops' MAC addresses and the interfaces' programs fresh, until dropped or until
    /// another process has gone live.
    ///
    /// # Cancel safety
    ///
    /// Each update is a whole map value; dropping the future loses nothing.
    pub async fn follow(&self) {
        let mut unresolved = usize::MAX;
        loop {
            sleep(REFRESH).await;
            let refreshed = match self.refresh().await {
                Ok(Some(now)) => now,
                Ok(None) => continue,
                Err(error) => {
                    let reason = format!("nothing is kept fresh: {}", with_causes(&error));
                    self.set_condition(Some(reason));
                    continue;
                }
            };
            if refreshed != unresolved && refreshed > 0 {
                tracing::warn!(
                    unresolved = refreshed,
                    "some nodes' MAC addresses are unknown"
                );
            }
            unresolved = refreshed;
        }
    }

    /// Looks at neighbours and interfaces once; returns how many peers cannot be reached, or `None`
    /// where that is another process' business now.
    async fn refresh(&self) -> Result<Option<usize>, KernelError> {
        // Somebody who prepares or goes live holds the lock; their maps are not this one's to write.
        let Some(writer) = self.pins.try_lock()? else {
            return Ok(None);
        };
        let _writer = self.writer(writer);
        if self.is_superseded()? && !self.serve_again().await? {
            let nothing_is_left = self.installed().fill.is_some() && self.pins.links()?.is_empty();
            let reason = "what served the virtual IPs was detached; restart Forebay for them";
            self.set_condition(nothing_is_left.then(|| reason.to_owned()));
            if nothing_is_left {
                // Nothing answers any more.
                self.announced.send_if_modified(|told| {
                    let is_new = !told.is_empty();
                    told.clear();
                    is_new
                });
            }
            return Ok(None);
        }
        let peers = self.refresh_peers().await;
        // Programs that may be taken away must not be put anywhere.
        let is_left = self.is_left();
        let condition = if is_left {
            None
        } else {
            self.refresh_interfaces().await?
        };
        let unresolved = peers?;
        let skewed = self.compare_tables()?;
        if self.settings.announce != Announce::None {
            self.announce(&mut self.installed())?;
            self.tell_neighbours().await?;
        }
        let refusal = self.installed().reached.refusal.clone();
        let silent = self.silent_peer();
        let mute = self.installed().telling.trouble();
        self.set_condition(condition.or(refusal).or(silent).or(skewed).or(mute));
        Ok(Some(unresolved))
    }

    /// Goes live again with the sockets that are in the maps, where the process that took over is gone;
    /// whether it has.
    async fn serve_again(&self) -> Result<bool, KernelError> {
        let sets = {
            let installed = self.installed();
            let sets = installed.sets;
            sets.filter(|_| installed.fill.is_some())
        };
        let is_only_one = || {
            let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            in_use
                .as_ref()
                .is_some_and(|mark| mark.is_only_one().unwrap_or(false))
        };
        let Some(sets) = sets else { return Ok(false) };
        if !self.installed().maps.are_pinned(&self.pins)? || !is_only_one() {
            return Ok(false);
        }
        tracing::warn!("the process that took the virtual IPs over has ended: serving them again");
        {
            let mut installed = self.installed();
            if let Some(view) = installed.noted.take() {
                installed.view = view;
            }
        }
        let give_connections = |maps: &mut Maps| maps.set_socket_sets(sets).map(|()| sets);
        self.put_in_force(give_connections).await?;
        Ok(true)
    }

    /// Names a node whose packets were all steered by another table than this node's, for a while.
    ///
    /// Nodes that take the steps of a change one after the other differ for a moment. Those that
    /// differ for long were told of other nodes, or have another seed: each sends connections where
    /// the other does not.
    fn compare_tables(&self) -> Result<Option<String>, KernelError> {
        let counters = self.node_counters()?;
        let mut seen = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.since.elapsed() >= COMPARISON {
            let before = std::mem::take(&mut seen.counters);
            let differs = |(name, now): &&(String, NodeCounters)| {
                let before = before.get(name).copied().unwrap_or_default();
                let received = now.decapsulated.saturating_sub(before.decapsulated);
                let skewed = now.skewed.saturating_sub(before.skewed);
                received > 0 && skewed == received
            };
            seen.node = counters.iter().find(differs).map(|(name, _)| name.clone());
            seen.since = Instant::now();
            seen.counters = counters.into_iter().collect();
        }
        Ok(seen.node.as_ref().map(|node| {
            format!(
                "{node} steers by another table: its nodes, their epoch or its --hash-seed are not \
                 those of this node"
            )
        }))
    }

    /// Names a peer that nobody has answered for in a while: connections of its are kept here, and refused.
    fn silent_peer(&self) -> Option<String> {
        let silent = self.installed().reached.silent.clone();
        let mut since = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = silent else {
            *since = None;
            return None;
        };
        let since = since.get_or_insert_with(Instant::now);
        let is_long = since.elapsed() >= SILENCE;
        is_long.then(|| {
            format!(
                "{peer} cannot be reached: nobody answers for the address, or there is no way to it"
            )
        })
    }

    fn set_condition(&self, condition: Option<String>) {
        self.condition.send_if_modified(|before| {
            let differs = *before != condition;
            match &condition {
                Some(reason) if differs => tracing::error!(reason, "not steering as asked"),
                None if differs => tracing::info!("steering as asked again"),
                _ => {}
            }
            *before = condition;
            differs
        });
    }

    /// Whether another process has filled the maps since this one did, or its maps are nobody's any
    /// more.
    fn is_superseded(&self) -> Result<bool, KernelError> {
        let installed = self.installed();
        let is_filled = installed.fill != Some(installed.maps.fill()?);
        Ok(is_filled || !installed.maps.are_pinned(&self.pins)?)
    }

    /// Steers on interfaces that were made anew since this process went live, and follows their MAC
    /// addresses; says what is wrong with one.
    async fn refresh_interfaces(&self) -> Result<Option<String>, KernelError> {
        let mut wrong = None;
        let mut links = links::all(&self.pins)?;
        for (place, name) in self.settings.interfaces.iter().enumerate() {
            let interface = match self.netlink.interface(name).await {
                Ok(interface) => interface,
                Err(KernelError::NoInterface(_)) => {
                    wrong = Some(format!("the interface {name} is gone"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut installed = self.installed();
            let Some(&index) = installed.live.get(name) else {
                continue;
            };
            if index != interface.index {
                tracing::warn!(interface = name, "the interface was made anew");
                if let Err(error) =
                    steer(&mut installed, &interface, self.settings.mode, &self.pins)
                {
                    wrong = Some(format!("{name} was made anew, and: {error}"));
                    continue;
                }
            } else if attach::on(&mut links, &interface, self.settings.mode).is_none() {
                // By somebody's hand, and so not to be undone. One of others may be in its place.
                wrong = Some(format!(
                    "{name} has lost its XDP program; restart Forebay for it"
                ));
            }
            // Whatever was said while the link was down has reached nobody.
            let ups = installed.ups.insert(name.clone(), interface.ups);
            if ups != Some(interface.ups) || index != interface.index {
                let vips = installed.own_vips.clone();
                installed.telling.begin(vips, Instant::now());
            }
            let mut steered = installed.interfaces;
            if let Some(slot) = steered.0.get_mut(place) {
                *slot = abi::Interface {
                    index: interface.index,
                    mac: Mac::new(interface.mac),
                };
            }
            if steered != installed.interfaces {
                installed.maps.set_interfaces(steered)?;
                installed.interfaces = steered;
            }
        }
        Ok(wrong)
    }

    /// How the peers are reached, once all their MAC addresses are known or it is worth waiting no
    /// longer.
    async fn resolve_in_time(&self, view: &View) -> Result<Reached, KernelError> {
        let deadline = Instant::now() + RESOLUTION;
        loop {
            let reached = self.resolve(view).await?;
            if unresolved(&reached.nodes) == 0 || Instant::now() >= deadline {
                return Ok(reached);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn resolve(&self, view: &View) -> Result<Reached, KernelError> {
        let peers: Vec<_> = view.peers().cloned().collect();
        neighbour::resolve(&self.netlink, &peers, self.settings.forward).await
    }

    fn learn(&self, reached: Reached) {
        self.installed().learn(reached);
    }

    /// Writes how each peer is reached now into the unit in force, which must be this process' own;
    /// returns how many cannot be.
    async fn refresh_peers(&self) -> Result<usize, KernelError> {
        let view = self.installed().view.clone();
        let reached = self.resolve(&view).await?;
        let unresolved = unresolved(&reached.nodes);
        self.learn(reached);
        self.installed().write_peers()?;
        Ok(unresolved)
    }

    fn installed(&self) -> MutexGuard<'_, Installed> {
        // Each map value is written whole, so a panic elsewhere leaves nothing half done.
        self.installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many of the peers cannot be reached.
fn unresolved(reached: &[(u16, Node)]) -> usize {
    let resolved = |(_, node): &&(u16, Node)| node.flags & node_flags::RESOLVED != 0;
    reached.len() - reached.iter().filter(resolved).count()
}

/// Sees to it that each interface has a program of ours in the mode that is asked for.
fn reserve(
    programs: &mut Loaded,
    pins: &Pins,
    mode: XdpMode,
    interfaces: &[Interface],
    are_maps_new: bool,
) -> Result<(), KernelError> {
    for interface in interfaces {
        let mut links = links::all(pins)?;
        if attach::on(&mut links, interface, mode).is_some() {
            continue;
        }
        let index = Hook::Interface(interface.index);
        let was_steered = links.iter().any(|link| link.hook == index);
        drop(links);
        // A link cannot change its mode, and where one is replaced, packets for other nodes must not
        // be kept here meanwhile. On new maps `steer` would find nothing to steer by.
        let program = if was_steered && !are_maps_new {
            programs.steer()?
        } else {
            programs.pass()?
        };
        let attached = attach::xdp(program, interface, mode, pins);
        if attached.is_err()
            && was_steered
            && let Some(before) = interface.xdp
        {
            // Another process may serve by it.
            attach::xdp(program, interface, before, pins)?;
        }
        attached?;
    }
    Ok(())
}

/// Puts `steer` on an interface.
fn steer(
    installed: &mut Installed,
    interface: &Interface,
    mode: XdpMode,
    pins: &Pins,
) -> Result<(), KernelError> {
    let mut links = links::all(pins)?;
    let program = installed.programs.steer()?;
    match attach::on(&mut links, interface, mode) {
        Some(link) => attach::steer(program, interface, link, pins)?,
        None => attach::xdp(program, interface, mode, pins)?,
    }
    installed
        .live
        .insert(interface.name.clone(), interface.index);
    tracing::info!(interface = interface.name, mode = mode.name(), "steering");
    Ok(())
}

/// Takes a program away that nobody asks for.
fn remove(link: PinnedLink) {
    let pin = link.pin.clone();
    if let Err(error) = link.detach() {
        tracing::warn!(pin = %pin.display(), %error, "cannot detach a program");
    }
}
