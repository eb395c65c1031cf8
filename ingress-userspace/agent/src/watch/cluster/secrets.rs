//! The Secrets that are wanted by name: a watch for each, begun and ended as the wish comes and goes.
//!
//! One that does not exist is watched all the same, so that it is there as soon as somebody makes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectList;
use tokio::{
    sync::{Mutex, mpsc, watch as channel},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    super::super::{index::Event, kept::Change, kind::Changed, source::SourceStatus},
    follow::follow,
    health::Group,
    server::Server,
};
use ingress_model::ObjectName;

/// Requests of all these watches are at least this far apart: neither a start nor a server that
/// comes back meets hundreds at once. All that there may be have asked within the time that the
/// first update waits for them.
const APART: Duration = Duration::from_millis(10);

/// The entries of a Secret that are read. Others may be most of it, and none of our business.
const READ: [&str; 2] = ["tls.crt", "tls.key"];

/// Follows the `wanted` Secrets, each as `serve` says, until whoever wants them is gone.
pub(super) async fn follow_named<S: Server<Secret> + 'static>(
    serve: impl Fn(&ObjectName) -> S,
    mut wanted: channel::Receiver<BTreeSet<ObjectName>>,
    events: mpsc::Sender<Event>,
    status: channel::Sender<SourceStatus>,
) {
    let group = Group::new(status);
    let turn = Arc::new(Mutex::new(None));
    let mut watches: BTreeMap<ObjectName, AbortHandle> = BTreeMap::new();
    // Ends them all when it is dropped.
    let mut tasks = JoinSet::new();
    while wanted.changed().await.is_ok() {
        let wanted = wanted.borrow_and_update().clone();
        watches.retain(|name, watch| {
            let stays = wanted.contains(name);
            if !stays {
                watch.abort();
            }
            stays
        });
        // Those that have ended meanwhile.
        while tasks.try_join_next().is_some() {}
        for name in wanted {
            watches.entry(name).or_insert_with_key(|name| {
                let server = Paced {
                    server: serve(name),
                    turn: Arc::clone(&turn),
                };
                let (changes, inbox) = mpsc::channel(1);
                let watch = follow(server, changes, group.join());
                let told = tell(name.clone(), inbox, events.clone());
                tasks.spawn(async {
                    tokio::join!(watch, told);
                })
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
            Change::Listed(list) => list.into_iter().find(|(of, _)| *of == name),
            Change::Applied(of, secret) => Some((of, *secret)),
            Change::Deleted(_) => None,
        };
        let secret = secret.map(|(_, secret)| Arc::new(strip(secret)));
        if events
            .send(Event::Secret(name.clone(), secret))
            .await
            .is_err()
        {
            return;
        }
    }
}

fn strip(mut secret: Secret) -> Secret {
    if let Some(data) = &mut secret.data {
        data.retain(|key, _| READ.contains(&key.as_str()));
    }
    secret
}

/// A server whose requests wait for their turn among those of all watches by name.
struct Paced<S> {
    server: S,
    /// When the last request began. First come, first served; one that is given up takes no turn.
    turn: Arc<Mutex<Option<Instant>>>,
}

impl<S> Paced<S> {
    async fn wait(&self) {
        let mut last = self.turn.lock().await;
        if let Some(last) = *last {
            sleep_until(last + APART).await;
        }
        *last = Some(Instant::now());
    }
}

impl<S: Server<Secret>> Server<Secret> for Paced<S> {
    type Stream = S::Stream;

    async fn page(&self, since: &str, token: Option<String>) -> kube::Result<ObjectList<Secret>> {
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
