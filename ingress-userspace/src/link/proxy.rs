//! The proxy's end of the link: connects, and connects again; without an agent, the last good state.

use std::{
    collections::VecDeque, net::TcpListener, os::fd::AsFd as _, path::PathBuf, sync::Arc,
    time::Duration,
};

use ingress_agent::{SourceState, SourceStatus};
use ingress_model::{
    Update,
    wire::{self, Decoder, FromAgent, FromProxy, Place},
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use zeroize::Zeroizing;

use super::{
    channel::{Channel, Frame, LinkError, join},
    last_good::LastGood,
    replay::Replay,
};
use crate::sockets::{Sockets, Steering};

/// How long an agent, or its first state, is waited for before the proxy starts from its last good one.
const PATIENCE: Duration = Duration::from_secs(2);
/// An agent may have to load programs before it answers, with the verifier's help.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How often a well agent says something.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// An agent that has said nothing for so long is as good as gone.
const SILENCE: Duration = Duration::from_secs(20);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// What the proxy tells the agent.
#[derive(Debug)]
pub(crate) enum Command {
    /// The workers accept. Answered when the agent has done its part; without an agent, dropped.
    Serving(oneshot::Sender<()>),
    /// The process was told to end.
    Leaving,
    /// Asks whether a successor serves by the same sockets; without an agent, none does.
    Ending(oneshot::Sender<bool>),
    /// The workers do not accept any more.
    Closed,
}

/// Binds the sockets of places for so many workers, without an agent.
pub(crate) type Bind = fn(&[Place], u16) -> anyhow::Result<Vec<(Place, TcpListener)>>;

/// The link as the rest of the proxy sees it: the same as an agent in this process, and its sockets.
#[derive(Debug)]
pub(crate) struct Link {
    /// What changed; the first is a whole state.
    pub(crate) updates: mpsc::Receiver<Arc<Update>>,
    /// Tells of each of them, in their order, whether it is in force.
    pub(crate) adopted: mpsc::UnboundedSender<bool>,
    /// Asks for a whole state.
    pub(crate) resync: mpsc::Sender<()>,
    /// Tells the agent.
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Whether the agent is there.
    pub(crate) state: watch::Receiver<SourceStatus>,
    /// The sockets, once.
    pub(crate) sockets: oneshot::Receiver<Sockets>,
    /// How connections reach them, as the last agent says it.
    pub(crate) steering: watch::Receiver<Steering>,
}

impl Link {
    /// Connects to the agent at `path`, in a task of its own, for as long as the process lives.
    pub(crate) fn start(
        path: PathBuf,
        workers: u16,
        last_good: Option<LastGood>,
        bind: Bind,
    ) -> Self {
        let (updates, update_feed) = mpsc::channel(4);
        let (adopted, answers) = mpsc::unbounded_channel();
        let (resync, resync_requests) = mpsc::channel(1);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (state, shown) = watch::channel(SourceStatus {
            state: SourceState::Starting,
            kinds: Vec::new(),
        });
        let (sockets, first) = oneshot::channel();
        let (steering, shown_steering) = watch::channel(Steering::default());
        let end = End {
            path,
            workers,
            last_good,
            bind,
            updates,
            adopted: answers,
            passed_on: VecDeque::new(),
            resync: resync_requests,
            commands: inbox,
            state,
            first: Some(sockets),
            steering,
            held: Vec::new(),
            decoder: Decoder::default(),
            has_state: false,
            stage: Stage::Starting,
            patience: Some(Instant::now() + PATIENCE),
        };
        tokio::spawn(end.run());
        Self {
            updates: update_feed,
            adopted,
            resync,
            commands,
            state: shown,
            sockets: first,
            steering: shown_steering,
        }
    }
}

/// How far this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving,
    Leaving,
    Closed,
}

/// An update that was passed on.
enum PassedOn {
    /// Of the agent: its bytes, and whether it is a whole state.
    New(Zeroizing<Vec<u8>>, bool),
    /// The last good state itself.
    Kept,
}

