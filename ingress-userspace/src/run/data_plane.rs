//! How connections reach the workers: by XDP and sk_lookup, or by plain sockets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use ingress_model::{Transport, wire::Place};
use rustix::net::sockopt;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    UsageError,
    handover::{self, Door},
    listener::{self, Role},
    nodes::Nodes,
    serve::Front,
};
use ingress_agent::{
    kernel::{
        self, Announced, Extent, IpVersion, KernelError, KernelPart, Removed, VipCounters,
        WorkerSockets,
    },
    membership::Membership,
};
use ingress_proxy::metrics::{Exposition, Kind, Registry};

use crate::{
    config::{DataPlaneArgs, ListenArgs, MOST_WORKERS},
    sockets::{Sockets, Steering},
};

/// How often a process without virtual IPs looks whether the one that serves them has ended.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// The sockets of the workers and, where VIPs are given, the kernel part in front of them.
pub(super) struct DataPlane {
    kernel: Option<Arc<KernelPart>>,
    /// Second descriptors of the sockets that workers accept from; given up as soon as nobody needs
    /// them, so that a worker which closes its own ends the socket.
    held: Vec<(Place, TcpListener)>,
    vips: Vec<IpAddr>,
    /// What was asked to be listened on, apart from VIPs; port 0 lets the kernel choose.
    asked: Vec<(Role, SocketAddr)>,
    /// What is listened on for it.
    addresses: Vec<(Role, SocketAddr)>,
    /// Where the successor of this process gets the plain sockets that this one has taken over:
    /// closed until this one serves.
    doors: Vec<Door>,
    /// One for each door that waits: how many successors serve by its sockets.
    successors: Vec<watch::Receiver<usize>>,
    /// Addresses whose door cannot be made, since another process has its name; and why.
    doorless: BTreeMap<(Role, SocketAddr), String>,
    waiting: JoinSet<()>,
    mode: String,
    degraded: Option<String>,
    /// Why the virtual IPs that were asked for are not served here.
    refusal: Option<String>,
    /// The same, as long as this proxy runs.
    lacking: Option<String>,
    /// For whoever shows how connections reach the workers.
    shown: watch::Sender<Steering>,
    /// Whether ordinary sockets are to serve virtual IPs of IPv6 too, where these cannot be steered.
    falls_back_to_v6: bool,
    /// Which nodes share the virtual IPs.
    nodes: Nodes,
    pin_dir: PathBuf,
    /// Whether what others left in the kernel must go once the workers accept.
    withdraws: bool,
    /// What another process may leave in the kernel that must go.
    leftovers: Option<Extent>,
    /// Why it cannot be removed, as the log says already.
    told: Mutex<Option<String>>,
}

/// The workers have made of a socket something that accepts nothing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a socket for the virtual IPs does not listen")]
pub(super) struct DoesNotListen;

impl DataPlane {
    /// Prepares the kernel part, where one is asked for.
    ///
    /// Where BPF is refused, workers listen on plain sockets; status, metrics and log say so.
    ///
    /// # Errors
    /// Flags do not go together.
    pub(super) async fn start(
        config: &DataPlaneArgs,
        node_name: Option<&str>,
        kubeconfig: Option<&Path>,
        metrics: &Registry,
    ) -> anyhow::Result<Self> {
        let node_name = node_name.unwrap_or_default();
        let (nodes, membership) = Nodes::start(config, node_name, kubeconfig).await?;
        let mut data_plane = Self {
            kernel: None,
            held: Vec::new(),
            vips: Vec::new(),
            asked: Vec::new(),
            addresses: Vec::new(),
            doors: Vec::new(),
            successors: Vec::new(),
            doorless: BTreeMap::new(),
            waiting: JoinSet::new(),
            mode: "sockets".to_owned(),
            degraded: None,
            refusal: None,
            lacking: None,
            shown: watch::Sender::new(Steering::default()),
            falls_back_to_v6: config.vip.iter().any(IpAddr::is_ipv6),
            nodes,
            pin_dir: config.pins.pin_dir.clone(),
            withdraws: false,
            leftovers: None,
            told: Mutex::new(None),
        };
        if let Some(reason) = config.takes_no_part(node_name, &membership) {
            tracing::warn!(reason, "serving ordinary sockets, no virtual IPs");
            data_plane.degraded = Some(reason);
        } else if !config.vip.is_empty() {
            let seed = config.seed().map_err(UsageError::from)?;
            let settings = settings(config, node_name, membership, seed);
            match KernelPart::prepare(&settings).await {
                Ok(kernel_part) => {
                    data_plane.mode = format!("xdp-{}", kernel_part.mode());
                    let kernel_part = Arc::new(kernel_part);
                    data_plane.nodes.follow(Arc::clone(&kernel_part));
                    data_plane.kernel = Some(kernel_part);
                    data_plane.vips = settings.vips;
                    data_plane.expose(metrics);
                }
                Err(error) => data_plane.refuse(&anyhow::Error::from(error)),
            }
        }
        Ok(data_plane)
    }

