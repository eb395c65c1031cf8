//! Scripts of what an API server may say, without one; the clock is tokio's and stands still.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    sync::{Arc, Mutex},
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    core::v1::{Secret, Service},
    networking::v1::Ingress,
};
use kube::{
    api::{ListMeta, ObjectMeta, TypeMeta},
    core::{
        ObjectList, Status, WatchEvent,
        response::{StatusCause, StatusDetails},
        watch::{Bookmark, BookmarkMeta},
    },
};
use tokio::time::Instant;

use super::{
    super::super::{
        index::{Index, SERVICE_LABEL},
        kept::{Change, Unread},
        kind::Changed,
        shelf::{self, Shelf, UNKNOWN},
        source::{Condition, SourceState},
        tests::settings,
        translate::State,
    },
    server::{Head, Sent, Server},
    *,
};

type Said = kube::Result<WatchEvent<Sent<Service>>>;

/// What the server does with one request.
enum Answer {
    /// Nothing, for ever.
    Silence,
    Refuses(Status),
    /// Says this; then the stream ends, or stays open in silence.
    Stream(Vec<Said>, Ends),
    Page(ObjectList<Sent<Service>>),
}

#[derive(PartialEq)]
enum Ends {
    Now,
    Never,
}

/// Answers in order, and silence when there are no more; notes the requests.
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Script {
    fn next(&self, request: String) -> Answer {
        self.asked.lock().unwrap().push((request, Instant::now()));
        let next = self.answers.lock().unwrap().pop_front();
        next.unwrap_or(Answer::Silence)
    }
}

impl Server<Service> for Script {
    type Stream = BoxStream<'static, Said>;

    async fn page(
        &self,
        since: &str,
        token: Option<String>,
    ) -> kube::Result<ObjectList<Sent<Service>>> {
        match self.next(format!("page {since} {}", token.unwrap_or_default())) {
            Answer::Page(page) => Ok(page),
            Answer::Refuses(status) => Err(kube::Error::Api(Box::new(status))),
            _ => std::future::pending().await,
        }
    }

    async fn open(&self, since: &str, listing: bool, _: Duration) -> kube::Result<Self::Stream> {
        let request = if listing { "list" } else { "watch" };
        match self.next(format!("{request} {since}")) {
            Answer::Stream(said, Ends::Now) => Ok(stream::iter(said).boxed()),
            Answer::Stream(said, Ends::Never) => {
                Ok(stream::iter(said).chain(stream::pending()).boxed())
            }
            Answer::Refuses(status) => Err(kube::Error::Api(Box::new(status))),
            _ => std::future::pending().await,
        }
    }
}

fn service(name: &str, version: u32) -> Service {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        resource_version: Some(version.to_string()),
        ..Default::default()
    };
    Service {
        metadata,
        ..Service::default()
    }
}

fn added(name: &str, version: u32) -> Said {
    Ok(WatchEvent::Added(Ok(service(name, version))))
}

fn deleted(name: &str, version: u32) -> Said {
    Ok(WatchEvent::Deleted(Ok(service(name, version))))
}

fn bookmark(version: u32, list_ends: bool) -> Said {
    let mark = list_ends.then(|| ("k8s.io/initial-events-end".to_owned(), "true".to_owned()));
    Ok(WatchEvent::Bookmark(Bookmark {
        types: TypeMeta::resource::<Service>(),
        metadata: BookmarkMeta {
            resource_version: version.to_string(),
            annotations: mark.into_iter().collect(),
        },
    }))
}

fn status(code: u16) -> Status {
    Status::failure("no", "Reason").with_code(code)
}

fn page(names: &[&str], token: &str, version: &str) -> Answer {
    Answer::Page(ObjectList {
        types: TypeMeta::list::<Service>(),
        metadata: ListMeta {
            continue_: Some(token.into()),
            resource_version: Some(version.into()),
            ..ListMeta::default()
        },
        items: names.iter().map(|name| Ok(service(name, 1))).collect(),
    })
}

