//! A folder of manifests as a source: scans it when it changes, and from time to time in any case.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event};
use tokio::{
    sync::{mpsc, watch as channel},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    super::{
        index::{Event, Index},
        source::{AgentError, SourceState, SourceStatus},
    },
    files::Files,
};

/// A scan waits for this much quiet: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(40);
/// A scan waits no longer than this: some folders never rest.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two scans without a notification. Some file systems send none.
const POLL: Duration = Duration::from_millis(500);

/// Starts to follow `folder`.
///
/// # Errors
/// It does not exist, is no folder, or cannot be listed.
pub(crate) fn start(
    folder: PathBuf,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
) -> Result<(), AgentError> {
    match std::fs::read_dir(&folder) {
        Ok(_) => {
            tokio::spawn(follow(folder, events, state));
            Ok(())
        }
        Err(source) => Err(AgentError::Folder {
            path: folder,
            source,
        }),
    }
}

async fn follow(
    folder: PathBuf,
    events: mpsc::Sender<Event>,
    state: channel::Sender<SourceStatus>,
) {
    // Room for one: "something changed" need not be said twice.
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = Subscription::new(&folder, changed);
    let mut files = Files::new(folder);
    let mut first = true;
    loop {
        let started = Instant::now();
        let Ok((scanned, result)) = spawn_blocking(move || scan(files, first)).await else {
            // Only where the runtime is going down.
            return;
        };
        files = scanned;
        let now = match result {
            Ok(index) => {
                if let Some(index) = index {
                    first = false;
                    if events.send(Event::Whole(Box::new(index))).await.is_err() {
                        return;
                    }
                }
                SourceState::InSync
            }
            Err(error) => SourceState::Degraded {
                reason: format!("manifests folder: {error}"),
            },
        };
        watcher.renew();
        state.send_if_modified(|status| status.turn(now, "manifests folder"));
        // A large folder is polled less often: a scan may take two in a hundred of the time.
        let rest = POLL.max(started.elapsed() * 50);
        tokio::select! {
            () = events.closed() => return,
            _ = timeout(rest, settle(&mut changes)) => {}
        }
    }
}

fn scan(mut files: Files, first: bool) -> (Files, io::Result<Option<Index>>) {
    let result = files
        .scan()
        .map(|changed| (changed || first).then(|| files.index()));
    (files, result)
}

/// Waits for a change and then for quiet.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    if changes.recv().await.is_none() {
        return std::future::pending().await;
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if timeout(QUIET, changes.recv()).await.is_err() {
            return;
        }
    }
}

/// Notifications of the kernel; without them, polling is what is left.
struct Subscription {
    folder: PathBuf,
    changed: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
    inode: Option<(u64, u64)>,
}

impl Subscription {
    fn new(folder: &Path, changed: mpsc::Sender<()>) -> Self {
        let mut new = Self {
            folder: folder.to_owned(),
            changed,
            watcher: None,
            inode: None,
        };
        new.renew();
        new
    }

    /// Subscribes again where another folder has taken the name.
    fn renew(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let inode = std::fs::metadata(&self.folder)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if inode == self.inode {
            return;
        }
        self.inode = inode;
        let changed = self.changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !reads_only(event.kind)) {
                // Full: a notification waits already.
                let _ = changed.try_send(());
            }
        });
        let subscribed = watcher.and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        self.watcher = subscribed
            .inspect_err(|error| tracing::warn!(%error, "no change notifications for the manifests folder; polling instead"))
            .ok();
    }
}

/// Our own scans open files and folders; that is no change.
fn reads_only(kind: EventKind) -> bool {
    use event::{AccessKind, AccessMode};
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