    fn refuse(&mut self, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        tracing::error!(
            error = reason,
            "XDP is unavailable: workers listen on plain sockets"
        );
        self.give_up(reason);
    }

    fn give_up(&mut self, reason: String) {
        if let Some(kernel_part) = self.kernel.take() {
            kernel_part.leave();
        }
        self.vips.clear();
        self.mode = "sockets".to_owned();
        self.degraded = Some(reason.clone());
        self.refusal = Some(reason);
    }

    /// Binds what is missing, so that each of `workers` has a socket for each address.
    ///
    /// Sockets are used again where there are any: those that a proxy has `served` under an agent
    /// before this one, else those that this process holds of a proxy that is gone, else those of the
    /// process that serves the address now.
    ///
    /// # Errors
    /// A port is busy or may not be had.
    pub(super) async fn bind(
        &mut self,
        config: &ListenArgs,
        workers: usize,
        served: Vec<(Place, TcpListener)>,
    ) -> anyhow::Result<()> {
        let is_served = !served.is_empty();
        let is_steered_to = served.iter().any(|(place, _)| place.is_steered);
        if is_served {
            self.held = self.of_ours(config, served);
        } else {
            self.renew(workers).await;
        }
        self.lacking = None;
        if let Some(kernel_part) = self.kernel.clone() {
            // Workers take no more sockets than they began with. What nobody accepts from must not be
            // steered to: clients would wait there.
            let bound = if is_served {
                self.see_steered(&kernel_part)
            } else {
                self.bind_steered(&kernel_part, workers)
            };
            if let Err(error) = bound {
                self.refuse(&error);
            }
        }
        // Not before the workers accept: what is left drops the first packet of a connection, and its
        // client tries again, where ordinary sockets that do not listen yet would have it refused.
        self.withdraws = self.kernel.is_none() && !is_steered_to;
        if is_steered_to {
            // What an earlier fallback was to take away, this proxy serves by.
            self.leftovers = None;
        }
        let (http, https) = self.plain_addresses(config);
        if is_served {
            let held = |role: Role, address: &SocketAddr| {
                let mut held = self.held.iter();
                held.any(|(place, _)| serves(place, role, *address))
            };
            let missing = http.iter().filter(|address| !held(Role::Http, address));
            let missing = missing.chain(https.iter().filter(|address| !held(Role::Https, address)));
            for address in missing {
                tracing::warn!(%address, "the proxy does not listen there; restart it for it");
            }
        }
        for address in http {
            self.listen(Role::Http, Transport::Plain, address, workers, is_served)?;
        }
        for address in https {
            self.listen(Role::Https, Transport::Tls, address, workers, is_served)?;
        }
        Ok(())
    }

