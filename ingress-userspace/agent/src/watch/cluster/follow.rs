//! One kind's watch: a list, then changes, for ever.
//!
//! A list is passed on only when it is complete, so a restart takes nothing away that still exists.
//! kube's own watcher tells neither when a server has answered nor that it fell silent, which is
//! what the state of the source is about.

use std::{any::Any, collections::BTreeMap, future::Future, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::{core::v1::Secret, networking::v1::Ingress};
use kube::{Resource, ResourceExt, core::WatchEvent};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    super::super::{
        index::{CERTIFICATE, CERTIFICATE_LIMIT, Event, SERVICE_LABEL, TOO_LARGE},
        kept::{Change, Unread},
        kind::Kind,
        shelf::{self, Shelf, UNKNOWN},
    },
    failure::Failure,
    health::Health,
    pace::{self, ANSWER, Backoff, SETTLED},
    server::{Head, Sent, Server},
};
use ingress_model::ObjectName;

/// Only the newest version will do. Also at the start: a cache that lags, of one server among several, could
/// bring back what an agent before this one, or its proxy, has seen come undone.
const NEWEST: &str = "";
/// A streamed list may take this long, as far as the server is concerned; ours is the limit on
/// silence.
const LIST: Duration = Duration::from_secs(280);
/// Says that a streamed list is complete.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// What a list says, by name.
type Objects<K> = BTreeMap<ObjectName, Result<K, Unread>>;

/// Follows one kind until nobody wants to know any more.
pub(super) async fn follow<K: Kind>(
    server: impl Server<K>,
    events: mpsc::Sender<Event>,
    health: Health,
) {
    let mut follower = Follower {
        server,
        events: events.clone(),
        health,
        backoff: Backoff::default(),
        version: NEWEST.to_owned(),
        listed: false,
        streams_lists: true,
        stream: None,
        sound: false,
    };
    tokio::select! {
        () = follower.run::<K>() => {}
        () = events.closed() => {}
    }
}

struct Follower<S, T> {
    server: S,
    events: mpsc::Sender<Event>,
    health: Health,
    backoff: Backoff,
    /// The newest version that was heard of.
    version: String,
    /// What came after `version` makes the list complete; otherwise a new list is due.
    listed: bool,
    /// Until the server refuses.
    streams_lists: bool,
    /// A list's stream that goes on with changes.
    stream: Option<T>,
    /// Nothing failed since changes were seen.
    sound: bool,
}

impl<T, S> Follower<S, T> {
    async fn run<K: Kind>(&mut self)
    where
        S: Server<K, Stream = T>,
        T: futures_util::Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin,
    {
        loop {
            let done = if self.listed {
                self.watch().await
            } else {
                self.list().await
            };
            if let Err(failure) = done {
                self.fail::<K>(failure).await;
            }
        }
    }

    async fn fail<K: Kind>(&mut self, failure: Failure) {
        // A server that makes nothing of a version to watch from, as one of another cluster in its
        // place may, is asked for a list: the same question would have the same answer for ever.
        if failure.forgotten || (self.listed && failure.unsupported) {
            // Nothing older than the newest: what was seen must not come undone.
            NEWEST.clone_into(&mut self.version);
            self.listed = false;
        }
        self.stream = None;
        self.sound = false;
        let kind = K::kind(&());
        self.health
            .failing(format!("watch {kind}: {}", failure.reason));
        sleep(self.backoff.pause(failure.class)).await;
    }

    /// Changes are seen.
    fn fine(&mut self) {
        if !self.sound {
            self.sound = true;
            self.backoff.reset();
            self.health.fine();
        }
    }

    /// Gets all objects and passes them on.
    async fn list<K: Kind>(&mut self) -> Result<(), Failure>
    where
        S: Server<K, Stream = T>,
        T: futures_util::Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin,
    {
        let objects = if self.streams_lists {
            match self.streamed_list().await {
                Err(failure) if failure.unsupported => {
                    self.streams_lists = false;
                    self.paged_list().await?
                }
                streamed => streamed?,
            }
        } else {
            self.paged_list().await?
        };
        self.listed = true;
        // In this order: whoever sees the state also sees what it is about.
        self.pass(Change::Listed(objects.into_iter().collect()))
            .await;
        self.health.heard(true);
        // No recovery yet: a server whose watches fail after every list is asked ever less often.
        self.health.fine();
        Ok(())
    }

