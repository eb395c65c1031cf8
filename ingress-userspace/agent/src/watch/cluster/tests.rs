//! Scripts of what an API server may say, without one.

use std::sync::Mutex;

use futures_util::stream;
use kube::{api::ObjectMeta, core::Status};

use super::{super::super::kind::Changed, *};
use k8s_openapi::api::core::v1::Service;

fn service(name: &str) -> Service {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        ..Default::default()
    };
    Service {
        metadata,
        ..Service::default()
    }
}

fn gone() -> watcher::Error {
    watcher::Error::WatchError(Box::new(Status {
        code: 410,
        ..Status::failure("too old", "Expired")
    }))
}

/// Feeds `script` to one watch and gives back the changes and the states that came of it.
async fn run(
    script: Vec<watcher::Result<watcher::Event<Service>>>,
) -> (Vec<String>, Vec<SourceState>) {
    let (events, mut inbox) = mpsc::channel(64);
    let (state, feed) = channel::channel(SourceState::Starting);
    let health = Arc::new(Health {
        kinds: Mutex::default(),
        state,
    });
    health.set("Service", Condition::Listing);
    let states = Arc::new(Mutex::new(Vec::new()));
    let script = stream::iter(script).inspect({
        let states = Arc::clone(&states);
        // Polled for the next event only when the one before was dealt with.
        move |_| states.lock().unwrap().push(feed.borrow().clone())
    });
    follow("Service".into(), script, events, health).await;
    let mut changes = Vec::new();
    while let Ok(Event::Changed(Changed::Service(change))) = inbox.try_recv() {
        changes.push(match change {
            Change::Listed(list) => format!(
                "listed {}",
                list.iter().map(|(name, _)| &*name.name).collect::<String>()
            ),
            Change::Applied(name, _) => format!("applied {}", name.name),
            Change::Deleted(name) => format!("deleted {}", name.name),
        });
    }
    let states = states.lock().unwrap().clone();
    (changes, states)
}

#[tokio::test(start_paused = true)]
async fn a_list_is_passed_on_only_when_it_is_complete() {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    let script = vec![
        Ok(Init),
        Ok(InitApply(service("a"))),
        // Broken off between two pages: starts from nothing again.
        Err(watcher::Error::NoResourceVersion),
        Ok(Init),
        Ok(InitApply(service("b"))),
        Ok(InitApply(service("c"))),
        Ok(InitDone),
        Ok(Apply(service("d"))),
        Ok(Delete(service("b"))),
    ];
    assert_eq!(run(script).await.0, ["listed bc", "applied d", "deleted b"]);
}

#[tokio::test(start_paused = true)]
async fn a_relist_after_410_takes_nothing_away_before_it_is_complete() {
    use watcher::Event::{Apply, Init, InitApply, InitDone};
    let script = vec![
        Ok(Init),
        Ok(InitApply(service("a"))),
        Ok(InitDone),
        Err(gone()),
        Ok(Init),
        Ok(InitApply(service("a"))),
        Ok(InitDone),
        Ok(Apply(service("b"))),
    ];
    let (changes, states) = run(script).await;
    assert_eq!(changes, ["listed a", "listed a", "applied b"]);
    assert_eq!(states[0], SourceState::Starting);
    assert_eq!(states[3], SourceState::InSync);
    assert!(
        matches!(&states[4], SourceState::Degraded { reason } if reason.starts_with("watch Service: "))
    );
    assert!(
        matches!(states[6], SourceState::Degraded { .. }),
        "a half of a list is no recovery"
    );
    assert_eq!(states[7], SourceState::InSync);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_no_longer_fails_recovers_without_any_event() {
    let (events, _inbox) = mpsc::channel(64);
    let (state, mut feed) = channel::channel(SourceState::Starting);
    let health = Arc::new(Health {
        kinds: Mutex::default(),
        state,
    });
    let script = vec![
        Ok(watcher::Event::<Service>::Init),
        Ok(watcher::Event::InitDone),
        Err(gone()),
    ];
    let script = stream::iter(script).chain(stream::pending());
    tokio::spawn(follow("Service".into(), script, events, health));
    feed.wait_for(|state| matches!(state, SourceState::Degraded { .. }))
        .await
        .unwrap();
    feed.wait_for(|state| *state == SourceState::InSync)
        .await
        .unwrap();
}