    /// Those of a proxy's sockets that this process could have given to it. One that was taken over
    /// must not have others held here, and handed to the next one.
    fn of_ours(
        &self,
        config: &ListenArgs,
        served: Vec<(Place, TcpListener)>,
    ) -> Vec<(Place, TcpListener)> {
        let (http, https) = self.plain_addresses(config);
        let mut steered: usize = 0;
        let mut is_ours = |place: &Place| {
            if place.is_steered {
                steered += 1;
                let is_local = place.address.ip().is_loopback();
                return self.kernel.is_some()
                    && is_local
                    && steered <= 4 * usize::from(MOST_WORKERS);
            }
            let role = Role::of(place.transport);
            let addresses = if role == Role::Https { &https } else { &http };
            addresses
                .iter()
                .any(|address| serves(place, role, *address))
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            served.into_iter().partition(|(place, _)| is_ours(place));
        if let Some((place, _)) = others.first() {
            let (address, count) = (place.address, others.len());
            tracing::warn!(%address, count, "the proxy serves what it was not asked to; it keeps that to itself");
        }
        ours
    }

    /// Sees to it that a proxy can use what is held of the one before.
    async fn renew(&mut self, workers: usize) {
        // Nothing waits in a socket that no proxy came to serve by. And one that was taken over may have
        // made something else of a socket: whoever got that could not begin.
        if !self.held.iter().all(|(_, socket)| listens(socket)) {
            return self.abandon().await;
        }
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for (place, _) in self.held.iter().filter(|(place, _)| !place.is_steered) {
            *counts.entry(place).or_default() += 1;
        }
        if counts.values().any(|count| *count < workers) {
            // Each address anew, so that its door knows the sockets that are to come.
            self.forget().await;
        }
    }

    /// Takes away what would drop connections before they reach ordinary sockets.
    async fn withdraw(&mut self) {
        // As long as they are asked for, the virtual IPs stay local: ordinary sockets serve them.
        self.leftovers = Some(match self.refusal {
            Some(_) => Extent::Programs,
            None => Extent::All,
        });
        if !self.leftovers_are_gone().await {
            tracing::warn!("another process serves virtual IPs; its programs go when it ends");
        }
    }

    /// Tries once more to take away what another process served by.
    pub(super) async fn withdraw_again(&self) {
        self.leftovers_are_gone().await;
    }

    /// Takes the leftovers away; `false` while another process serves by them.
    async fn leftovers_are_gone(&self) -> bool {
        let Some(extent) = self.leftovers else {
            return true;
        };
        match kernel::withdraw(&self.pin_dir, extent).await {
            Ok(None) => return false,
            Ok(Some(removed)) if removed.is_empty() => {}
            Ok(Some(Removed {
                programs,
                vips,
                maps,
            })) => {
                tracing::info!(?programs, ?vips, maps, "removed what served virtual IPs");
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                // It is tried every second.
                if told.as_deref() != Some(&error) {
                    tracing::error!(
                        error,
                        "cannot remove what served virtual IPs: connections to them may be lost until `forebay detach`"
                    );
                    *told = Some(error);
                }
            }
        }
        true
    }

    /// What the workers accept from, and what is said of it.
    ///
    /// # Errors
    /// Descriptors are used up.
    pub(super) fn sockets(&self) -> std::io::Result<Sockets> {
        let again = |(place, socket): &(Place, TcpListener)| Ok((*place, socket.try_clone()?));
        let sockets = self.held.iter().map(again);
        Ok(Sockets {
            sockets: sockets.collect::<std::io::Result<_>>()?,
            listeners: self.listeners(),
            steering: self.steering(),
        })
    }

    /// What clients connect to.
    pub(super) fn listeners(&self) -> Vec<(Transport, SocketAddr)> {
        let plain = self.addresses.iter();
        let plain = plain.map(|(role, address)| match role {
            Role::Https => (Transport::Tls, *address),
            Role::Http | Role::Metrics => (Transport::Plain, *address),
        });
        let vips = self.vips.iter().flat_map(|vip| {
            [(Transport::Plain, 80), (Transport::Tls, 443)]
                .map(|(transport, port)| (transport, SocketAddr::new(*vip, port)))
        });
        vips.chain(plain).collect()
    }

    /// How connections reach the workers, and why this is not as asked.
    pub(super) fn steering(&self) -> Steering {
        let kernel_part = self.kernel.as_ref();
        let condition = || kernel_part.and_then(|part| part.condition().borrow().clone());
        let degraded = self.degraded.as_ref().or(self.lacking.as_ref()).cloned();
        let trouble = || self.nodes.trouble().borrow().clone();
        let degraded = degraded.or_else(condition).or_else(trouble);
        let announced = kernel_part.map(|part| part.announced().borrow().clone());
        Steering {
            mode: self.mode.clone(),
            degraded: degraded.or_else(|| self.doorless.values().next().cloned()),
            announced: announced.unwrap_or_default(),
        }
    }

    /// The same from now on, as it changes while [`Front::follow`] runs.
    pub(super) fn steering_changes(&self) -> watch::Receiver<Steering> {
        self.shown.subscribe()
    }

    async fn show_conditions(&self) {
        if let Some(kernel_part) = &self.kernel {
            let (mut condition, mut trouble) = (kernel_part.condition(), self.nodes.trouble());
            let mut announced = kernel_part.announced();
            // What was announced when this process went live.
            announced.mark_changed();
            loop {
                let changed = tokio::select! {
                    changed = condition.changed() => changed,
                    changed = trouble.changed() => changed,
                    changed = announced.changed() => changed,
                };
                if changed.is_err() {
                    break;
                }
                self.shown.send_replace(self.steering());
            }
        }
        std::future::pending().await
    }

    /// Tries once more to make the doors that could not be made: whoever had their names may have
    /// ended. For a process that holds its sockets.
    pub(super) fn open_doors(&mut self) {
        for (role, address) in self.doorless.keys().copied().collect::<Vec<_>>() {
            let held = self.held.iter();
            let held = held.filter(|(place, _)| serves(place, role, address));
            let held = held.map(|(_, socket)| socket.try_clone());
            let Ok(sockets) = held.collect::<std::io::Result<Vec<_>>>() else {
                return;
            };
            if sockets.is_empty() {
                continue;
            }
            if let Ok(door) = Door::open(role, address, &sockets, None) {
                self.doorless.remove(&(role, address));
                self.wait(door);
            }
        }
    }

    /// Holds the sockets no longer: what a worker closes ends.
    pub(super) fn release(&mut self) {
        self.held.clear();
    }

    /// Addresses for plain sockets: all of them without a kernel part, else those asked for by a
    /// flag.
    fn plain_addresses(&self, config: &ListenArgs) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        if self.kernel.is_some() {
            return (config.http.clone(), config.https.clone());
        }
        let root = rustix::process::geteuid().is_root();
        let (mut http, mut https) = (config.http_addresses(root), config.https_addresses(root));
        // Where a virtual IP is of IPv6, sockets that take both kinds of connections: by default
        // these listen on every address of IPv4 alone.
        for (addresses, given) in [(&mut http, &config.http), (&mut https, &config.https)] {
            let defaults = addresses.iter_mut().filter(|_| given.is_empty());
            for address in
                defaults.filter(|address| self.falls_back_to_v6 && address.ip().is_unspecified())
            {
                address.set_ip(Ipv6Addr::UNSPECIFIED.into());
            }
        }
        (http, https)
    }