    async fn streamed_list<K: Kind>(&mut self) -> Result<Objects<K>, Failure>
    where
        S: Server<K, Stream = T>,
        T: futures_util::Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin,
    {
        let mut stream =
            answer::<K, _>("watch", self.server.open(&self.version, true, LIST)).await?;
        let (mut objects, mut shelf) = (BTreeMap::new(), Shelf::default());
        loop {
            let Ok(next) = timeout(ANSWER, stream.next()).await else {
                return Err(Failure::unanswered("the list stopped midway"));
            };
            let event = next.ok_or_else(|| Failure::unanswered("the list broke off"))?;
            self.health.heard(false);
            match event.map_err(|error| Failure::of::<K>("watch", &error))? {
                WatchEvent::Added(sent) | WatchEvent::Modified(sent) => {
                    let kept = self.keep(sent);
                    objects.extend(kept.map(|kept| fit_in(&mut shelf, kept)));
                }
                WatchEvent::Deleted(sent) => {
                    if let Some((name, _)) = self.keep(sent) {
                        shelf.take_out(&name);
                        objects.remove(&name);
                    }
                }
                WatchEvent::Bookmark(mark) => {
                    if mark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.version = mark.metadata.resource_version;
                        self.stream = Some(stream);
                        return Ok(objects);
                    }
                }
                WatchEvent::Error(status) => return Err(Failure::refused::<K>("watch", &status)),
            }
        }
    }

    async fn paged_list<K: Kind>(&mut self) -> Result<Objects<K>, Failure>
    where
        S: Server<K, Stream = T>,
        T: futures_util::Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin,
    {
        let (mut objects, mut shelf) = (BTreeMap::new(), Shelf::default());
        let mut token = None;
        loop {
            let page = answer::<K, _>("list", self.server.page(&self.version, token)).await?;
            self.health.heard(false);
            let kept = page.items.into_iter().filter_map(|sent| self.keep(sent));
            objects.extend(kept.map(|kept| fit_in(&mut shelf, kept)));
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                self.version = page
                    .metadata
                    .resource_version
                    .filter(|version| !version.is_empty())
                    .ok_or_else(|| Failure::unanswered("a list without a resourceVersion"))?;
                return Ok(objects);
            }
        }
    }

    /// Passes changes on until the watch ends, as each does after a while.
    async fn watch<K: Kind>(&mut self) -> Result<(), Failure>
    where
        S: Server<K, Stream = T>,
        T: futures_util::Stream<Item = kube::Result<WatchEvent<Sent<K>>>> + Send + Unpin,
    {
        let length = pace::watch_length();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => answer::<K, _>("watch", self.server.open(&self.version, false, length)).await?,
        };
        let opened = Instant::now();
        let (settled, overdue) = (opened + SETTLED, opened + pace::overdue(length));
        self.health.heard(true);
        loop {
            let until = if self.sound { overdue } else { settled };
            let event = match timeout_at(until, stream.next()).await {
                Ok(Some(event)) => event,
                // Again and again without a pause, if this were no failure.
                Ok(None) if Instant::now() < settled => {
                    return Err(Failure::unanswered("the watch ended as soon as it began"));
                }
                Ok(None) => return Ok(()),
                Err(_) if !self.sound => {
                    self.fine();
                    continue;
                }
                // The server is silent, or has listed on this stream. The next watch tells: it
                // takes another connection, since this one is closed.
                Err(_) => return Ok(()),
            };
            self.health.heard(false);
            let change = match event {
                Ok(WatchEvent::Added(sent) | WatchEvent::Modified(sent)) => {
                    self.seen(version(&sent));
                    match self.keep(sent) {
                        Some((name, Ok(object))) => Change::Applied(name, Box::new(object)),
                        Some((name, Err(unread))) => Change::Unread(name, unread),
                        None => continue,
                    }
                }
                Ok(WatchEvent::Deleted(sent)) => {
                    self.seen(version(&sent));
                    match self.keep(sent) {
                        Some((name, _)) => Change::Deleted(name),
                        None => continue,
                    }
                }
                Ok(WatchEvent::Bookmark(mark)) => {
                    self.seen(Some(mark.metadata.resource_version));
                    self.fine();
                    continue;
                }
                Ok(WatchEvent::Error(status)) => {
                    return Err(Failure::refused::<K>("watch", &status));
                }
                // What is no event must not keep the others back.
                Err(kube::Error::SerdeError(error)) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "skipped a line");
                    continue;
                }
                Err(error) => return Err(Failure::of::<K>("watch", &error)),
            };
            self.pass(change).await;
            self.fine();
        }
    }

    /// The name of an object, and what is kept of it.
    fn keep<K: Kind>(&self, sent: Sent<K>) -> Option<(ObjectName, Result<K, Unread>)> {
        match sent {
            Ok(object) => Some((name(&object), fit(strip(object)))),
            Err(Head { name, unread, .. }) => {
                if name.is_none() {
                    tracing::warn!(kind = %K::kind(&()), error = %unread.error, "left out an object without a name");
                    self.health.unnamed();
                }
                Some((name?, Err(unread)))
            }
        }
    }

    fn seen(&mut self, version: Option<String>) {
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.version = version;
        }
    }

    async fn pass<K: Kind>(&mut self, change: Change<K>) {
        // Fails when the index is gone, which ends `follow`.
        let _ = self.events.send(Event::Changed(K::changed(change))).await;
    }
}