struct End {
    path: PathBuf,
    workers: u16,
    last_good: Option<LastGood>,
    bind: Bind,
    updates: mpsc::Sender<Arc<Update>>,
    adopted: mpsc::UnboundedReceiver<bool>,
    /// What was passed on and is not known to be in force: as many as the channel takes, and one or two
    /// beside.
    passed_on: VecDeque<PassedOn>,
    resync: mpsc::Receiver<()>,
    commands: mpsc::UnboundedReceiver<Command>,
    state: watch::Sender<SourceStatus>,
    /// Who waits for the sockets.
    first: Option<oneshot::Sender<Sockets>>,
    steering: watch::Sender<Steering>,
    /// Second descriptors of the sockets in use, for the next agent; given up with [`Stage::Closed`],
    /// so that a worker which closes its own ends the socket.
    held: Vec<(Place, TcpListener)>,
    decoder: Decoder,
    /// Whether any whole state was passed on.
    has_state: bool,
    stage: Stage,
    /// Until when the state of an agent is waited for; `None` once there was one, or the wait is over.
    patience: Option<Instant>,
}

impl End {
    /// Runs until the rest of the proxy is gone.
    async fn run(mut self) {
        loop {
            if self.stage == Stage::Closed {
                // An agent would bind for it, and send it every key: it needs neither any more.
                while self.commands.recv().await.is_some() {}
                return;
            }
            // Not below: it would break a try to connect off.
            while let Ok(is_in_force) = self.adopted.try_recv() {
                self.keep(is_in_force);
            }
            let error = tokio::select! {
                connected = connect(&self.path, self.workers, &self.held) => match connected {
                    Ok((channel, welcome)) => match self.talk(channel, welcome).await {
                        Ok(()) => return,
                        Err(error) => error,
                    },
                    Err(error) => error,
                },
                () = over(self.patience) => {
                    self.patience = None;
                    // The try under way is dropped with what it told the agent: it had no sockets then.
                    self.start_alone().await;
                    continue;
                }
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.note(&command);
                        if let Command::Ending(answer) = command {
                            let _ = answer.send(false);
                        }
                        continue;
                    }
                    None => return,
                },
            };
            self.lost(&error);
            sleep(PAUSE).await;
        }
    }

    /// Follows an agent until it is lost, or the rest of the proxy is gone.
    async fn talk(&mut self, mut channel: Channel, welcome: Sockets) -> Result<(), LinkError> {
        self.take(welcome)?;
        // One that leaves asks for no connections: they may be a successor's by now.
        match self.stage {
            Stage::Serving => channel.send(&FromProxy::Serving, &[]).await?,
            Stage::Leaving => channel.send(&FromProxy::Leaving, &[]).await?,
            Stage::Starting | Stage::Closed => {}
        }
        let mut asked: Option<oneshot::Sender<bool>> = None;
        let mut opening: Option<oneshot::Sender<()>> = None;
        let mut is_resync_asked = false;
        let mut silence = Instant::now() + SILENCE;
        loop {
            tokio::select! {
                () = over(self.patience) => {
                    self.patience = None;
                    self.start_without_state().await;
                }
                frame = channel.receive() => {
                    match frame? {
                        Frame::Update(bytes) => {
                            let is_whole = self.adopt(bytes).await?;
                            is_resync_asked &= !is_whole;
                        }
                        Frame::Message(bytes, _) => match read(&bytes)? {
                            FromAgent::Ended { is_replaced } => {
                                if let Some(asked) = asked.take() {
                                    let _ = asked.send(is_replaced);
                                }
                            }
                            FromAgent::Opened => {
                                if let Some(opening) = opening.take() {
                                    let _ = opening.send(());
                                }
                            }
                            FromAgent::Alive => {}
                            other => return Err(LinkError::Turn(format!("{other:?}"))),
                        },
                    }
                    // From here on: while an update waits for its turn, nobody listens to the agent.
                    silence = Instant::now() + SILENCE;
                }
                Some(is_in_force) = self.adopted.recv() => {
                    self.keep(is_in_force);
                    let wants_whole = self.last_good.as_ref().is_some_and(LastGood::wants_whole);
                    // One that is on its way will do.
                    let mut passed_on = self.passed_on.iter();
                    let comes = passed_on.any(|update| matches!(update, PassedOn::New(_, true)));
                    if wants_whole && !comes && !is_resync_asked {
                        channel.send(&FromProxy::Resync, &[]).await?;
                        is_resync_asked = true;
                    }
                }
                Some(()) = self.resync.recv() => channel.send(&FromProxy::Resync, &[]).await?,
                command = self.commands.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    self.note(&command);
                    let message = match command {
                        Command::Serving(answer) => {
                            opening = Some(answer);
                            FromProxy::Serving
                        }
                        Command::Leaving => FromProxy::Leaving,
                        Command::Closed => FromProxy::Closed,
                        Command::Ending(answer) => {
                            asked = Some(answer);
                            FromProxy::Ending
                        }
                    };
                    channel.send(&message, &[]).await?;
                }
                () = sleep_until(silence) => return Err(LinkError::Gone),
            }
        }
    }

    /// Serves the last good state on the sockets of an agent that has none yet: it has started while
    /// the API server is away, say.
    async fn start_without_state(&mut self) {
        self.read_last_good().await;
        if self.has_state {
            let reason = "the agent has no state yet: serving the last good one".to_owned();
            self.turn(SourceState::Degraded { reason });
        }
    }

    /// Serves the last good state on what was listened on, as far as this process may.
    async fn start_alone(&mut self) {
        self.read_last_good().await;
        let Some(last_good) = &self.last_good else {
            return;
        };
        // An agent that was lost before it had a state has given sockets.
        if !self.has_state || self.first.is_none() {
            return;
        }
        let places = last_good.places();
        match (self.bind)(&places, self.workers) {
            Ok(sockets) => {
                tracing::warn!("no agent answers: serving the last good state");
                let listeners = sockets
                    .iter()
                    .map(|(place, _)| (place.transport, place.address));
                let mut listeners: Vec<_> = listeners.collect();
                listeners.dedup();
                let started = self.take(Sockets {
                    sockets,
                    listeners,
                    steering: Steering {
                        mode: "sockets".to_owned(),
                        degraded: Some("the agent is away".to_owned()),
                        ..Steering::default()
                    },
                });
                if let Err(error) = started {
                    tracing::warn!(%error, "cannot serve without the agent");
                }
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "cannot listen without the agent; serving begins when it is back"
            ),
        }
    }

    /// Passes the last good state on, as one update: the workers begin with the first one in force, and
    /// what clients that wait in the sockets ask for may have come with a later change.
    async fn read_last_good(&mut self) {
        let updates = self.last_good.as_ref().map(LastGood::updates);
        let mut replay = Replay::default();
        for bytes in &updates.unwrap_or_default() {
            let applied = match self.decoder.decode(bytes) {
                Ok(update) => replay.apply(update).map_err(|gap| gap.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = applied {
                tracing::warn!(error, "the last good state cannot be read further");
                break;
            }
        }
        if let Some(state) = replay.whole() {
            self.has_state = true;
            self.passed_on.push_back(PassedOn::Kept);
            // Nobody takes it any more when the process is about to stop.
            let _ = self.updates.send(Arc::new(state)).await;
        }
    }

    /// Keeps the update that was passed on first, if it is in force. One that is not, say since the
    /// process ends by it, must not be what the next process begins with.
    fn keep(&mut self, is_in_force: bool) {
        if let Some(PassedOn::New(bytes, is_whole)) = self.passed_on.pop_front()
            && is_in_force
            && let Some(last_good) = &mut self.last_good
        {
            last_good.keep(&bytes, is_whole);
        }
    }

    /// Passes an update on; tells whether it was a whole state.
    async fn adopt(&mut self, bytes: Zeroizing<Vec<u8>>) -> Result<bool, LinkError> {
        let update = self.decoder.decode(&bytes)?;
        let is_whole = update.base.is_none();
        self.passed_on.push_back(PassedOn::New(bytes, is_whole));
        // Nobody takes it any more when the process is about to stop.
        let _ = self.updates.send(Arc::new(update)).await;
        if is_whole {
            self.has_state = true;
            self.patience = None;
            self.turn(SourceState::InSync);
        }
        Ok(is_whole)
    }

    /// Gives the sockets to whoever waits for them. With those of an agent's that came later, nothing
    /// can be done: the workers have theirs.
    fn take(&mut self, offered: Sockets) -> Result<(), LinkError> {
        self.steering.send_replace(offered.steering.clone());
        let Some(first) = self.first.take() else {
            if !offered.sockets.is_empty() {
                tracing::warn!(
                    "the agent wants other addresses to be served; restart the proxy for it"
                );
            }
            return Ok(());
        };
        for (place, socket) in &offered.sockets {
            self.held.push((*place, socket.try_clone()?));
        }
        if let Some(last_good) = &self.last_good {
            let places: Vec<_> = offered.sockets.iter().map(|(place, _)| *place).collect();
            last_good.keep_places(&places);
        }
        // Nobody takes them any more when the process is about to stop.
        let _ = first.send(offered);
        Ok(())
    }

    fn note(&mut self, command: &Command) {
        self.stage = match command {
            Command::Serving(_) => Stage::Serving,
            Command::Leaving | Command::Ending(_) => Stage::Leaving,
            Command::Closed => {
                self.held.clear();
                Stage::Closed
            }
        };
    }

    fn lost(&self, error: &LinkError) {
        let path = self.path.display();
        let reason = match error {
            LinkError::Gone => format!("the agent at {path} is gone"),
            error => format!("the agent at {path} cannot be followed: {error}"),
        };
        self.turn(SourceState::Degraded { reason });
    }

    /// Shows the state; logs a change, but not each reason on the way.
    fn turn(&self, now: SourceState) {
        let before = self.state.borrow().state.clone();
        match (&before, &now) {
            (SourceState::Degraded { .. }, SourceState::Degraded { .. })
            | (SourceState::InSync, SourceState::InSync) => {}
            (_, SourceState::Degraded { reason }) => tracing::warn!(reason, "no agent"),
            (_, SourceState::InSync) => tracing::info!("following the agent"),
            (_, SourceState::Starting) => {}
        }
        self.state.send_if_modified(|status| {
            let differs = status.state != now;
            status.state = now;
            differs
        });
    }
}

async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Says hello, with the sockets that this process has.
async fn connect(
    path: &std::path::Path,
    workers: u16,
    held: &[(Place, TcpListener)],
) -> Result<(Channel, Sockets), LinkError> {
    let mut channel = Channel::new(UnixStream::connect(path).await?, true);
    let hello = FromProxy::Hello {
        version: wire::VERSION,
        workers,
        sockets: held.iter().map(|(place, _)| *place).collect(),
    };
    let descriptors: Vec<_> = held.iter().map(|(_, socket)| socket.as_fd()).collect();
    channel.send(&hello, &descriptors).await?;
    let answer = timeout(HANDSHAKE, channel.receive()).await;
    let answer = answer.map_err(|_| LinkError::Gone)??;
    let Frame::Message(bytes, descriptors) = answer else {
        return Err(LinkError::Turn("an update before the welcome".to_owned()));
    };
    match read(&bytes)? {
        FromAgent::Welcome {
            sockets,
            listeners,
            mode,
            degraded,
        } => {
            let welcome = Sockets {
                sockets: join(sockets, descriptors)?,
                listeners,
                steering: Steering {
                    mode,
                    degraded,
                    ..Steering::default()
                },
            };
            Ok((channel, welcome))
        }
        FromAgent::Refused { reason } => Err(LinkError::Refused(reason)),
        other => Err(LinkError::Turn(format!("{other:?}"))),
    }
}

fn read(bytes: &[u8]) -> Result<FromAgent, LinkError> {
    wire::read(bytes).map_err(|error| LinkError::Message(error.to_string()))
}

#[cfg(test)]
mod tests {
    use ingress_model::{HostPattern, HostRules};
    use tokio::net::UnixListener;

    use super::*;

    /// An agent and the link of a proxy to it.
    struct Run {
        listener: UnixListener,
        link: Link,
        _folder: tempfile::TempDir,
    }

    impl Run {
        fn start() -> Self {
            Self::start_with(None)
        }

        fn start_with(last_good: Option<LastGood>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("link.sock");
            Self {
                listener: UnixListener::bind(&path).unwrap(),
                link: Link::start(path, 1, last_good, |_, _| anyhow::bail!("no sockets")),
                _folder: folder,
            }
        }

        /// Welcomes the proxy.
        async fn welcome(&self) -> Channel {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut channel = Channel::new(stream, false);
            assert!(matches!(hear(&mut channel).await, FromProxy::Hello { .. }));
            let welcome = FromAgent::Welcome {
                sockets: Vec::new(),
                listeners: Vec::new(),
                mode: "sockets".to_owned(),
                degraded: None,
            };
            channel.send(&welcome, &[]).await.unwrap();
            channel
        }
    }

    async fn hear(channel: &mut Channel) -> FromProxy {
        let Frame::Message(bytes, _) = channel.receive().await.unwrap() else {
            panic!("no message")
        };
        wire::read(&bytes).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_not_lost_while_its_updates_wait_for_their_turn() {
        let mut run = Run::start();
        let mut agent = run.welcome().await;
        let whole = wire::encode(&Update::default()).unwrap();
        // What is ready at once is taken in any order: the mistake shows in half of the turns.
        for turn in 0..10 {
            let updates = 7;
            for _ in 0..updates {
                agent.send_update(&whole).await.unwrap();
            }
            sleep(SILENCE + HEARTBEAT).await;
            for _ in 0..updates {
                let update = timeout(HEARTBEAT, run.link.updates.recv()).await;
                assert!(update.is_ok(), "turn {turn}: the agent was lost");
            }
            let lost = timeout(HEARTBEAT, agent.receive()).await;
            assert!(lost.is_err(), "turn {turn}: {lost:?}");
        }
        let lost = timeout(2 * SILENCE, agent.receive()).await;
        assert!(matches!(lost, Ok(Err(LinkError::Gone))), "{lost:?}");
    }

    #[tokio::test]
    async fn the_last_good_state_comes_as_one_with_its_changes() {
        let state = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut last_good = LastGood::open(state.path()).unwrap();
        let shop: HostPattern = "shop.test".parse().unwrap();
        let hosts = vec![(shop, Some(Arc::new(HostRules::default())))];
        let change = Update {
            epoch: 2,
            base: Some(1),
            hosts: hosts.clone(),
            ..Update::default()
        };
        let whole = Update {
            epoch: 1,
            ..Update::default()
        };
        for update in [whole, change] {
            last_good.keep(&wire::encode(&update).unwrap(), update.base.is_none());
        }
        let nobody = state.path().join("link.sock");
        let mut link = Link::start(nobody, 1, Some(last_good), |_, _| Ok(Vec::new()));
        let first = link.updates.recv().await.unwrap();
        assert_eq!((first.epoch, first.base), (2, None));
        assert_eq!(first.hosts, hosts);
    }

    #[tokio::test]
    async fn an_update_is_kept_when_it_is_in_force_and_not_before() {
        let state = tempfile::tempdir_in("/dev/shm").unwrap();
        let last_good = LastGood::open(state.path()).unwrap();
        let mut run = Run::start_with(Some(last_good));
        let mut agent = run.welcome().await;
        let path = state.path().join("state");
        let kept = || std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let grows = async |from: u64| {
            for _ in 0..500 {
                if kept() > from {
                    return true;
                }
                sleep(Duration::from_millis(10)).await;
            }
            false
        };
        let update = |epoch, base| Update {
            epoch,
            base,
            ..Update::default()
        };
        // Two are passed on before the first is in force.
        for update in [update(1, None), update(2, Some(1))] {
            let bytes = wire::encode(&update).unwrap();
            agent.send_update(&bytes).await.unwrap();
            run.link.updates.recv().await.unwrap();
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(kept(), 0, "the table thread may never put it in force");
        run.link.adopted.send(true).unwrap();
        assert!(grows(0).await);
        let first = kept();
        // The second is refused.
        run.link.adopted.send(false).unwrap();
        sleep(Duration::from_millis(100)).await;
        assert_eq!(kept(), first);
        let bytes = wire::encode(&update(3, None)).unwrap();
        agent.send_update(&bytes).await.unwrap();
        agent.send_update(&bytes).await.unwrap();
        run.link.updates.recv().await.unwrap();
        drop(agent);
        run.link.updates.recv().await.unwrap();
        // Without an agent, too.
        std::fs::remove_file(&path).unwrap();
        run.link.adopted.send(true).unwrap();
        assert!(grows(0).await);
    }

    #[tokio::test]
    async fn a_proxy_that_leaves_asks_a_new_agent_for_no_connections() {
        let mut run = Run::start();
        let mut agent = run.welcome().await;
        let whole = wire::encode(&Update::default()).unwrap();
        agent.send_update(&whole).await.unwrap();
        run.link.updates.recv().await.unwrap();
        let serving = Command::Serving(oneshot::channel().0);
        run.link.commands.send(serving).unwrap();
        assert_eq!(hear(&mut agent).await, FromProxy::Serving);
        drop(agent);
        let mut agent = run.welcome().await;
        assert_eq!(hear(&mut agent).await, FromProxy::Serving);
        run.link.commands.send(Command::Leaving).unwrap();
        assert_eq!(hear(&mut agent).await, FromProxy::Leaving);
        drop(agent);
        let mut agent = run.welcome().await;
        assert_eq!(hear(&mut agent).await, FromProxy::Leaving);
    }
}