    /// Takes the sockets of the process that serves `address` now, or binds new ones.
    fn listen(
        &mut self,
        role: Role,
        transport: Transport,
        address: SocketAddr,
        workers: usize,
        is_served: bool,
    ) -> anyhow::Result<()> {
        // A flag may name it twice, and a new proxy finds it bound: this process would ask itself for
        // its sockets.
        if self.asked.contains(&(role, address)) {
            return Ok(());
        }
        let held = self.held.iter();
        let held = held.filter(|(place, _)| serves(place, role, address));
        let held = held.map(|(_, socket)| socket.try_clone());
        let mut sockets = held.collect::<std::io::Result<Vec<_>>>()?;
        let already = sockets.len();
        let workers = if is_served { already } else { workers };
        if workers == 0 {
            return Ok(());
        }
        let mut link = None;
        if sockets.is_empty()
            && let Some(from) = inherit(role, address)
        {
            tracing::info!(%address, sockets = from.sockets.len(), "took over the listening sockets");
            (sockets, link) = (from.sockets, Some(from.link));
        }
        let bound_at = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok())
            .unwrap_or(address);
        listener::bind_shared(role, bound_at, workers, &mut sockets)?;
        let bound = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok())
            .unwrap_or(address);
        self.asked.push((role, address));
        self.addresses.push((role, bound));
        let follows = link.is_some();
        match Door::open(role, bound, &sockets, link) {
            Ok(door) if follows => self.doors.push(door),
            // Nobody else would answer, and this process may never come to serve.
            Ok(door) => self.wait(door),
            Err(error) => {
                tracing::warn!(%error, address = %bound, "cannot offer the listening sockets to a successor");
                let why = format!("cannot offer the sockets of {bound} to a successor: {error}");
                self.doorless.insert((role, bound), why);
            }
        }
        let place = Place {
            transport,
            address: bound,
            is_steered: false,
        };
        let new = sockets.into_iter().skip(already);
        self.held.extend(new.map(|socket| (place, socket)));
        Ok(())
    }

    /// Notes it where the proxy that serves has no pairs for the kernel to hand connections to.
    fn see_steered(&mut self, kernel_part: &KernelPart) -> anyhow::Result<()> {
        let mut missing = None;
        for version in kernel_part.versions() {
            if self.steered(version)?.is_empty() {
                missing = Some(version);
            }
        }
        let Some(version) = missing else {
            return Ok(());
        };
        let reason =
            format!("the proxy began without sockets for the virtual IPs of {version}; restart it");
        tracing::error!(reason, "the virtual IPs are not served");
        self.lacking = Some(reason);
        Ok(())
    }

    /// Binds the pairs that are missing for the kernel to hand connections to.
    fn bind_steered(&mut self, kernel_part: &KernelPart, workers: usize) -> anyhow::Result<()> {
        let sharing = workers.min(kernel::MOST_WORKERS);
        if sharing < workers {
            tracing::warn!(
                workers,
                sharing,
                "some workers get no connections for the virtual IPs; use --workers"
            );
        }
        for version in kernel_part.versions() {
            let pairs = self.steered(version)?.len();
            let sockets = kernel_part
                .bind_listeners(sharing.saturating_sub(pairs), version)
                .context("cannot bind the sockets for sk_lookup")?;
            for WorkerSockets { http, https } in sockets {
                for (transport, socket) in [(Transport::Plain, http), (Transport::Tls, https)] {
                    let place = Place {
                        transport,
                        address: socket.local_addr()?,
                        is_steered: true,
                    };
                    self.held.push((place, socket));
                }
            }
        }
        Ok(())
    }

    /// The pairs for the kernel to hand connections of a version of IP to, in the order of the workers.
    fn steered(&self, version: IpVersion) -> std::io::Result<Vec<WorkerSockets>> {
        let of = |transport| {
            let held = self.held.iter();
            let held = held.filter(move |(place, _)| {
                let is_of_version = IpVersion::of(place.address.ip()) == version;
                place.is_steered && place.transport == transport && is_of_version
            });
            held.map(|(_, socket)| socket.try_clone())
        };
        let pairs = of(Transport::Plain).zip(of(Transport::Tls));
        pairs
            .map(|(http, https)| {
                Ok(WorkerSockets {
                    http: http?,
                    https: https?,
                })
            })
            .collect()
    }

    /// Lets the kernel hand connections to the workers, which accept by now, and waits for a
    /// successor.
    ///
    /// # Errors
    /// The maps refuse the sockets, and the kernel part is given up; or they are none to be steered to
    /// ([`DoesNotListen`]), and everything is as before.
    pub(super) async fn open(&mut self) -> anyhow::Result<()> {
        for door in std::mem::take(&mut self.doors) {
            self.wait(door);
        }
        if let Some(kernel_part) = self.kernel.clone()
            && self.lacking.is_none()
        {
            if !self.listens() {
                return Err(DoesNotListen.into());
            }
            if let Err(error) = self.go_live(&kernel_part).await {
                // Whoever has a socket, too, may have stopped it meanwhile.
                if !self.listens() {
                    return Err(DoesNotListen.into());
                }
                let is_detached = matches!(error.downcast_ref(), Some(KernelError::Detached));
                // One that has never been live has met a process of another version: it begins anew.
                if !is_detached || !kernel_part.was_live() {
                    // The process ends by it; what it leaves would drop connections.
                    self.give_up(format!("{error:#}"));
                    self.withdraw().await;
                    return Err(error);
                }
                // By somebody's hand, and so not to be undone.
                let reason = error.to_string();
                tracing::error!(reason, "the virtual IPs are not served");
                self.lacking = Some(reason);
            }
        }
        if self.withdraws {
            self.withdraw().await;
        }
        Ok(())
    }

    /// Whether somebody can accept from each socket that the kernel is to hand connections to.
    fn listens(&self) -> bool {
        let steered = self.held.iter().filter(|(place, _)| place.is_steered);
        let mut steered = steered.map(|(_, socket)| listens(socket));
        steered.all(|listens| listens)
    }

    async fn go_live(&self, kernel_part: &KernelPart) -> anyhow::Result<()> {
        let sockets = kernel::Sockets {
            four: self.steered(IpVersion::V4)?,
            six: self.steered(IpVersion::V6)?,
        };
        Ok(kernel_part.go_live(&sockets).await?)
    }

    /// Keeps the kernel's maps in step with the network, until dropped.
    pub(super) fn following(&self) -> impl Future<Output = ()> + use<> {
        let kernel = self.kernel.clone();
        async move {
            match kernel {
                Some(kernel_part) => kernel_part.follow().await,
                None => std::future::pending().await,
            }
        }
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

    /// Asks for no new connections from other nodes.
    pub(super) fn drain(&self) {
        self.nodes.drain();
    }

    /// Asks for none while no proxy accepts them, and for some again.
    pub(super) fn rest(&self, rests: bool) {
        self.nodes.rest(rests);
    }

    /// The workers accept nothing for the virtual IPs any more: whoever falls back to ordinary sockets
    /// may take the programs away, while connections here go on.
    pub(super) fn leave(&self) {
        if let Some(kernel_part) = &self.kernel {
            self.stop();
            // Nobody would tell what is pinned that another node has taken over.
            if self.nodes.are_changed_for_us()
                && let Err(error) = kernel_part.stop_announcing()
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot leave the virtual IPs to other nodes");
            }
            kernel_part.leave();
        }
    }

    /// Leads no new connections for the virtual IPs to the workers any more; whether it did before.
    fn stop(&self) -> bool {
        let Some(kernel_part) = &self.kernel else {
            return false;
        };
        kernel_part.stop().unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot stop new connections for the virtual IPs");
            false
        })
    }

    /// Lets go of everything that is listened on: nothing accepts from it, and nobody may wait for it.
    pub(super) async fn abandon(&mut self) {
        self.forget().await;
        self.release();
    }

    /// Closes the doors, and knows no more what is listened on.
    async fn forget(&mut self) {
        // Their names are free when this returns.
        self.waiting.shutdown().await;
        self.asked.clear();
        self.addresses.clear();
        self.doors.clear();
        self.successors.clear();
        self.doorless.clear();
    }

    fn expose(&self, metrics: &Registry) {
        let Some(kernel_part) = self.kernel.clone() else {
            return;
        };
        metrics.collect_with(Box::new(move |exposition| {
            if let Err(error) = expose_counters(&kernel_part, exposition) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the BPF counters"
                );
            }
        }));
    }
}

