//! `forebay agent`: watches, translates, binds and steers for a proxy that is another process.
//!
//! One loop: what the feed says goes on to the proxy; what the proxy says changes the data plane. The
//! sockets of a proxy that was lost are held for a while, so that the next one takes them, with the
//! connections that wait.

use std::{net::TcpListener, ops::RangeInclusive, os::fd::AsFd as _, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use ingress_model::{
    Update,
    wire::{self, FromAgent, FromProxy, Place},
};
use ingress_proxy::metrics::{Kind, Registry};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    UsageError,
    admin::{Admin, Answering},
    control,
    data_plane::{DataPlane, DoesNotListen},
    publish,
    serve::Front as _,
    signals::Signals,
};
use crate::{
    admin::{DataPlaneStatus, ListenerStatus, Readiness, Status},
    config::{AGENT_ADMIN_SOCKET, AGENT_METRICS_PORT, AgentConfig, ListenArgs, MOST_WORKERS},
    link::{Channel, Frame, HEARTBEAT, LinkError, PATIENCE, join},
    socket_file::{Purpose, SocketFile},
};

/// How long somebody who connects may take to say hello.
const HELLO: Duration = Duration::from_secs(2);
/// Most of them at a time.
const KNOCKING: usize = 8;
/// Workers that a proxy may have, as its flag says.
const WORKERS: RangeInclusive<u16> = 1..=MOST_WORKERS;
/// Between two whole states: each costs as much as all changes together, and a proxy that was taken over
/// could ask for one after the other.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the sockets of a lost proxy are held. Clients wait meanwhile; with no proxy in sight, they
/// had better be refused.
const HOLD: Duration = Duration::from_secs(30);
/// How long a node without a proxy is to get new connections: the next one may be about to start, and they
/// wait for it in the sockets that are held.
const ABSENCE: Duration = Duration::from_secs(10);
/// After SIGTERM, how long the proxy may take to say that it leaves, too. If it does not, only this
/// process is to be restarted.
const LEAVE: Duration = Duration::from_secs(2);

/// Runs an agent until SIGTERM or SIGINT, and on until its proxy has ended, if that leaves with it.
///
/// # Errors
/// A flag, an address or a source cannot be used ([`UsageError`]), or the agent stopped.
pub(crate) fn agent(config: &AgentConfig) -> anyhow::Result<()> {
    control(&config.process, serve(config))
}

async fn serve(config: &AgentConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let metrics = Arc::new(Registry::new(0));
    let is_folder = config.source.is_folder();
    let port = config.metrics.address(is_folder, AGENT_METRICS_PORT);
    let admin = Admin::bind(&config.admin, AGENT_ADMIN_SOCKET, port, !is_folder)?;
    let path = &config.link.link;
    let (_link, listener) = SocketFile::bind(path, Purpose::Link).map_err(UsageError::from)?;
    let node_name = config.process.node_name.as_deref();
    let kubeconfig = config.source.kubeconfig.as_deref();
    let (source, settings) = config
        .source
        .of_agent(config.listen.of_clients(&config.data_plane.vip));
    let feed = ingress_agent::start(source, settings)
        .await
        .map_err(UsageError::from)?;

    let (status, shown_status) = watch::channel(Arc::new(Status {
        version: env!("CARGO_PKG_VERSION"),
        node: config.process.node_name.clone(),
        ..Status::default()
    }));
    tokio::spawn(publish::follow_state(
        feed.state.clone(),
        config.source.kind(),
        status.clone(),
    ));
    let (readiness, is_ready) = watch::channel(Readiness::Starting);
    publish::expose_process(&metrics, shown_status.clone(), is_ready.clone());
    publish::expose_source(&metrics, Some(feed.report.clone()), feed.state);
    expose_proxy(&metrics, shown_status.clone());
    let admin = admin.serve(is_ready, None, shown_status, Some(feed.report), &metrics)?;
    // Answers by now: who waits until the nodes are known is not ready, and not to be restarted for it.
    let starting = DataPlane::start(&config.data_plane, node_name, kubeconfig, &metrics);
    let data_plane = tokio::select! {
        started = starting => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the nodes were known");
            return Ok(());
        }
    };
    let following = data_plane.following();
    tracing::info!(listener = "link", path = %path.display(), "listening");

    let agent = Agent {
        listen: &config.listen,
        data_plane,
        updates: feed.updates,
        resync: feed.resync,
        proxy: None,
        hold: None,
        alone: None,
        asked: None,
        asks: None,
        told: None,
        status,
        readiness,
        admin,
        scrapes: JoinSet::new(),
    };
    agent.show();
    let listener = UnixListener::from_std(listener)?;
    tokio::select! {
        ended = agent.run(listener, signals) => ended,
        () = following => bail!("nothing keeps the kernel's maps in step any more; see the log"),
    }
}

