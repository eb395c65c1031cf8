//! The Secrets that are wanted by name: a watch for each, begun and ended as the wish comes and goes.
//!
//! One that does not exist is watched all the same, so that it is there as soon as somebody makes it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectList;
use tokio::{
    sync::{Mutex, mpsc, watch as channel},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    super::super::{
        index::{Event, Wish},
        kept::Change,
        kind::Changed,
        source::SourceStatus,
    },
    follow::follow,
    health::Group,
    server::{Sent, Server},
};
use ingress_model::ObjectName;

/// Requests of all these watches are at least this far apart: neither a start nor a server that
/// comes back meets hundreds at once. As many as there may be have asked well within the time that
/// the first update waits for them.
const APART: Duration = Duration::from_millis(5);

/// Follows the `wanted` Secrets, each as `serve` says, until whoever wants them is gone.
pub(super) async fn follow_named<S: Server<Secret> + 'static>(
    serve: impl Fn(&ObjectName) -> S,
    mut wanted: channel::Receiver<Wish>,
    events: mpsc::Sender<Event>,
    status: channel::Sender<SourceStatus>,
) {
    let group = Group::new(status);
    let turn = Arc::new(Mutex::new(None));
    let mut turns: BTreeMap<String, Arc<Mutex<()>>> = BTreeMap::new();
    let mut watches: BTreeMap<ObjectName, (u64, AbortHandle)> = BTreeMap::new();
    // Ends them all when it is dropped.
    let mut tasks = JoinSet::new();
    while wanted.changed().await.is_ok() {
        let wanted = wanted.borrow_and_update().clone();
        watches.retain(|name, (number, watch)| {
            let stays = wanted.get(name) == Some(number);
            if !stays {
                watch.abort();
            }
            stays
        });
        // Those that have ended meanwhile.
        while tasks.try_join_next().is_some() {}
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        for (name, number) in wanted {
            watches.entry(name).or_insert_with_key(|name| {
                let server = Paced {
                    server: serve(name),
                    of_namespace: Arc::clone(turns.entry(name.namespace.clone()).or_default()),
                    turn: Arc::clone(&turn),
                };
                let (changes, inbox) = mpsc::channel(1);
                let watch = follow(server, changes, group.join());
                let told = tell(name.clone(), inbox, events.clone());
                let task = tasks.spawn(async {
                    tokio::join!(watch, told);
                });
                (number, task)
            });
        }
    }
}