impl Front for DataPlane {
    async fn serve(&mut self) -> anyhow::Result<()> {
        self.open().await?;
        self.release();
        Ok(())
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref().or(self.lacking.as_deref())
    }

    async fn follow(&self) {
        let look_again = async {
            // Without end: a process that steers may begin later, and end before this one.
            while self.leftovers.is_some() {
                sleep(WITHDRAWAL).await;
                self.leftovers_are_gone().await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = look_again => {}
            () = self.following() => {}
            () = self.show_conditions() => {}
        }
    }

    fn leaving(&mut self) {
        self.drain();
    }

    fn stop_new(&mut self) -> bool {
        self.stop()
    }

    /// Whether a successor serves all that this process serves, by the same sockets. Where there is no
    /// door, it has other sockets.
    async fn is_replaced(&mut self) -> bool {
        self.kernel.is_none()
            && self.doorless.is_empty()
            && !self.successors.is_empty()
            && self.successors.iter().all(|one| *one.borrow() > 0)
    }

    /// Passes no sockets on any more: the workers do not accept from them.
    fn close_doors(&mut self) {
        self.waiting.abort_all();
        self.leave();
    }
}

/// What the programs counted.
fn expose_counters(
    kernel_part: &KernelPart,
    exposition: &mut Exposition,
) -> Result<(), KernelError> {
    let name = "forebay_steer_packets_total";
    exposition.family(
        name,
        Kind::Counter,
        "Packets by action of the XDP and sk_lookup programs and by reason.",
    );
    for (reason, count) in kernel_part.counters()? {
        let labels = [("action", reason.action()), ("reason", reason.label())];
        exposition.sample(name, &labels, count);
    }
    exposition.family(
        "forebay_steer_epoch",
        Kind::Gauge,
        "Which set of nodes connections are steered by: the same number on nodes that have the same.",
    );
    exposition.sample("forebay_steer_epoch", &[], kernel_part.epoch());
    let announced = kernel_part.announced().borrow().clone();
    if !announced.is_empty() {
        let name = "forebay_vip_announcer";
        let help =
            "The node that says where a virtual IP is, as this node sees it; 1 if it is this node.";
        exposition.family(name, Kind::Gauge, help);
        for Announced { vip, node, is_here } in announced {
            let labels = [("vip", &*vip.to_string()), ("node", &*node)];
            exposition.sample(name, &labels, u8::from(is_here));
        }
    }
    let vips = kernel_part.vip_counters()?;
    type Field = fn(&VipCounters) -> u64;
    let fields: [(&str, &str, Field); 4] = [
        (
            "forebay_vip_packets_total",
            "Packets for a virtual IP.",
            |vip| vip.packets,
        ),
        (
            "forebay_vip_bytes_total",
            "Bytes of packets for a virtual IP.",
            |vip| vip.bytes,
        ),
        (
            "forebay_vip_syns_total",
            "New connections to a virtual IP.",
            |vip| vip.syns,
        ),
        (
            "forebay_vip_drops_total",
            "Packets for a virtual IP that were dropped.",
            |vip| vip.drops,
        ),
    ];
    for (name, help, field) in fields {
        exposition.family(name, Kind::Counter, help);
        for (vip, counters) in &vips {
            exposition.sample(name, &[("vip", &*vip.to_string())], field(counters));
        }
    }
    let name = "forebay_peer_packets_total";
    let help = "Packets to another node (forward, second_chance) and from it (decapsulate; skewed: by \
                another table).";
    exposition.family(name, Kind::Counter, help);
    for (node, counters) in kernel_part.node_counters()? {
        for (action, count) in [
            ("forward", counters.forwarded),
            ("second_chance", counters.second_chances),
            ("decapsulate", counters.decapsulated),
            ("skewed", counters.skewed),
        ] {
            exposition.sample(name, &[("node", &*node), ("action", action)], count);
        }
    }
    Ok(())
}

fn listens(socket: &TcpListener) -> bool {
    sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// Whether a socket is one for `address`; port 0 is any.
fn serves(place: &Place, role: Role, address: SocketAddr) -> bool {
    let is_same =
        place.address == address || (address.port() == 0 && place.address.ip() == address.ip());
    !place.is_steered && Role::of(place.transport) == role && is_same
}

/// The sockets of the process that serves `address` now, if there is one.
fn inherit(role: Role, address: SocketAddr) -> Option<handover::Inheritance> {
    handover::inherit(role, address).unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            error,
            "cannot take over the listening sockets; connections waiting on the old process may be lost"
        );
        None
    })
}

fn settings(
    config: &DataPlaneArgs,
    node_name: &str,
    membership: Membership,
    hash_seed: u64,
) -> kernel::NodeSettings {
    // The namespace's own list; /sys may show the interfaces of another.
    let present = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let interfaces = interfaces_of(&present, &config.xdp_interface);
    if interfaces != config.xdp_interface {
        tracing::info!(asked = ?config.xdp_interface, ?interfaces, "steering on the interfaces that this node has");
    }
    kernel::NodeSettings {
        vips: config.vip.clone(),
        interfaces,
        mode: config.xdp_mode,
        forward: config.forward,
        announce: config.announce,
        node_name: node_name.to_owned(),
        membership,
        hash_seed,
        pin_dir: config.pins.pin_dir.clone(),
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
