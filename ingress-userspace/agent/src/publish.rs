//! Events → updates: the first at once, those of a burst together.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch as channel},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    index::{Event, Index, Wish},
    kind::Key,
    report::{Report, UNNAMED_SECRETS},
    settings::Settings,
    translate::State,
    watch::names::Names,
};
use ingress_model::{ObjectName, Update};

/// Two updates are at least this far apart: what comes in between becomes one. Nothing waits after
/// a pause.
const GAP: Duration = Duration::from_millis(5);

/// The first update waits this long for Secrets that are followed by name: which ones is known only
/// once everything else is. They come within milliseconds, and without them their hosts would show
/// the default certificate for a moment at each start. A server that keeps one of them back must
/// not keep everything back.
///
/// Later ones wait for none. A host keeps the certificate that it has for as long, until there is a
/// first answer for the Secret that is to follow.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first update waits this long for the addresses of external names: without them, their routes
/// would answer 503 for a moment at each start, also those of a proxy which has them from an agent
/// before this one. Some names have no server that answers, for good, and everybody would wait.
const PATIENCE_WITH_DNS: Duration = Duration::from_secs(1);

/// Events that one update takes at most, so that a flood does not keep it back.
const BURST: usize = 4096;

/// Turns events into updates.
#[derive(Debug)]
pub(super) struct Publisher {
    events: mpsc::Receiver<Event>,
    updates: mpsc::Sender<Arc<Update>>,
    resync: mpsc::Receiver<()>,
    index: Index,
    dirty: BTreeSet<Key>,
    state: State,
    report: Report,
    /// External names to be looked up.
    names: channel::Sender<Names>,
    /// Secrets to be followed by name; `None` where the source has all of them.
    secrets: Option<channel::Sender<Wish>>,
    /// When the last update began.
    last: Option<Instant>,
    /// Until when the first update waits for Secrets and addresses; `None` once it was sent.
    held: Option<Instant>,
    /// When it could have been sent without them.
    since: Option<Instant>,
    /// Until when each of the first so many Secrets that were ever to be followed by name may be
    /// without an answer; the earliest first.
    patience: VecDeque<(Instant, u64)>,
}

impl Publisher {
    /// Of the channels that it gives, the second asks for a whole state.
    pub(super) fn new(
        events: mpsc::Receiver<Event>,
        names: channel::Sender<Names>,
        secrets: Option<channel::Sender<Wish>>,
        settings: Settings,
    ) -> (Self, mpsc::Receiver<Arc<Update>>, mpsc::Sender<()>, Report) {
        // A proxy that lags takes fewer and larger updates: events wait in their channel meanwhile.
        let (updates, update_feed) = mpsc::channel(4);
        let (resync, resync_requests) = mpsc::channel(1);
        let mut state = State::new(settings);
        if secrets.is_some() {
            state.follow_secrets_by_name();
        }
        let report = Report::new(state.book());
        let publisher = Self {
            events,
            updates,
            resync: resync_requests,
            index: Index::default(),
            dirty: BTreeSet::new(),
            state,
            report: report.clone(),
            names,
            secrets,
            last: None,
            held: None,
            since: None,
            patience: VecDeque::new(),
        };
        (publisher, update_feed, resync, report)
    }

