//! The whole agent on a folder: what it says, when, and what it does not start with.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::*;
use ingress_model::Problem;

pub(super) fn settings() -> Settings {
    Settings {
        classes: vec!["nginx".into()],
        controllers: Vec::new(),
        annotations_prefix: "nginx.ingress.kubernetes.io".to_owned(),
        configmap: None,
        default_certificate: None,
        watch_without_class: true,
        allow_loopback_endpoints: true,
        listeners: Vec::new(),
    }
}

fn ingress(host: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web}}\nspec: {{rules: [{{host: {host}, http: \
         {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: s, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

async fn follow(folder: &Path) -> Feed {
    start(Source::Folder(folder.to_owned()), settings())
        .await
        .unwrap()
}

/// Waits for the update that brings `host`, and tells how long it took.
async fn host(feed: &mut Feed, host: &str) -> Duration {
    let started = Instant::now();
    let brings = |update: &Update| {
        let mut hosts = update.hosts.iter();
        hosts.any(|(of, rules)| of.to_string() == host && rules.is_some())
    };
    let wait = async { while !brings(&feed.updates.recv().await.unwrap()) {} };
    timeout(Duration::from_secs(10), wait).await.unwrap();
    started.elapsed()
}

/// Waits until a problem of the report is like this.
async fn problem(feed: &Feed, is: impl Fn(&Problem) -> bool) {
    let wait = async {
        while !feed.report.problems().iter().any(&is) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap();
}

#[tokio::test]
async fn edits_of_a_folder_are_followed_within_a_second_and_broken_files_keep_the_last_good_state()
{
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    fs::write(&file, ingress("a.test")).unwrap();
    let mut feed = follow(folder.path()).await;
    host(&mut feed, "a.test").await;
    assert_eq!(feed.state.borrow().state, SourceState::InSync);

    fs::write(&file, ingress("b.test")).unwrap();
    assert!(host(&mut feed, "b.test").await < Duration::from_secs(1));

    fs::write(
        &file,
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: [",
    )
    .unwrap();
    let named = |problem: &Problem| {
        let file = problem.file.as_ref();
        file.is_some_and(|file| file.ends_with("web.yaml:3"))
    };
    problem(&feed, named).await;
    assert!(
        feed.updates.try_recv().is_err(),
        "the last good version stays"
    );

    // As editors do: another file takes the name.
    let other = folder.path().join(".web.yaml.new");
    fs::write(&other, ingress("c.test")).unwrap();
    fs::rename(&other, &file).unwrap();
    assert!(host(&mut feed, "c.test").await < Duration::from_secs(1));
    assert!(
        !feed
            .report
            .problems()
            .iter()
            .any(|problem| problem.file.is_none())
    );

    // In a folder that did not exist when the watch began.
    fs::remove_file(&file).unwrap();
    fs::create_dir_all(folder.path().join("x/y")).unwrap();
    fs::write(folder.path().join("x/y/web.yml"), ingress("d.test")).unwrap();
    assert!(host(&mut feed, "d.test").await < Duration::from_secs(1));
}

#[tokio::test]
async fn empty_folder_is_a_whole_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut feed = follow(folder.path()).await;
    let update = timeout(Duration::from_secs(10), feed.updates.recv());
    let update = update.await.unwrap().unwrap();
    let empty = Update {
        epoch: 1,
        ..Update::default()
    };
    assert_eq!(*update, empty);
}

#[tokio::test]
async fn folder_that_vanishes_degrades_and_one_that_takes_its_place_is_followed() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("web.yaml"), ingress("a.test")).unwrap();
    let mut feed = follow(&folder).await;
    host(&mut feed, "a.test").await;
    fs::remove_dir_all(&folder).unwrap();
    let degraded = |status: &SourceStatus| matches!(status.state, SourceState::Degraded { .. });
    timeout(Duration::from_secs(10), feed.state.wait_for(degraded))
        .await
        .unwrap()
        .unwrap();
    assert!(
        feed.updates.try_recv().is_err(),
        "the last good state stays"
    );
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("web.yaml"), ingress("b.test")).unwrap();
    // Found by polling, which gives way on a busy machine: no time is promised.
    host(&mut feed, "b.test").await;
    feed.state
        .wait_for(|status| status.state == SourceState::InSync)
        .await
        .unwrap();
}

#[tokio::test]
async fn sources_that_cannot_be_used_are_refused_in_one_line() {
    let absent = Path::new("/nonexistent/forebay");
    let folder = start(Source::Folder(absent.to_owned()), settings())
        .await
        .unwrap_err();
    assert_eq!(folder.to_string(), "manifests folder /nonexistent/forebay");
    let kubeconfig = start(
        Source::Cluster {
            kubeconfig: Some(absent.to_owned()),
        },
        settings(),
    )
    .await
    .unwrap_err();
    assert_eq!(kubeconfig.to_string(), "kubeconfig /nonexistent/forebay");
    let broken = tempfile::NamedTempFile::new().unwrap();
    for text in [
        "clusters: []\n",
        "users: [{name: a, user: {token: hunter2}\n",
        "- hunter2\n",
    ] {
        fs::write(broken.path(), text).unwrap();
        let source = Source::Cluster {
            kubeconfig: Some(broken.path().to_owned()),
        };
        let said = start(source, settings()).await.unwrap_err().to_string();
        assert!(
            said.starts_with("no usable cluster configuration: "),
            "{said}"
        );
        assert!(!said.contains('\n') && !said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn agent_ends_when_its_feed_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let feed = follow(folder.path()).await;
    let state = feed.state.clone();
    drop(feed);
    // The source's half of the channel goes when its task has ended.
    let mut state = state;
    let ended = async { while state.changed().await.is_ok() {} };
    timeout(Duration::from_secs(10), ended).await.unwrap();
}