/// Shows in the metrics whether there is a proxy.
fn expose_proxy(metrics: &Registry, status: watch::Receiver<Arc<Status>>) {
    metrics.collect_with(Box::new(move |exposition| {
        let name = "forebay_proxy_connected";
        exposition.family(name, Kind::Gauge, "1 while a proxy gets the updates.");
        let is_there = status.borrow().proxy.is_some_and(|proxy| proxy != AWAY);
        exposition.sample(name, &[], u8::from(is_there));
    }));
}

/// As the status says it: no proxy, one that has no table yet, one that accepts, one that ends, one
/// that accepts nothing more.
const AWAY: &str = "away";
const STARTING: &str = "starting";
const SERVING: &str = "serving";
const LEAVING: &str = "leaving";
const CLOSED: &str = "closed";

/// The proxy that gets the updates.
struct Proxy {
    channel: Channel,
    stage: &'static str,
    /// Changes mean nothing to it until a whole state comes.
    needs_whole: bool,
}

/// Somebody who has said hello.
struct Caller {
    channel: Channel,
    version: u16,
    workers: u16,
    sockets: Vec<(Place, TcpListener)>,
}

struct Agent<'a> {
    listen: &'a ListenArgs,
    data_plane: DataPlane,
    updates: mpsc::Receiver<Arc<Update>>,
    resync: mpsc::Sender<()>,
    proxy: Option<Proxy>,
    /// Until when the sockets of a lost proxy are held.
    hold: Option<Instant>,
    /// Since when no proxy has accepted connections, after one that did.
    alone: Option<Instant>,
    /// When a whole state was asked for last, and when one is to be asked for next.
    asked: Option<Instant>,
    asks: Option<Instant>,
    /// Why the last one that said hello got nothing, as the log says already: it tries again and again.
    told: Option<String>,
    status: watch::Sender<Arc<Status>>,
    readiness: watch::Sender<Readiness>,
    admin: Answering,
    scrapes: JoinSet<()>,
}