    /// Runs until the source or the receiver of updates is gone.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    self.dirty.extend(self.index.apply(event));
                    self.gather().await;
                    if self.publish().await.is_err() {
                        return;
                    }
                }
                () = sleep_until(self.held.unwrap_or_else(Instant::now)), if self.held.is_some() => {
                    self.held = None;
                    if self.send(self.state.whole()).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(self.patience.front().map_or_else(Instant::now, |next| next.0)),
                    if !self.patience.is_empty() =>
                {
                    if let Some((_, number)) = self.patience.pop_front() {
                        let given_up = self.index.give_up_secrets(number);
                        self.dirty.extend(given_up);
                    }
                    if !self.dirty.is_empty() && self.publish().await.is_err() {
                        return;
                    }
                }
                Some(()) = self.resync.recv() => {
                    let is_published = self.last.is_some() && self.held.is_none();
                    if is_published && self.send(self.state.whole()).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(self.report.log_due().unwrap_or_else(Instant::now)),
                    if self.report.log_due().is_some() => self.report.log_left_out(),
                () = self.updates.closed() => return,
            }
        }
    }

    /// Takes what else has arrived, and until the gap is over what arrives.
    async fn gather(&mut self) {
        let until = self.last.map_or_else(Instant::now, |last| last + GAP);
        for _ in 0..BURST {
            let event = if let Ok(event) = self.events.try_recv() {
                event
            } else if let Ok(Some(event)) = timeout_at(until, self.events.recv()).await {
                event
            } else {
                return;
            };
            self.dirty.extend(self.index.apply(event));
        }
    }

    async fn publish(&mut self) -> Result<(), Gone> {
        if !self.index.complete() {
            self.settle_secrets();
            return Ok(());
        }
        let now = Instant::now();
        let is_first = self.last.replace(now).is_none();
        let update = self
            .state
            .apply(&self.index, std::mem::take(&mut self.dirty));
        self.settle_secrets();
        if let Some(names) = self.state.take_externals() {
            self.names.send_replace(names);
        }
        if let Some(secrets) = self.state.take_named_secrets()
            && let Some(follow) = &self.secrets
        {
            follow.send_replace(self.index.expect_secrets(&secrets));
            let until = now + PATIENCE;
            self.patience.push_back((until, self.index.expected()));
        }
        let mut skipped = self.index.skipped.clone();
        if let foreign @ 1.. = self.state.foreign() {
            let kind = "networking.k8s.io/v1/Ingress of another class".to_owned();
            *skipped.entry(kind).or_default() += u64::try_from(foreign).unwrap_or(u64::MAX);
        }
        if let bare @ 1.. = self.index.bare_secrets() {
            let count = u64::try_from(bare).unwrap_or(u64::MAX);
            skipped.insert(UNNAMED_SECRETS.to_owned(), count);
        }
        self.report.set_skipped(skipped);
        if (is_first || self.held.is_some())
            && let Some(patience) = self.lacking()
        {
            let since = *self.since.get_or_insert(now);
            self.held = Some(since + patience);
            return Ok(());
        }
        if self.held.take().is_some() {
            // Whatever was held back is part of it.
            return self.send(self.state.whole()).await;
        }
        if update.is_empty() {
            return Ok(());
        }
        self.send(update).await
    }

    /// Lets go of Secrets that nobody names and for which there is no room.
    fn settle_secrets(&mut self) {
        if self.secrets.is_none() {
            return;
        }
        if self.last.is_none() {
            let secret = |key: &Key| match key {
                Key::Secret(name) => Some(name.clone()),
                _ => None,
            };
            let told = self.dirty.iter().filter_map(secret).collect();
            return self.index.settle_secrets(&told, None);
        }
        let touched = self.state.take_touched_secrets();
        let is_named = |name: &ObjectName| self.state.serves_secret(name);
        self.index.settle_secrets(&touched, Some(&is_named));
    }

    /// How long the first update waits for what it lacks; `None` if it lacks nothing.
    fn lacking(&self) -> Option<Duration> {
        let mut secrets = self.state.named_secrets();
        let mut names = self.state.externals();
        if !secrets.all(|secret| self.index.has_asked_for(secret)) {
            Some(PATIENCE)
        } else if !names.all(|name| self.index.addresses(name).is_some()) {
            Some(PATIENCE_WITH_DNS)
        } else {
            None
        }
    }

    async fn send(&self, update: Update) -> Result<(), Gone> {
        let sent = self.updates.send(Arc::new(update)).await;
        sent.map_err(|_| Gone)
    }
}