/// Passes on what one watch says of the Secret `name`.
async fn tell(name: ObjectName, mut changes: mpsc::Receiver<Event>, events: mpsc::Sender<Event>) {
    while let Some(change) = changes.recv().await {
        let Event::Changed(Changed::Secret(change)) = change else {
            continue;
        };
        let secret = match change {
            Change::Listed(list) => list
                .into_iter()
                .find_map(|(of, secret)| (of == name).then_some(secret)),
            Change::Applied(of, secret) if of == name => Some(Ok(*secret)),
            Change::Unread(of, unread) if of == name => Some(Err(unread)),
            Change::Deleted(of) if of == name => None,
            // The server knows no field selectors; it must not hand one Secret out as another.
            Change::Applied(..) | Change::Unread(..) | Change::Deleted(_) => continue,
        };
        let event = match secret.transpose() {
            Ok(secret) => Event::Secret(name.clone(), secret.map(Arc::new)),
            Err(unread) => Event::UnreadSecret(name.clone(), unread),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// A server whose requests wait for their turn among those of all watches by name.
struct Paced<S> {
    server: S,
    /// Held by the one watch of the namespace that waits for `turn`: so namespaces take turns, and
    /// who has hundreds lets others wait no longer than who has one.
    of_namespace: Arc<Mutex<()>>,
    /// When the last request began. First come, first served; one that is given up takes no turn.
    turn: Arc<Mutex<Option<Instant>>>,
}

impl<S> Paced<S> {
    async fn wait(&self) {
        let _first = self.of_namespace.lock().await;
        let mut last = self.turn.lock().await;
        if let Some(last) = *last {
            sleep_until(last + APART).await;
        }
        *last = Some(Instant::now());
    }
}

impl<S: Server<Secret>> Server<Secret> for Paced<S> {
    type Stream = S::Stream;

    async fn page(
        &self,
        since: &str,
        token: Option<String>,
    ) -> kube::Result<ObjectList<Sent<Secret>>> {
        self.wait().await;
        self.server.page(since, token).await
    }

    async fn open(
        &self,
        since: &str,
        listing: bool,
        length: Duration,
    ) -> kube::Result<Self::Stream> {
        self.wait().await;
        self.server.open(since, listing, length).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::{
        StreamExt,
        stream::{self, BoxStream},
    };
    use k8s_openapi::ByteString;
    use kube::{
        api::TypeMeta,
        core::{
            Status, WatchEvent,
            watch::{Bookmark, BookmarkMeta},
        },
    };
    use tokio::time::timeout;

    use super::{
        super::{
            super::super::{
                index::{CERTIFICATE, Index},
                kept::Unread,
                source::{Condition, SourceState},
            },
            health::Health,
        },
        *,
    };

    /// Has every Secret whose name begins with `there`, unless it refuses.
    struct Fake {
        name: ObjectName,
        refuses: bool,
        asked: Arc<std::sync::Mutex<Vec<Instant>>>,
    }

    impl Server<Secret> for Fake {
        type Stream = BoxStream<'static, kube::Result<WatchEvent<Sent<Secret>>>>;

        async fn page(&self, _: &str, _: Option<String>) -> kube::Result<ObjectList<Sent<Secret>>> {
            std::future::pending().await
        }

        async fn open(&self, _: &str, listing: bool, _: Duration) -> kube::Result<Self::Stream> {
            self.asked.lock().unwrap().push(Instant::now());
            if self.refuses {
                let status = Status::failure("no", "Reason").with_code(500);
                return Err(kube::Error::Api(Box::new(status)));
            }
            let mut secret = Secret::default();
            secret.metadata.namespace = Some(self.name.namespace.clone());
            secret.metadata.name = Some(self.name.name.clone());
            let entry = |key: &str| (key.to_owned(), ByteString(vec![1]));
            secret.data = Some(["tls.crt", "tls.key", "password"].map(entry).into());
            let is_there = listing && self.name.name.starts_with("there");
            let mut said: Vec<_> = is_there
                .then(|| Ok(WatchEvent::Added(Ok(secret))))
                .into_iter()
                .collect();
            let mark = ("k8s.io/initial-events-end".to_owned(), "true".to_owned());
            said.push(Ok(WatchEvent::Bookmark(Bookmark {
                types: TypeMeta::resource::<Secret>(),
                metadata: BookmarkMeta {
                    resource_version: "7".to_owned(),
                    annotations: [mark].into(),
                },
            })));
            Ok(stream::iter(said).chain(stream::pending()).boxed())
        }
    }

    struct Run {
        wish: channel::Sender<Wish>,
        inbox: mpsc::Receiver<Event>,
        status: channel::Receiver<SourceStatus>,
        asked: Arc<std::sync::Mutex<Vec<Instant>>>,
    }

    fn run(refuses: bool) -> Run {
        let (wish, wanted) = channel::channel(Wish::new());
        let (events, inbox) = mpsc::channel(1000);
        let (sender, status) = channel::channel(SourceStatus::starting());
        let asked: Arc<std::sync::Mutex<Vec<Instant>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let serve = move |name: &ObjectName| Fake {
            name: name.clone(),
            refuses,
            asked: Arc::clone(&noted),
        };
        tokio::spawn(follow_named(serve, wanted, events, sender));
        Run {
            wish,
            inbox,
            status,
            asked,
        }
    }

    fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Wish {
        let named = |name: _| (ObjectName::new("default", name), 0);
        names.into_iter().map(named).collect()
    }

    async fn told(inbox: &mut mpsc::Receiver<Event>) -> (String, Option<Arc<Secret>>) {
        match inbox.recv().await {
            Some(Event::Secret(name, secret)) => (name.name, secret),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_is_told_whether_it_exists_and_followed_no_longer_than_that() {
        let mut run = run(false);
        run.wish.send_replace(names(["there", "void"]));
        let (name, secret) = told(&mut run.inbox).await;
        let keys: Vec<_> = secret.unwrap().data.clone().unwrap().into_keys().collect();
        assert_eq!(
            (&*name, keys),
            ("there", CERTIFICATE.map(str::to_owned).to_vec())
        );
        assert_eq!(told(&mut run.inbox).await, ("void".to_owned(), None));
        let fine = |status: &SourceStatus| {
            status.kinds.len() == 1 && status.kinds[0].condition == Condition::Fine
        };
        run.status.wait_for(fine).await.unwrap();
        // Wanted again, it is another watch.
        run.wish.send_replace(names(["void"]));
        run.status.wait_for(fine).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        run.wish.send_replace(names(["there", "void"]));
        assert_eq!(told(&mut run.inbox).await.0, "there");
        run.wish.send_replace(Wish::new());
        run.status
            .wait_for(|status| status.kinds.is_empty())
            .await
            .unwrap();
        let asked = run.asked.lock().unwrap().len();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(run.asked.lock().unwrap().len(), asked, "nobody wants any");
        drop(run.wish);
        assert!(run.inbox.recv().await.is_none(), "all has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_again_before_it_was_seen_that_nobody_did_is_told_again() {
        let mut run = run(false);
        let there: BTreeSet<_> = names(["there"]).into_keys().collect();
        let mut index = Index::default();
        run.wish.send_replace(index.expect_secrets(&there));
        for _ in 0..2 {
            let event = timeout(Duration::from_secs(1), run.inbox.recv()).await;
            index.apply(event.expect("it is asked for").unwrap());
            let known = there.iter().all(|name| index.named_secret(name).is_some());
            assert!(known);
            // An Ingress is deleted and made again, sooner than it is seen here.
            run.wish
                .send_replace(index.expect_secrets(&BTreeSet::new()));
            run.wish.send_replace(index.expect_secrets(&there));
        }
        // Nothing differs.
        told(&mut run.inbox).await;
        run.wish.send_replace(index.expect_secrets(&there));
        let again = timeout(Duration::from_secs(600), run.inbox.recv());
        assert!(again.await.is_err());
    }

    #[tokio::test]
    async fn what_a_server_says_of_other_secrets_is_not_taken_for_the_one_that_is_wanted() {
        let (changes, inbox) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        let (own, other) = (
            ObjectName::new("default", "own"),
            ObjectName::new("default", "other"),
        );
        let unread = Unread {
            uid: None,
            error: "cannot be read".into(),
            ..Unread::default()
        };
        for change in [
            Change::Listed(vec![(other.clone(), Ok(Secret::default()))]),
            Change::Unread(other.clone(), unread.clone()),
            Change::Applied(other.clone(), Box::default()),
            Change::Applied(own.clone(), Box::default()),
            Change::Unread(own.clone(), unread.clone()),
            Change::Deleted(other.clone()),
            Change::Deleted(own.clone()),
        ] {
            let change = Event::Changed(Changed::Secret(change));
            changes.send(change).await.unwrap();
        }
        drop(changes);
        tell(own.clone(), inbox, events).await;
        for is_there in [Some(false), Some(true), None, Some(false)] {
            match told.recv().await {
                Some(Event::Secret(name, secret)) => {
                    assert_eq!((&name, Some(secret.is_some())), (&own, is_there));
                }
                Some(Event::UnreadSecret(name, why)) => {
                    assert_eq!((&name, why, is_there), (&own, unread.clone(), None));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(told.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_secret_of_any_watch_only_the_certificate_is_kept() {
        let fake = Fake {
            name: ObjectName::new("default", "there"),
            refuses: false,
            asked: Arc::default(),
        };
        let (events, mut inbox) = mpsc::channel(8);
        let (status, _status) = channel::channel(SourceStatus::starting());
        let health = Health::new("Secret".into(), status);
        tokio::spawn(follow(fake, events, health));
        let Some(Event::Changed(Changed::Secret(Change::Listed(list)))) = inbox.recv().await else {
            panic!("no list");
        };
        let data = list[0].1.clone().unwrap().data.unwrap();
        assert!(data.keys().eq(&CERTIFICATE.map(str::to_owned)), "{data:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn hundreds_begin_one_after_the_other_and_within_the_time_that_a_start_waits() {
        let mut run = run(false);
        let since = Instant::now();
        run.wish
            .send_replace(names((0..256).map(|number| format!("void{number}"))));
        for _ in 0..256 {
            told(&mut run.inbox).await;
        }
        assert!(
            since.elapsed() < Duration::from_secs(3),
            "{:?}",
            since.elapsed()
        );
        let asked = run.asked.lock().unwrap();
        assert_eq!(asked.len(), 256);
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= APART));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_another_namespace_waits_for_none_of_hundreds() {
        let mut run = run(false);
        let mut wish = names((0..255).map(|number| format!("void{number}")));
        run.wish.send_replace(wish.clone());
        told(&mut run.inbox).await;
        wish.insert(ObjectName::new("other", "there"), 0);
        let since = Instant::now();
        run.wish.send_replace(wish);
        while told(&mut run.inbox).await.0 != "there" {}
        assert!(since.elapsed() <= 4 * APART, "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_changes_all_the_time_takes_no_turn_from_others() {
        let mut run = run(false);
        for round in 0..100 {
            let other = (0..200).map(|number| format!("void{round}-{number}"));
            run.wish.send_replace(names(other));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        run.wish.send_replace(names(["late"]));
        let since = Instant::now();
        while told(&mut run.inbox).await.0 != "late" {}
        assert!(
            since.elapsed() < Duration::from_secs(3),
            "{:?}",
            since.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_asked_ever_less_and_shown_as_one_line() {
        let mut run = run(true);
        run.wish
            .send_replace(names((0..256).map(|number| format!("void{number}"))));
        tokio::time::sleep(Duration::from_secs(300)).await;
        let before = run.asked.lock().unwrap().len();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = run.asked.lock().unwrap().len() - before;
        assert!((256..256 * 6).contains(&asked), "{asked} in a minute");
        let status = run.status.borrow().clone();
        assert!(
            matches!(status.state, SourceState::Degraded { .. }),
            "{status:?}"
        );
        let kinds: Vec<_> = status.kinds.iter().map(|watch| &*watch.kind).collect();
        assert_eq!(kinds, ["Secret by name"]);
        run.wish.send_replace(Wish::new());
        let healed = |status: &SourceStatus| status.state == SourceState::InSync;
        run.status.wait_for(healed).await.unwrap();
    }
}