impl Agent<'_> {
    async fn run(mut self, listener: UnixListener, mut signals: Signals) -> anyhow::Result<()> {
        let mut callers = JoinSet::new();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Set by SIGTERM.
        let mut leave: Option<Instant> = None;
        loop {
            let alone = leave.filter(|_| !self.is_leaving());
            tokio::select! {
                accepted = listener.accept(), if callers.len() < KNOCKING => match accepted {
                    Ok((stream, _)) => drop(callers.spawn(hear(stream))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a proxy");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(caller) = callers.join_next(), if !callers.is_empty() => match caller {
                    Ok(Ok(caller)) => self.welcome(caller).await,
                    Ok(Err(error)) => tracing::debug!(%error, "somebody connected who is no proxy"),
                    Err(error) => tracing::warn!(%error, "cannot hear a proxy"),
                },
                // While one is on its way to the proxy, the next waits: changes add up in the feed.
                update = self.updates.recv(), if self.is_all_sent() => {
                    let Some(update) = update else {
                        bail!("the agent stopped; see the log")
                    };
                    if *self.readiness.borrow() == Readiness::Starting {
                        self.begin()?;
                    }
                    self.pass_on(&update).await;
                }
                heard = heard(&mut self.proxy) => match heard {
                    Ok(Some(message)) => self.follow(message).await?,
                    Ok(None) => {}
                    Err(error) => self.lose(&error).await,
                },
                _ = heartbeat.tick() => {
                    self.tell(&FromAgent::Alive).await;
                    self.data_plane.open_doors();
                    self.data_plane.withdraw_again().await;
                    let is_long = |since: Instant| since.elapsed() >= ABSENCE;
                    self.data_plane.rest(self.alone.is_some_and(is_long));
                    self.show();
                }
                () = over(self.asks) => {
                    self.asks = None;
                    self.asked = Some(Instant::now());
                    // One request that waits is enough.
                    let _ = self.resync.try_send(());
                }
                () = over(self.hold) => {
                    tracing::warn!("no proxy came back: its sockets are closed");
                    self.abandon().await;
                }
                signal = signals.next() => {
                    tracing::info!(signal, "shutting down");
                    self.readiness.send_replace(Readiness::ShuttingDown);
                    if self.admin.shares_metrics() {
                        self.scrapes.abort_all();
                    }
                    if leave.is_some() {
                        return Ok(());
                    }
                    leave = Some(Instant::now() + LEAVE);
                    self.drain_if_leaving();
                    self.leave_if_over();
                }
                () = over(alone) => return Ok(()),
            }
            if leave.is_some() && self.proxy.is_none() {
                tracing::info!("stopped");
                return Ok(());
            }
        }
    }

    fn is_all_sent(&self) -> bool {
        let proxy = self.proxy.as_ref();
        proxy.is_none_or(|proxy| proxy.channel.is_sent())
    }

    fn is_leaving(&self) -> bool {
        self.proxy
            .as_ref()
            .is_some_and(|proxy| [LEAVING, CLOSED].contains(&proxy.stage))
    }

    fn is_starting(&self) -> bool {
        self.proxy
            .as_ref()
            .is_some_and(|proxy| proxy.stage == STARTING)
    }

    /// Asks for no new connections once the proxy leaves, too: an agent that ends alone is followed by
    /// another one, and its proxy serves on.
    fn drain_if_leaving(&self) {
        let is_ending = *self.readiness.borrow() == Readiness::ShuttingDown;
        if is_ending && (self.proxy.is_none() || self.is_leaving()) {
            self.data_plane.drain();
        }
    }

    /// Gives the programs up once the proxy accepts nothing more and no other one is to come,
    /// whichever is told first.
    fn leave_if_over(&self) {
        let is_ending = *self.readiness.borrow() == Readiness::ShuttingDown;
        let proxy = self.proxy.as_ref();
        if is_ending && proxy.is_none_or(|proxy| proxy.stage == CLOSED) {
            self.data_plane.leave();
        }
    }

    /// Gives a proxy its sockets, and everything that comes from now on.
    async fn welcome(&mut self, mut caller: Caller) {
        let refusal = if self.proxy.is_some() {
            Some("it has another proxy".to_owned())
        } else if caller.version != wire::VERSION {
            let (theirs, ours) = (caller.version, wire::VERSION);
            Some(format!(
                "the proxy speaks version {theirs} of the link, and the agent {ours}; run the same Forebay for both"
            ))
        } else if !WORKERS.contains(&caller.workers) {
            let (count, most) = (caller.workers, WORKERS.end());
            Some(format!("{count} workers; there must be 1 to {most}"))
        } else {
            None
        };
        let known = caller.sockets.len();
        let offer = match refusal {
            None => {
                let workers = usize::from(caller.workers);
                let served = std::mem::take(&mut caller.sockets);
                let bound = self.data_plane.bind(self.listen, workers, served).await;
                bound
                    .and_then(|()| Ok(self.data_plane.sockets()?))
                    .map_err(|error| format!("{error:#}"))
            }
            Some(reason) => Err(reason),
        };
        self.show();
        self.judge();
        let sent = match offer {
            Ok(offer) => {
                // One that serves has what it needs: its workers take no more.
                let new = Some(&*offer.sockets).filter(|_| known == 0);
                let new = new.unwrap_or_default();
                let welcome = FromAgent::Welcome {
                    sockets: new.iter().map(|(place, _)| *place).collect(),
                    listeners: offer.listeners,
                    mode: offer.steering.mode,
                    degraded: offer.steering.degraded,
                };
                let descriptors: Vec<_> = new.iter().map(|(_, socket)| socket.as_fd()).collect();
                within(caller.channel.send(&welcome, &descriptors)).await
            }
            Err(reason) => {
                if self.told.as_ref() != Some(&reason) {
                    tracing::error!(reason, "cannot serve a proxy");
                    self.told = Some(reason.clone());
                }
                // It may not wait to hear why.
                let refused = FromAgent::Refused { reason };
                let _ = within(caller.channel.send(&refused, &[])).await;
                return;
            }
        };
        match sent {
            Ok(()) => {
                tracing::info!(
                    workers = caller.workers,
                    sockets = known,
                    "a proxy is there"
                );
                self.hold = None;
                self.told = None;
                self.proxy = Some(Proxy {
                    channel: caller.channel,
                    stage: STARTING,
                    needs_whole: true,
                });
                self.show();
                self.ask_for_whole();
            }
            Err(error) => self.lose(&error).await,
        }
    }

    /// The first state is whole.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.readiness.send_replace(Readiness::Ready);
        self.judge();
        self.scrapes = self.admin.serve_metrics()?;
        Ok(())
    }

    /// Is ready as long as all is steered as asked, and between its beginning and its end.
    fn judge(&self) {
        let refusal = self.data_plane.refusal();
        self.readiness.send_if_modified(|readiness| {
            let now = match (&*readiness, refusal) {
                (Readiness::Starting | Readiness::ShuttingDown, _) => return false,
                (_, Some(reason)) => Readiness::Refused(reason.to_owned()),
                (_, None) => Readiness::Ready,
            };
            let differs = *readiness != now;
            *readiness = now;
            differs
        });
    }

    /// Passes an update on.
    async fn pass_on(&mut self, update: &Update) {
        let Some(proxy) = &mut self.proxy else { return };
        if proxy.needs_whole && update.base.is_some() {
            return;
        }
        proxy.needs_whole = false;
        let sent = match wire::encode(update) {
            Ok(bytes) => proxy.channel.put_update(&bytes),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            self.lose(&error).await;
        }
    }

    /// Does what the proxy says.
    ///
    /// # Errors
    /// Connections for the virtual IPs would not reach it. The next agent begins anew, and finds a
    /// proxy that serves.
    async fn follow(&mut self, message: FromProxy) -> anyhow::Result<()> {
        match message {
            FromProxy::Hello { .. } => {
                self.lose(&LinkError::Turn("a second hello".to_owned()))
                    .await;
            }
            FromProxy::Resync => self.ask_for_whole(),
            // It may have nothing any more to be steered to.
            FromProxy::Serving if !self.is_starting() => {
                self.lose(&LinkError::Turn("serving, once more".to_owned()))
                    .await;
            }
            FromProxy::Serving => {
                if let Err(error) = self.data_plane.open().await {
                    // A proxy that was taken over does as it likes with its sockets: that is its own end.
                    if error.is::<DoesNotListen>() {
                        self.lose(&LinkError::Turn(error.to_string())).await;
                        return Ok(());
                    }
                    let message = "connections for the virtual IPs do not reach the proxy";
                    return Err(error.context(message));
                }
                self.judge();
                self.turn(SERVING);
                self.tell(&FromAgent::Opened).await;
            }
            FromProxy::Leaving => self.turn(LEAVING),
            FromProxy::Ending => {
                self.turn(LEAVING);
                let is_replaced = self.data_plane.is_replaced().await;
                self.tell(&FromAgent::Ended { is_replaced }).await;
            }
            FromProxy::Closed => {
                self.abandon().await;
                self.turn(CLOSED);
                self.leave_if_over();
            }
        }
        Ok(())
    }

    fn turn(&mut self, stage: &'static str) {
        if let Some(proxy) = &mut self.proxy {
            proxy.stage = stage;
        }
        match stage {
            SERVING => {
                self.alone = None;
                self.data_plane.rest(false);
            }
            CLOSED => {
                self.alone.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
        self.drain_if_leaving();
        self.show();
    }

    fn ask_for_whole(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            proxy.needs_whole = true;
        }
        let now = Instant::now();
        let next = self.asked.map_or(now, |asked| asked + PAUSE);
        self.asks.get_or_insert(next);
    }

    async fn tell(&mut self, message: &FromAgent) {
        let Some(proxy) = &mut self.proxy else { return };
        if let Err(error) = proxy.channel.put(message) {
            self.lose(&error).await;
        }
    }

    /// The proxy is gone, or to be treated so.
    async fn lose(&mut self, error: &LinkError) {
        let is_leaving = self.is_leaving();
        self.proxy = None;
        self.alone.get_or_insert_with(Instant::now);
        if is_leaving {
            tracing::info!("the proxy has ended");
            self.abandon().await;
        } else {
            tracing::warn!(%error, "the proxy is lost; its sockets are held for the next one");
            self.hold = Some(Instant::now() + HOLD);
        }
        self.show();
    }

    async fn abandon(&mut self) {
        self.hold = None;
        self.data_plane.abandon().await;
    }

    /// Shows the proxy and the data plane in the status.
    fn show(&self) {
        let proxy = self.proxy.as_ref().map_or(AWAY, |proxy| proxy.stage);
        let steering = self.data_plane.steering();
        let listeners = self.data_plane.listeners();
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.proxy = Some(proxy);
            status.listeners = listeners.into_iter().map(ListenerStatus::of).collect();
            status.data_plane = DataPlaneStatus::of(steering);
        });
    }
}