/// Nobody takes updates any more.
#[derive(Debug)]
struct Gone;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        core::v1::{Service, ServiceSpec},
        networking::v1::{
            Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
            ServiceBackendPort,
        },
    };

    use super::{
        super::{
            index::Addresses,
            kept::Change,
            kind::{self, Kind, Visitor},
        },
        *,
    };

    fn settings() -> Settings {
        Settings {
            classes: Vec::new(),
            controllers: Vec::new(),
            annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
            configmap: None,
            default_certificate: None,
            watch_without_class: true,
            allow_loopback_endpoints: false,
            listeners: Vec::new(),
        }
    }

    fn applied(name: &str) -> Event {
        ingress(name, IngressSpec::default())
    }

    /// An Ingress for a host of its own that names a Secret.
    fn naming(name: &str, secret: &str) -> Event {
        let rule = IngressRule {
            host: Some(format!("{name}.test")),
            http: None,
        };
        let tls = IngressTLS {
            hosts: rule.host.clone().map(|host| vec![host]),
            secret_name: Some(secret.to_owned()),
        };
        let spec = IngressSpec {
            rules: Some(vec![rule]),
            tls: Some(vec![tls]),
            ..IngressSpec::default()
        };
        ingress(name, spec)
    }

    fn ingress(name: &str, spec: IngressSpec) -> Event {
        let port = ServiceBackendPort {
            number: Some(80),
            name: None,
        };
        let service = IngressServiceBackend {
            name: "s".into(),
            port: Some(port),
        };
        let backend = IngressBackend {
            service: Some(service),
            resource: None,
        };
        let spec = IngressSpec {
            default_backend: Some(backend),
            ..spec
        };
        let ingress = Ingress {
            spec: Some(spec),
            ..Ingress::default()
        };
        Event::Changed(Kind::changed(Change::Applied(
            ObjectName::new("default", name),
            Box::new(ingress),
        )))
    }

    /// An empty list of each kind.
    struct Lists(Vec<Event>);

    impl Visitor for Lists {
        fn visit<K: Kind>(&mut self) {
            let list = K::changed(Change::Listed(Vec::new()));
            self.0.push(Event::Changed(list));
        }
    }

    struct Run {
        events: mpsc::Sender<Event>,
        updates: mpsc::Receiver<Arc<Update>>,
        resync: mpsc::Sender<()>,
        report: Report,
    }

    fn start() -> Run {
        start_with(None, settings())
    }

    fn start_with(secrets: Option<channel::Sender<Wish>>, settings: Settings) -> Run {
        start_asking(channel::channel(Names::new()).0, secrets, settings)
    }

    fn start_asking(
        names: channel::Sender<Names>,
        secrets: Option<channel::Sender<Wish>>,
        settings: Settings,
    ) -> Run {
        let (events, inbox) = mpsc::channel(1000);
        let (publisher, updates, resync, report) = Publisher::new(inbox, names, secrets, settings);
        tokio::spawn(publisher.run());
        Run {
            events,
            updates,
            resync,
            report,
        }
    }

    /// Default backends of the one host that the tests know.
    fn fallbacks(update: &Update) -> usize {
        let rules = update.hosts.iter().filter_map(|(_, rules)| rules.as_ref());
        rules.map(|rules| rules.fallbacks.len()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_published_before_every_list_is_complete() {
        let mut run = start();
        let mut lists = Lists(Vec::new());
        kind::visit_all(&mut lists);
        let last = lists.0.pop().unwrap();
        run.events.send(applied("old")).await.unwrap();
        for list in lists.0 {
            run.events.send(list).await.unwrap();
        }
        run.events.send(applied("a")).await.unwrap();
        // The clock is paused: this passes once every task has nothing to do.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(run.updates.try_recv().is_err());
        run.events.send(last).await.unwrap();
        let update = run.updates.recv().await.unwrap();
        assert_eq!((update.base, fallbacks(&update)), (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_update_waits_for_secrets_that_are_followed_by_name_but_not_for_ever() {
        for (default, answers, waits) in [
            (None, false, Duration::ZERO),
            (Some("d"), true, Duration::from_secs(1)),
            (Some("d"), false, PATIENCE),
        ] {
            let default = default.map(|name| ObjectName::new("default", name));
            let settings = Settings {
                default_certificate: default.clone(),
                ..settings()
            };
            let (wish, mut wanted) = channel::channel(Wish::new());
            let mut run = start_with(Some(wish), settings);
            let since = Instant::now();
            run.events.send(Event::Whole(Box::default())).await.unwrap();
            run.resync.send(()).await.unwrap();
            if let Some(default) = default {
                wanted.changed().await.unwrap();
                assert!(wanted.borrow().keys().eq([&default]));
                tokio::time::sleep(Duration::from_secs(1)).await;
                run.events.send(applied("a")).await.unwrap();
                if answers {
                    run.events.send(Event::Secret(default, None)).await.unwrap();
                }
            }
            let update = run.updates.recv().await.unwrap();
            let took = since.elapsed();
            let fallbacks = fallbacks(&update);
            assert_eq!(update.base, None, "{waits:?}");
            assert!(
                took >= waits && took <= waits + 2 * GAP,
                "{waits:?}: {took:?}"
            );
            assert_eq!(fallbacks, usize::from(!waits.is_zero()), "{waits:?}");
            // Later ones wait for nothing.
            let since = Instant::now();
            run.events.send(applied("b")).await.unwrap();
            while run.updates.recv().await.unwrap().base.is_none() {}
            assert!(since.elapsed() <= 2 * GAP, "{waits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_update_has_the_addresses_of_external_names_if_dns_answers_soon() {
        let outside = Service {
            spec: Some(ServiceSpec {
                type_: Some("ExternalName".into()),
                external_name: Some("pay.test".into()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        let found = Addresses {
            found: vec![[203, 0, 113, 7].into()],
            failure: None,
        };
        let failure = Addresses {
            found: Vec::new(),
            failure: Some("no such name".into()),
        };
        for (answer, expected, waits) in [
            (Some(found), 1, Duration::from_millis(500)),
            (Some(failure), 0, Duration::from_millis(500)),
            (None, 0, PATIENCE_WITH_DNS),
        ] {
            let (names, mut wanted) = channel::channel(Names::new());
            let mut run = start_asking(names, None, settings());
            let mut lists = Lists(Vec::new());
            kind::visit_all(&mut lists);
            let last = lists.0.pop().unwrap();
            let name = ObjectName::new("default", "s");
            let service = Change::Applied(name, Box::new(outside.clone()));
            let service = Event::Changed(Kind::changed(service));
            for event in lists.0.into_iter().chain([applied("a"), service, last]) {
                run.events.send(event).await.unwrap();
            }
            let since = Instant::now();
            wanted.changed().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(answer) = answer {
                let answer = Event::Addresses("pay.test".into(), Some(answer));
                run.events.send(answer).await.unwrap();
            }
            let update = run.updates.recv().await.unwrap();
            let took = since.elapsed();
            let endpoints = update.endpoints.iter();
            let endpoints = endpoints.filter_map(|(_, endpoints)| endpoints.as_ref());
            let count: usize = endpoints.map(|endpoints| endpoints.len()).sum();
            assert_eq!((update.base, count), (None, expected), "{waits:?}");
            assert!(
                took >= waits && took <= waits + 2 * GAP,
                "{waits:?}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_nothing_is_said_of_counts_as_absent_after_a_while_and_others_wait_for_none()
     {
        let (wish, mut wanted) = channel::channel(Wish::new());
        let mut run = start_with(Some(wish), settings());
        run.events.send(Event::Whole(Box::default())).await.unwrap();
        run.updates.recv().await.unwrap();
        let yet = |report: &Report| {
            let problems = report.problems();
            let mut texts = problems.iter().map(ToString::to_string);
            texts.find_map(|text| {
                let said = text.split_once("Secret default/")?.1;
                said.split_once(';').map(|(said, _)| said.to_owned())
            })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let since = Instant::now();
        run.events.send(naming("a", "two")).await.unwrap();
        run.updates.recv().await.unwrap();
        wanted.changed().await.unwrap();
        assert_eq!(since.elapsed(), Duration::ZERO);
        assert_eq!(
            yet(&run.report).as_deref(),
            Some("two: has not been read yet")
        );
        tokio::time::sleep(PATIENCE - Duration::from_millis(10)).await;
        // A later one has its own time.
        run.events.send(naming("b", "three")).await.unwrap();
        run.updates.recv().await.unwrap();
        assert_eq!(
            yet(&run.report).as_deref(),
            Some("two: has not been read yet")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(yet(&run.report).as_deref(), Some("two: does not exist"));
        let later = run.report.problems();
        let mut later = later.iter().map(ToString::to_string);
        assert!(later.any(|text| text.contains("three: has not been read yet")));
        run.events.send(Event::Whole(Box::default())).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(yet(&run.report), None);
        assert!(wanted.borrow_and_update().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_update_and_what_changes_nothing_is_none() {
        let mut run = start();
        run.events.send(Event::Whole(Box::default())).await.unwrap();
        assert_eq!(run.updates.recv().await.unwrap().base, None);
        for number in 0..100 {
            run.events.send(applied(&number.to_string())).await.unwrap();
        }
        let update = run.updates.recv().await.unwrap();
        assert_eq!(
            (update.base, update.epoch, fallbacks(&update)),
            (Some(1), 2, 100)
        );
        run.events.send(applied("7")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(run.updates.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_after_a_pause_is_published_at_once_and_others_within_the_gap() {
        let mut run = start();
        run.events.send(Event::Whole(Box::default())).await.unwrap();
        run.updates.recv().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = Instant::now();
        run.events.send(applied("a")).await.unwrap();
        run.updates.recv().await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        let sender = tokio::spawn(async move {
            for number in 0.. {
                if run.events.send(applied(&number.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        for _ in 0..10 {
            let before = Instant::now();
            run.updates.recv().await.unwrap();
            assert!(before.elapsed() <= GAP, "{:?}", before.elapsed());
        }
        sender.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_missed_an_update_can_ask_for_the_whole_state() {
        let mut run = start();
        run.events.send(Event::Whole(Box::default())).await.unwrap();
        run.updates.recv().await.unwrap();
        run.events.send(applied("a")).await.unwrap();
        let missed = run.updates.recv().await.unwrap();
        run.resync.send(()).await.unwrap();
        let whole = run.updates.recv().await.unwrap();
        assert_eq!((whole.base, whole.epoch), (None, missed.epoch));
        assert_eq!(fallbacks(&whole), 1);
    }
}