/// Waits for an answer, but not for ever.
async fn answer<K: Kind, T>(
    verb: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match timeout(ANSWER, request).await {
        Ok(answered) => answered.map_err(|error| Failure::of::<K>(verb, &error)),
        Err(_) => Err(Failure::unanswered(format!(
            "no answer for {} s",
            ANSWER.as_secs()
        ))),
    }
}

fn version<K: Resource>(sent: &Sent<K>) -> Option<String> {
    match sent {
        Ok(object) => object.resource_version(),
        Err(head) => head.version.clone(),
    }
}

fn name<K: Resource>(object: &K) -> ObjectName {
    ObjectName::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// Refuses a Secret that is larger than any certificate.
fn fit<K: Kind>(object: K) -> Result<K, Unread> {
    let any: &dyn Any = &object;
    let secret = any.downcast_ref::<Secret>();
    let data = secret.and_then(|secret| secret.data.as_ref());
    let size: usize = data.map_or(0, |data| data.values().map(|entry| entry.0.len()).sum());
    if size <= CERTIFICATE_LIMIT {
        return Ok(object);
    }
    Err(Unread {
        uid: object.uid().map(String::into),
        error: TOO_LARGE.into(),
        outline: None,
    })
}

/// Keeps only the name of a Secret for which a list has no room in its namespace: it is read by name, if
/// somebody names it.
pub(super) fn fit_in<K: Kind>(
    shelf: &mut Shelf,
    (name, object): (ObjectName, Result<K, Unread>),
) -> (ObjectName, Result<K, Unread>) {
    let mut object = object;
    let any: Option<&mut dyn Any> = object.as_mut().ok().map(|object| object as _);
    match any.and_then(|any| any.downcast_mut::<Secret>()) {
        Some(secret) if !shelf.place(&name, shelf::size(secret), UNKNOWN) => {
            *secret = shelf::bare(secret);
        }
        _ => {}
    }
    (name, object)
}

/// Frees what is never read; it can be most of an object. A map that is left empty goes, too: its
/// first entry has taken half a kilobyte.
fn strip<K: Kind>(mut object: K) -> K {
    let any: &mut dyn Any = &mut object;
    let secret = any.downcast_mut::<Secret>();
    if let Some(data) = secret.and_then(|secret| secret.data.as_mut()) {
        data.retain(|key, _| CERTIFICATE.contains(&key.as_str()));
    }
    let has_settings = any.is::<Ingress>();
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.owner_references = None;
    meta.finalizers = None;
    // Of a Secret one of them may hold the private key once more.
    meta.annotations = meta.annotations.take().filter(|_| has_settings);
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if let Some(labels) = &mut meta.labels {
        labels.retain(|label, _| label == SERVICE_LABEL);
    }
    for map in [&mut meta.annotations, &mut meta.labels] {
        if map.as_ref().is_some_and(BTreeMap::is_empty) {
            *map = None;
        }
    }
    object
}