/// Hears who connects, and what sockets it has.
async fn hear(stream: UnixStream) -> Result<Caller, LinkError> {
    let mut channel = Channel::new(stream, false);
    let frame = timeout(HELLO, channel.receive()).await;
    let Frame::Message(bytes, descriptors) = frame.map_err(|_| LinkError::Gone)?? else {
        return Err(LinkError::Turn("an update".to_owned()));
    };
    match read(&bytes)? {
        FromProxy::Hello {
            version,
            workers,
            sockets,
        } => Ok(Caller {
            channel,
            version,
            workers,
            sockets: join(sockets, descriptors)?,
        }),
        other => Err(LinkError::Turn(format!("{other:?}"))),
    }
}

/// The next message of the proxy, if there is one.
///
/// `None` once the proxy has all that was put.
async fn heard(proxy: &mut Option<Proxy>) -> Result<Option<FromProxy>, LinkError> {
    let Some(proxy) = proxy else {
        return std::future::pending().await;
    };
    match proxy.channel.work().await? {
        Some(Frame::Message(bytes, _)) => read(&bytes).map(Some),
        Some(Frame::Update(_)) => Err(LinkError::Turn("an update".to_owned())),
        None => Ok(None),
    }
}

fn read(bytes: &[u8]) -> Result<FromProxy, LinkError> {
    wire::read(bytes).map_err(|error| LinkError::Message(error.to_string()))
}

/// A proxy that takes nothing for too long is lost.
async fn within(send: impl Future<Output = Result<(), LinkError>>) -> Result<(), LinkError> {
    timeout(PATIENCE, send)
        .await
        .unwrap_or(Err(LinkError::Gone))
}

async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