/// A watch that follows a script.
struct Run {
    inbox: mpsc::Receiver<Event>,
    status: channel::Receiver<SourceStatus>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

fn run(script: impl IntoIterator<Item = Answer>) -> Run {
    let (events, inbox) = mpsc::channel(64);
    let (sender, status) = channel::channel(SourceStatus::starting());
    let asked = Arc::default();
    let server = Script {
        answers: Mutex::new(script.into_iter().collect()),
        asked: Arc::clone(&asked),
    };
    tokio::spawn(follow(
        server,
        events,
        Health::new("Service".into(), sender),
    ));
    Run {
        inbox,
        status,
        asked,
    }
}

impl Run {
    /// The next change.
    async fn change(&mut self) -> String {
        match self.inbox.recv().await {
            Some(Event::Changed(Changed::Service(Change::Listed(list)))) => format!(
                "listed {}",
                list.iter().map(|(name, _)| &*name.name).collect::<String>()
            ),
            Some(Event::Changed(Changed::Service(Change::Applied(name, _)))) => {
                format!("applied {}", name.name)
            }
            Some(Event::Changed(Changed::Service(Change::Deleted(name)))) => {
                format!("deleted {}", name.name)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn until(&mut self, state: fn(&SourceState) -> bool) {
        self.status
            .wait_for(|status| state(&status.state))
            .await
            .unwrap();
    }

    /// What was asked for.
    fn requests(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(request, _)| request.clone()).collect()
    }
}

fn in_sync(state: &SourceState) -> bool {
    *state == SourceState::InSync
}

fn degraded(state: &SourceState) -> bool {
    matches!(state, SourceState::Degraded { .. })
}

fn listed(names: &[&str], version: u32, ends: Ends) -> Answer {
    let mut said: Vec<_> = names.iter().map(|name| added(name, 1)).collect();
    said.push(bookmark(version, true));
    Answer::Stream(said, ends)
}

#[tokio::test(start_paused = true)]
async fn a_list_is_passed_on_only_when_it_is_complete() {
    let mut run = run([
        // Broken off midway: starts from nothing again.
        Answer::Stream(vec![added("a", 1)], Ends::Now),
        Answer::Stream(
            vec![
                added("b", 1),
                added("c", 2),
                bookmark(3, true),
                added("d", 4),
                deleted("b", 5),
            ],
            Ends::Never,
        ),
    ]);
    assert_eq!(run.change().await, "listed bc");
    assert_eq!(run.change().await, "applied d");
    assert_eq!(run.change().await, "deleted b");
    run.until(in_sync).await;
    assert_eq!(run.status.borrow().kinds[0].restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_before_its_list_is_complete_is_not_in_it() {
    let said = vec![
        added("a", 1),
        added("b", 2),
        deleted("a", 3),
        bookmark(4, true),
    ];
    let mut run = run([Answer::Stream(said, Ends::Never)]);
    assert_eq!(run.change().await, "listed b");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_name_is_counted_and_keeps_nothing_back() {
    let nameless = || {
        let unread = Unread {
            uid: None,
            error: "cannot be read".into(),
            ..Unread::default()
        };
        Err(Head {
            name: None,
            version: Some("5".to_owned()),
            unread,
        })
    };
    let said = vec![
        Ok(WatchEvent::Added(nameless())),
        added("a", 1),
        bookmark(4, true),
        Ok(WatchEvent::Modified(nameless())),
        Ok(WatchEvent::Deleted(nameless())),
        added("b", 6),
    ];
    let mut run = run([Answer::Stream(said, Ends::Never)]);
    assert_eq!(run.change().await, "listed a");
    assert_eq!(run.change().await, "applied b");
    let kind = run.status.borrow().kinds[0].clone();
    assert_eq!((kind.unnamed, kind.restarts), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_not_kept() {
    let mut fat = service("a", 1);
    let entries =
        |keys: [&str; 2]| Some(keys.map(|key| (key.to_owned(), "text".to_owned())).into());
    // Of a Secret it holds the private key once more.
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    fat.metadata.annotations = entries([applied, "own"]);
    fat.metadata.labels = entries([SERVICE_LABEL, "app"]);
    fat.metadata.finalizers = Some(vec!["f".to_owned()]);
    let said = vec![
        Ok(WatchEvent::Added(Ok(fat.clone()))),
        bookmark(2, true),
        Ok(WatchEvent::Modified(Ok(fat))),
    ];
    let mut run = run([Answer::Stream(said, Ends::Never)]);
    for _ in 0..2 {
        let object = match run.inbox.recv().await {
            Some(Event::Changed(Changed::Service(Change::Listed(mut list)))) => {
                list.remove(0).1.unwrap()
            }
            Some(Event::Changed(Changed::Service(Change::Applied(_, object)))) => *object,
            other => panic!("{other:?}"),
        };
        let keys = |map: Option<BTreeMap<String, String>>| Vec::from_iter(map.unwrap().into_keys());
        assert_eq!(object.metadata.annotations, None);
        assert_eq!(keys(object.metadata.labels), [SERVICE_LABEL]);
        assert_eq!(object.metadata.finalizers, None);
    }
}

#[tokio::test]
async fn annotations_are_kept_where_they_are_read_and_of_secrets_no_more_than_a_certificate_takes()
{
    let kib = |kib: usize| base64(&vec![b'x'; kib * 1024]);
    let object = |name: &str, data: serde_json::Value| {
        serde_json::json!({
            "metadata": {
                "name": name, "namespace": "default", "resourceVersion": "3", "uid": "1",
                "annotations": {"own": kib(200)},
            },
            "type": "kubernetes.io/tls", "data": data,
        })
    };
    let said_of_ingresses = said::<Ingress>(&[object("a", serde_json::Value::Null)], &[]).await;
    let [Event::Changed(Changed::Ingress(Change::Listed(list)))] = &*said_of_ingresses else {
        panic!("{said_of_ingresses:?}");
    };
    let ingress = list[0].1.as_ref().unwrap();
    assert_eq!(ingress.metadata.annotations.as_ref().unwrap().len(), 1);

    let fits = object(
        "fits",
        serde_json::json!({"tls.crt": kib(200), "tls.key": kib(56), "other": kib(700)}),
    );
    let large = object(
        "large",
        serde_json::json!({"tls.crt": kib(200), "tls.key": kib(57)}),
    );
    let said_of_secrets = said::<Secret>(&[fits, large.clone()], &[large]).await;
    let error = "tls.crt and tls.key are together larger than 256 KiB";
    let expected = Unread {
        uid: Some("1".into()),
        error: error.into(),
        ..Unread::default()
    };
    match &*said_of_secrets {
        [
            Event::Changed(Changed::Secret(Change::Listed(list))),
            Event::Changed(Changed::Secret(Change::Unread(name, unread))),
        ] => {
            let fits = list[0].1.as_ref().unwrap();
            assert_eq!(fits.metadata.annotations, None);
            assert_eq!(fits.data.as_ref().unwrap().len(), 2);
            assert_eq!(list[1].1.as_ref().unwrap_err(), &expected);
            assert_eq!((&*name.name, unread), ("large", &expected));
        }
        _ => panic!("something else was said"),
    }
}

#[test]
fn a_list_keeps_no_more_of_the_secrets_of_a_namespace_than_fits() {
    let mut shelf = Shelf::default();
    let mut kept = BTreeMap::<_, usize>::new();
    let namespaces = std::iter::repeat_n("greedy", 2 * UNKNOWN / (200 * 1024)).chain(["modest"]);
    for (number, namespace) in namespaces.enumerate() {
        let name = ObjectName::new(namespace, number.to_string());
        let entry = k8s_openapi::ByteString(vec![1; 200 * 1024]);
        let mut secret = Secret {
            data: Some([("tls.crt".to_owned(), entry)].into()),
            ..Secret::default()
        };
        secret.metadata.uid = Some("u".to_owned());
        let (_, secret) = follow::fit_in(&mut shelf, (name, Ok(secret)));
        let secret = secret.unwrap();
        assert_eq!(secret.metadata.uid.as_deref(), Some("u"));
        *kept.entry(namespace).or_default() += shelf::size(&secret);
    }
    assert!(kept["greedy"] <= UNKNOWN && kept["greedy"] > UNKNOWN / 2);
    assert_eq!(kept["modest"], 200 * 1024);
}

fn base64(bytes: &[u8]) -> serde_json::Value {
    serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_after_the_last_bookmark_and_an_end_is_no_failure() {
    let mut run = run([
        listed(&["a"], 7, Ends::Never),
        // The list's stream is left after a while, and the next watch starts where it was.
        Answer::Stream(vec![added("b", 8), bookmark(30, false)], Ends::Never),
        Answer::Stream(vec![added("c", 31)], Ends::Never),
    ]);
    for expected in ["listed a", "applied b", "applied c"] {
        assert_eq!(run.change().await, expected);
    }
    assert_eq!(run.requests(), ["list ", "watch 7", "watch 30"]);
    assert_eq!(run.status.borrow().kinds[0].restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_relist_after_410_takes_nothing_away_before_it_is_complete_and_nothing_back() {
    let mut run = run([
        listed(&["a"], 7, Ends::Never),
        Answer::Stream(
            vec![Ok(WatchEvent::Error(Box::new(status(410))))],
            Ends::Never,
        ),
        Answer::Stream(vec![added("a", 9)], Ends::Now),
        listed(&["a", "b"], 10, Ends::Never),
    ]);
    assert_eq!(run.change().await, "listed a");
    run.until(degraded).await;
    assert_eq!(run.change().await, "listed ab");
    run.until(in_sync).await;
    // "0" could be answered from a cache that is behind what was seen, here or by an agent before.
    assert_eq!(run.requests(), ["list ", "watch 7", "list ", "list "]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_noticed_within_a_minute_and_is_no_recovery() {
    let mut run = run([listed(&["a"], 7, Ends::Never)]);
    run.until(in_sync).await;
    let since = Instant::now();
    run.until(degraded).await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let reason = "watch Service: no answer for 10 s";
    assert_eq!(
        run.status.borrow().state,
        SourceState::Degraded {
            reason: reason.into()
        }
    );
    // Requests hang, and nothing else fails: still no sign of life.
    let recovered = tokio::time::timeout(Duration::from_secs(600), run.until(in_sync)).await;
    assert!(recovered.is_err());
    assert!(run.requests().len() > 30, "{:?}", run.requests());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_answered_recovers_without_any_event() {
    let mut run = run([
        listed(&["a"], 7, Ends::Never),
        Answer::Refuses(status(500)),
        Answer::Stream(vec![], Ends::Never),
    ]);
    run.until(in_sync).await;
    run.until(degraded).await;
    run.until(in_sync).await;
    assert_eq!(run.requests(), ["list ", "watch 7", "watch 7"]);
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_as_soon_as_they_begin_are_failures_with_pauses() {
    let mut script = vec![listed(&["a"], 7, Ends::Now)];
    script.extend((0..50).map(|_| Answer::Stream(vec![], Ends::Now)));
    let mut run = run(script);
    let since = Instant::now();
    run.until(degraded).await;
    while run.requests().len() < 51 {
        run.status.changed().await.unwrap();
    }
    assert!(since.elapsed() > Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_where_the_server_knows_no_streamed_lists() {
    for code in [400, 422] {
        let mut run = run([
            Answer::Refuses(status(code)),
            page(&["a", "b"], "more", ""),
            page(&["c"], "", "9"),
            Answer::Stream(
                vec![Ok(WatchEvent::Error(Box::new(status(410))))],
                Ends::Now,
            ),
            page(&["c"], "", "12"),
            Answer::Stream(vec![], Ends::Never),
        ]);
        assert_eq!(run.change().await, "listed abc", "{code}");
        assert_eq!(run.change().await, "listed c", "{code}");
        run.until(in_sync).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            run.requests(),
            [
                "list ",
                "page  ",
                "page  more",
                "watch 9",
                "page  ",
                "watch 12"
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_from_before_a_restored_backup_is_forgotten() {
    let cause = StatusCause {
        reason: "ResourceVersionTooLarge".into(),
        message: String::new(),
        field: String::new(),
    };
    let details = StatusDetails {
        causes: vec![cause],
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        retry_after_seconds: 1,
    };
    let mut run = run([
        listed(&["a"], 900, Ends::Never),
        Answer::Refuses(status(504).with_details(details)),
        listed(&["b"], 20, Ends::Never),
    ]);
    assert_eq!(run.change().await, "listed a");
    assert_eq!(run.change().await, "listed b");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_makes_nothing_of_a_version_is_asked_for_a_list_ever_less_often() {
    for code in [400, 422] {
        let mut script = vec![Answer::Refuses(status(code)), page(&["a"], "", "7")];
        for _ in 0..10 {
            script.push(Answer::Refuses(status(code)));
            script.push(page(&["b"], "", "8"));
        }
        let mut run = run(script);
        assert_eq!(run.change().await, "listed a", "{code}");
        let since = Instant::now();
        for _ in 0..10 {
            assert_eq!(run.change().await, "listed b", "{code}");
        }
        let first = ["list ", "page  ", "watch 7", "page  ", "watch 8"];
        assert_eq!(run.requests()[..5], first, "{code}");
        // 300 ms, doubled each time and varied by half.
        assert!(since.elapsed() > Duration::from_secs(60), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_after_an_hour_is_seen_within_two_seconds_of_its_next_answer() {
    let mut script = vec![listed(&["a"], 7, Ends::Now)];
    script.extend((0..3000).map(|_| Answer::Stream(vec![], Ends::Now)));
    let run = run(script);
    tokio::time::sleep(Duration::from_secs(3000)).await;
    let asked = run.asked.lock().unwrap();
    assert!(asked.len() > 1000, "{}", asked.len());
    for pair in asked.windows(2) {
        assert!(pair[1].1 - pair[0].1 < Duration::from_secs(2));
    }
}

/// Answers every request with these lines, as an API server would.
fn serve(lines: &[serde_json::Value]) -> Client {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    answer_with(format!("\r\n{lines}"))
}

/// Answers every request with what follows the status line.
fn answer_with(rest: impl Into<Vec<u8>>) -> Client {
    answer("200 OK", rest)
}

/// Answers every request with that status and what follows it, from a thread of its own.
fn answer(status: &'static str, rest: impl Into<Vec<u8>>) -> Client {
    let rest = rest.into();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(&stream).lines().map(Result::unwrap);
            while head.next().is_some_and(|line| !line.is_empty()) {}
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            )
            .unwrap();
            stream.write_all(&rest).unwrap();
        }
    });
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// What may be written of a field's owner is any year that has four digits in some time zone, and a
/// server says what it was given.
fn odd_secret(time: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "odd", "namespace": "default", "resourceVersion": "3",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{
                "manager": "me", "operation": "Update", "apiVersion": "v1", "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:type": {}},
            }],
            "annotations": {"managedFields": "are no field here"},
        },
        "data": {"tls.crt": "AQ=="}, "type": "kubernetes.io/tls",
    })
}

#[tokio::test]
async fn an_object_is_read_whatever_it_says_of_the_owners_of_its_fields() {
    let name = ObjectName::new("default", "odd");
    for time in ["9999-12-31T23:59:59Z", "10000-01-01T12:59:59Z", "never"] {
        let odd = odd_secret(time);
        let list = serde_json::json!({
            "apiVersion": "v1", "kind": "SecretList", "metadata": {"resourceVersion": "7"},
            "items": [odd],
        });
        let scope = named::<Secret>(&serve(&[list]), &name);
        let page = scope.page("0", None).await.expect(time);
        assert_eq!(page.metadata.resource_version.as_deref(), Some("7"));
        let mut read: Vec<_> = page.items.into_iter().map(Result::unwrap).collect();
        let event = |kind: &str| serde_json::json!({"type": kind, "object": odd});
        let client = serve(&[event("ADDED"), event("MODIFIED"), event("DELETED")]);
        let scope = named::<Secret>(&client, &name);
        let events = scope.open("0", true, Duration::from_secs(1)).await.unwrap();
        let events: Vec<_> = events.collect().await;
        for event in events {
            match event.expect(time) {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                    read.push(secret.unwrap());
                }
                WatchEvent::Deleted(gone) => assert_eq!(gone.unwrap_err().name, Some(name.clone())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read.len(), 3);
        for secret in read {
            assert_eq!(secret.metadata.name.as_deref(), Some("odd"));
            assert_eq!(secret.metadata.annotations.unwrap().len(), 1);
            assert!(secret.metadata.creation_timestamp.is_some());
            assert_eq!(secret.data.unwrap()["tls.crt"].0, [1]);
        }
    }
}

/// The name of a field of an annotation is any bytes, and a server says those that it was given.
#[tokio::test]
async fn bytes_that_are_no_text_keep_neither_their_object_nor_others_back() {
    let object = |name: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"b","managedFields":[{{"fieldsV1":{{"f:XXX":{{}}}}}}]}}}}"#
        )
    };
    let (odd, other) = (object("odd"), object("other"));
    let bytes = |text: &str| {
        let (before, after) = text.split_once("XXX").unwrap();
        [before.as_bytes(), b"\xff", after.as_bytes()].concat()
    };
    let list = format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":[{odd},{other}]}}"#);
    let list = bytes(&format!("\r\n{list}"));
    let scope = Scope::<Service>::new(answer_with(list), None, None);
    let page = scope.page("0", None).await.unwrap();
    let name = |sent: Sent<Service>| sent.unwrap().metadata.name.unwrap();
    let names: Vec<_> = page.items.into_iter().map(name).collect();
    assert_eq!(names, ["odd", "other"]);
    let event = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
    let lines = [
        b"\r\n".to_vec(),
        bytes(&event("ADDED", &odd)),
        b"\n\xff\n".to_vec(),
        bytes(&event("MODIFIED", &other)),
        b"\n".to_vec(),
        bytes(&event("DELETED", &odd)),
        b"\n".to_vec(),
    ];
    let scope = Scope::<Service>::new(answer_with(lines.concat()), None, None);
    let events = scope.open("7", false, Duration::from_secs(1)).await;
    let said = events.unwrap().map(|event| match event {
        Ok(WatchEvent::Added(sent)) => format!("added {}", name(sent)),
        Ok(WatchEvent::Modified(sent)) => format!("modified {}", name(sent)),
        Ok(WatchEvent::Deleted(sent)) => format!("deleted {}", sent.unwrap_err().name.unwrap()),
        Err(kube::Error::SerdeError(_)) => "no event".to_owned(),
        other => panic!("{other:?}"),
    });
    let said: Vec<_> = said.collect().await;
    assert_eq!(
        said,
        ["added odd", "no event", "modified other", "deleted b/odd"]
    );
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_no_other_back_and_is_gone_when_it_is_deleted() {
    let object = |name: &str, data: serde_json::Value| {
        serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "resourceVersion": "3"},
            "data": data,
        })
    };
    let bad = object("bad", serde_json::json!("hunter2"));
    let good = object("good", serde_json::json!({}));
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "SecretList", "metadata": {"resourceVersion": "7"},
        "items": [bad, good],
    });
    let name = ObjectName::new("default", "any");
    let scope = named::<Secret>(&serve(&[list]), &name);
    let page = scope.page("0", None).await.unwrap();
    let read: Vec<_> = page.items.iter().map(Result::is_ok).collect();
    assert_eq!(read, [false, true]);
    let event = |kind: &str, object: &_| serde_json::json!({"type": kind, "object": object});
    let client = serve(&[
        event("ADDED", &bad),
        event("ADDED", &good),
        event("MODIFIED", &bad),
        event("DELETED", &bad),
        event("DELETED", &good),
    ]);
    let scope = named::<Secret>(&client, &name);
    let events = scope.open("0", true, Duration::from_secs(1)).await.unwrap();
    let events: Vec<_> = events.collect().await;
    let events: Vec<_> = events
        .into_iter()
        .map(|event| match event.unwrap() {
            WatchEvent::Added(Ok(secret)) => format!("added {}", secret.metadata.name.unwrap()),
            WatchEvent::Added(Err(head)) | WatchEvent::Modified(Err(head)) => {
                format!("unread {}: {}", head.name.unwrap(), head.unread.error)
            }
            WatchEvent::Deleted(Err(head)) => {
                assert_eq!(head.version.as_deref(), Some("3"));
                format!("deleted {}", head.name.unwrap())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    // Nothing of what it says is shown.
    let unread = "unread default/bad: cannot be read";
    assert_eq!(
        events,
        [
            unread,
            "added good",
            unread,
            "deleted default/bad",
            "deleted default/good"
        ]
    );
}

/// What a watch of all Secrets, or all Services, says first of a server that lists these objects, and
/// how often it says so after each of `changes`.
async fn said<K: Kind>(objects: &[serde_json::Value], changes: &[serde_json::Value]) -> Vec<Event> {
    let event = |kind: &str, object: &_| serde_json::json!({"type": kind, "object": object});
    let mark = serde_json::json!({"kind": K::kind(&()), "apiVersion": K::api_version(&()), "metadata": {
        "resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"},
    }});
    let mut lines: Vec<_> = objects.iter().map(|it| event("ADDED", it)).collect();
    lines.push(event("BOOKMARK", &mark));
    lines.extend(changes.iter().map(|it| event("MODIFIED", it)));
    let scope = Scope::<K>::new(serve(&lines), None, None);
    let (events, mut inbox) = mpsc::channel(8);
    let (status, _status) = channel::channel(SourceStatus::starting());
    tokio::spawn(follow(scope, events, Health::new("K".into(), status)));
    let mut said = Vec::new();
    for _ in 0..=changes.len() {
        said.push(inbox.recv().await.unwrap());
    }
    said
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_its_last_good_version_and_is_named() {
    let object = |name: &str, uid: &str, spec: serde_json::Value| {
        serde_json::json!({
            "metadata": {
                "name": name, "namespace": "default", "resourceVersion": ["odd"], "uid": uid,
                "creationTimestamp": "never",
            },
            "spec": spec,
        })
    };
    let good = |name: &str, uid: &str, port: u16| {
        let mut good = object(name, uid, serde_json::json!({"ports": [{"port": port}]}));
        good["metadata"]["resourceVersion"] = port.to_string().into();
        good["metadata"]["creationTimestamp"] = serde_json::Value::Null;
        good
    };
    let bad = |name: &str, uid: &str| object(name, uid, serde_json::json!({}));
    let mut nameless = bad("x", "8");
    nameless["metadata"]["name"] = 8.into();
    let all_good = [good("a", "1", 80), good("b", "2", 80)];
    let mut events = said::<Service>(&all_good, &[bad("a", "1"), good("a", "1", 81)]).await;
    events.extend(
        said::<Service>(
            &[bad("a", "1"), bad("b", "9"), nameless, bad("c", "3")],
            &[],
        )
        .await,
    );
    events.extend(said::<Service>(&all_good, &[]).await);
    let stays = "its last good version stays in force";
    let gone = "it is not served; there is no earlier version";
    let mut index = Index::default();
    let mut state = State::new(settings());
    let mut expected = vec![
        (vec![("a", 80), ("b", 80)], vec![]),
        (vec![("a", 80), ("b", 80)], vec![("a", stays)]),
        (vec![("a", 81), ("b", 80)], vec![]),
        (
            vec![("a", 81)],
            vec![("a", stays), ("b", gone), ("c", gone)],
        ),
        (vec![("a", 80), ("b", 80)], vec![]),
    ];
    expected.reverse();
    for event in events {
        let (services, problems) = expected.pop().unwrap();
        let keys = index.apply(event);
        state.apply(&index, keys);
        let known: Vec<_> = index
            .objects
            .services
            .iter()
            .map(|(name, item)| {
                let spec = item.object.spec.as_ref().unwrap();
                (&*name.name, spec.ports.as_ref().unwrap()[0].port)
            })
            .collect();
        assert_eq!(known, services);
        let said = state.book().lock().unwrap().all();
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), problems.len(), "{said:?}");
        for (said, (name, consequence)) in said.iter().zip(problems) {
            let start = format!("Service default/{name}: cannot be read: ");
            assert!(
                said.starts_with(&start) && said.ends_with(consequence),
                "{said}"
            );
        }
    }
    assert!(expected.is_empty());
}

#[tokio::test]
async fn a_stream_that_is_cut_off_ends_and_what_is_no_event_is_told_apart() {
    let added = r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#;
    let gone = r#"{"type":"ERROR","object":{"code":410,"message":"too old"}}"#;
    for (lines, expected) in [
        (format!("{added}\n{}", &added[..30]), "added, end"),
        (format!("{added}\n\n{added}\n"), "added, added, end"),
        (format!("{gone}\n"), "error 410, end"),
        (
            r#"{"kind":"Status","code":403,"message":"no"}"#.to_owned() + "\n",
            "refused 403, end",
        ),
        (
            format!("<html>\nnull\n{{}}\n{added}\n"),
            "no event, no event, no event, added, end",
        ),
        (r#"{"type":"OTHER","object":7}"#.to_owned(), "end"),
        (
            r#"{"type":"ADDED","object":7}"#.to_owned() + "\n",
            "unnamed, end",
        ),
    ] {
        let length = lines.len();
        let chunk = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{lines}\r\n");
        for rest in [
            format!("Content-Length: {length}\r\n\r\n{lines}"),
            format!("{chunk}0\r\n\r\n"),
            // The server hangs up without a last chunk.
            chunk,
        ] {
            let scope = named::<Service>(&answer_with(rest.clone()), &ObjectName::new("b", "a"));
            let events = scope.open("7", false, Duration::from_secs(1)).await;
            let said = events.unwrap().map(|event| match event {
                Ok(WatchEvent::Added(Ok(_))) => "added, ".to_owned(),
                Ok(WatchEvent::Added(Err(Head { name: None, .. }))) => "unnamed, ".to_owned(),
                Ok(WatchEvent::Error(status)) => format!("error {}, ", status.code),
                Ok(other) => panic!("{other:?}"),
                Err(kube::Error::Api(status)) => format!("refused {}, ", status.code),
                Err(kube::Error::SerdeError(_)) => "no event, ".to_owned(),
                Err(error) => format!("{error}, "),
            });
            let said: String = said.collect().await;
            assert_eq!(format!("{said}end"), expected, "{rest}");
        }
    }
}

#[tokio::test]
async fn a_refusal_that_does_not_say_its_code_has_that_of_its_status_line() {
    for (status, body, code) in [
        ("403 Forbidden", "{}", 403),
        ("410 Gone", r#"{"kind":"Status","message":"too old"}"#, 410),
        ("410 Gone", r#"{"kind":"Status","code":422}"#, 422),
        ("503 Service Unavailable", "<html>", 503),
    ] {
        let client = answer(status, format!("\r\n{body}"));
        let scope = named::<Service>(&client, &ObjectName::new("b", "a"));
        let list = scope.page("0", None).await.err();
        let watch = scope.open("0", true, Duration::from_secs(1)).await.err();
        for error in [list, watch] {
            match error {
                Some(kube::Error::Api(said)) => assert_eq!(said.code, code, "{status} {body}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_refusal_says_what_to_grant() {
    let refused = failure::Failure::refused::<Secret>("watch", &status(403));
    assert_eq!(
        refused.reason,
        "may not watch secrets: grant list and watch on secrets in the ClusterRole of Forebay's \
         ServiceAccount (no)"
    );
    let refused = failure::Failure::refused::<k8s_openapi::api::networking::v1::Ingress>(
        "list",
        &status(403),
    );
    assert!(
        refused
            .reason
            .starts_with("may not list ingresses.networking.k8s.io: ")
    );
}

#[test]
fn many_watches_of_a_line_fail_until_none_does_and_undo_no_start() {
    let (sender, receiver) = channel::channel(SourceStatus::starting());
    let services = Health::new("Service".into(), sender.clone());
    services.fine();
    let group = health::Group::new(sender);
    let [one, two, three] = [group.join(), group.join(), group.join()];
    three.heard(false);
    services.heard(true);
    assert_eq!(receiver.borrow().state, SourceState::InSync);
    one.failing("watch Secret: no".into());
    two.failing("watch Secret: no".into());
    one.fine();
    three.fine();
    assert!(degraded(&receiver.borrow().state));
    // It is no longer wanted.
    drop(two);
    assert_eq!(receiver.borrow().state, SourceState::InSync);
    let shown = receiver.borrow().kinds[1].clone();
    let found = (shown.condition, shown.listed, shown.restarts);
    assert_eq!(found, (Condition::Fine, true, 2));
    one.failing("watch Secret: no".into());
    drop((one, three));
    let status = receiver.borrow();
    assert_eq!(
        (&status.state, status.kinds.len()),
        (&SourceState::InSync, 1)
    );
}

#[test]
fn one_kind_that_fails_degrades_the_source_and_is_named() {
    let (sender, receiver) = channel::channel(SourceStatus::starting());
    let secrets = Health::new("Secret".into(), sender.clone());
    let services = Health::new("Service".into(), sender);
    services.fine();
    assert_eq!(receiver.borrow().state, SourceState::Starting);
    secrets.failing("watch Secret: no".into());
    services.fine();
    let shown = serde_json::to_value(&*receiver.borrow()).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({
            "state": "degraded",
            "reason": "watch Secret: no",
            "kinds": [
                {
                    "kind": "Secret", "condition": "failing", "reason": "watch Secret: no",
                    "listed": false, "last_heard": null, "restarts": 1, "unnamed": 0
                },
                {
                    "kind": "Service", "condition": "fine",
                    "listed": true, "last_heard": null, "restarts": 0, "unnamed": 0
                },
            ],
        })
    );
    secrets.fine();
    assert_eq!(receiver.borrow().state, SourceState::InSync);
    assert_eq!(receiver.borrow().kinds[1].condition, Condition::Fine);
}
