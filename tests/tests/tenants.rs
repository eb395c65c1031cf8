//! Two tenants on one Forebay: what the younger one writes, and what the requests of the older one get.
//!
//! What a tenant may do to hosts of another one, as in ingress-nginx, is no part of the sets: add paths
//! to a host, turn a host into regex mode with one of them so that paths become prefixes without regard
//! to case, and name a host below a wildcard. See "Two tenants" in ARCHITECTURE.md.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panics")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use ingress_lab::{
    forebay::{Forebay, Launch},
    lab::secret_yaml,
    origin::{Echo, Origin},
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{TestError, TestRunner},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Sets of objects that are there at once, each with namespaces and hosts of its own.
const AT_ONCE: usize = 100;

/// How often they are replaced by others. `FOREBAY_ROUNDS=100` makes it ten thousand sets, in half an hour.
const ROUNDS: u32 = 4;

/// Longest wait for a change of thousands of objects, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most memory that the process may have taken in the end: a debug build at rest has 60 MiB.
const MEMORY: u64 = 400 << 20;

/// What both tenants have: `good` all of it before `evil` came.
#[derive(Clone, Debug)]
struct Tenants {
    good: Good,
    evil: Vec<Evil>,
}

#[derive(Clone, Debug)]
struct Good {
    annotation: (&'static str, &'static str),
    tls: Tls,
    default: bool,
    paths: Vec<Owned>,
}

#[derive(Clone, Debug)]
struct Evil {
    annotations: Vec<(&'static str, &'static str)>,
    hosts: Vec<&'static str>,
    paths: Vec<(&'static str, &'static str)>,
    tls: Tls,
    default: bool,
    oddity: Oddity,
}

/// The TLS section of an Ingress.
#[derive(Clone, Copy, Debug)]
enum Tls {
    None,
    /// The certificate is found by its names.
    Bare,
    /// An entry for both hosts.
    Listed,
    /// Without a Secret.
    Hosts,
    /// Of a wildcard, and a Secret that does not exist.
    Above,
}

/// What is wrong with an Ingress beside what it says.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    None,
    /// No object at all, behind one that is.
    NoYaml,
    /// A field has a type that it cannot have.
    WrongType,
    /// Thousands of regexes that take memory.
    Regexes,
    /// A path and an annotation of a hundred kilobytes.
    Long,
    /// Thousands of hosts.
    Hosts,
}

/// Kind, path, and what clients ask of it.
type Owned = (&'static str, &'static str, &'static [&'static str]);

/// Paths of `good`, and what its clients ask of each.
const PATHS: [Owned; 3] = [
    ("Prefix", "/p", &["/p", "/p/x?q=1", "/p%2Fx"]),
    ("Exact", "/exact", &["/exact"]),
    ("ImplementationSpecific", "/re(/|$)(.*)", &["/re", "/re/x"]),
];

/// What only a default backend has.
const NOTHING: &str = "/nothing";

/// Paths that say nothing of where they begin.
const UNREADABLE: [&str; 2] = ["no/path", "/e\0vil"];

fn any_tls() -> impl Strategy<Value = Tls> {
    select(vec![
        Tls::None,
        Tls::Bare,
        Tls::Listed,
        Tls::Hosts,
        Tls::Above,
    ])
}

fn any_good() -> impl Strategy<Value = Good> {
    let annotations = vec![
        ("", ""),
        ("", ""),
        ("rewrite-target", "/$2"),
        ("use-regex", "true"),
        ("force-ssl-redirect", "true"),
        ("ssl-redirect", "false"),
        ("auth-url", "https://auth.test"),
        ("proxy-body-size", "1k"),
    ];
    let paths = prop::sample::subsequence(PATHS.to_vec(), 1..=PATHS.len());
    (select(annotations), any_tls(), any::<bool>(), paths).prop_map(
        |(annotation, tls, default, paths)| Good {
            annotation,
            tls,
            default,
            paths,
        },
    )
}

fn any_evil() -> impl Strategy<Value = Evil> {
    let annotations = vec![
        ("use-regex", "true"),
        ("rewrite-target", "/$1"),
        ("rewrite-target", "/?bad"),
        ("auth-tls-secret", "evil/ca"),
        ("auth-url", "https://evil.test"),
        ("server-snippet", "deny all;"),
        ("configuration-snippet", "return 403;"),
        ("canary", "true"),
        ("canary-weight", "100"),
        ("canary-by-header", "X-Forebay"),
        ("force-ssl-redirect", "true"),
        ("ssl-redirect", "false"),
        ("server-alias", "a.good.test,b.good.test"),
        ("backend-protocol", "HTTPS"),
        ("proxy-body-size", "1"),
        ("proxy-read-timeout", "1"),
        ("default-backend", "s"),
        ("app-root", "/evil"),
        ("permanent-redirect", "https://evil.test"),
        ("from-to-www-redirect", "true"),
    ];
    // The owner's own paths, what cannot be read, and paths of its own that are not below those.
    let paths = vec![
        ("Prefix", "/p"),
        ("ImplementationSpecific", "/p"),
        ("Exact", "/exact"),
        ("Prefix", "/exact"),
        ("ImplementationSpecific", "/re(/|$)(.*)"),
        ("Prefix", "/evil"),
        ("Exact", "/evil"),
        ("ImplementationSpecific", "/evil(/|$)(.*)"),
        ("ImplementationSpecific", "/evil/(p|exact"),
        ("Prefix", UNREADABLE[0]),
        ("Nonsense", "/p"),
        ("Prefix", UNREADABLE[1]),
    ];
    let hosts = vec!["a", "b", "*", "", "own", "above", "not a host", "*.*"];
    let oddities = prop_oneof![
        20 => Just(Oddity::None),
        2 => Just(Oddity::NoYaml),
        2 => Just(Oddity::WrongType),
        2 => Just(Oddity::Long),
        1 => Just(Oddity::Regexes),
        1 => Just(Oddity::Hosts),
    ];
    (
        prop::sample::subsequence(annotations, 0..3),
        prop::sample::subsequence(hosts, 1..4),
        prop::sample::subsequence(paths, 1..5),
        any_tls(),
        any::<bool>(),
        oddities,
    )
        .prop_map(|(annotations, hosts, paths, tls, default, oddity)| Evil {
            annotations,
            hosts,
            paths,
            tls,
            default,
            oddity,
        })
}

fn any_tenants() -> impl Strategy<Value = Tenants> {
    (any_good(), prop::collection::vec(any_evil(), 1..4))
        .prop_map(|(good, evil)| Tenants { good, evil })
}

/// Names of the hosts of one set.
fn host(of: &str, set: usize) -> String {
    match of {
        "a" | "b" | "own" => format!("{of}{set}.good.test"),
        "*" => format!("*.w{set}.good.test"),
        "above" => "*.good.test".to_owned(),
        other => other.to_owned(),
    }
}

fn tls(tls: Tls, set: usize) -> Value {
    let hosts = ["a", "b"].map(|of| host(of, set));
    match tls {
        Tls::None => json!([]),
        Tls::Bare => json!([{"secretName": "crt"}]),
        Tls::Listed => json!([{"hosts": hosts, "secretName": "crt"}]),
        Tls::Hosts => json!([{"hosts": hosts}]),
        Tls::Above => {
            json!([{"hosts": ["*.good.test"], "secretName": "absent"}, {"secretName": "crt"}])
        }
    }
}

fn service() -> Value {
    json!({"service": {"name": "s", "port": {"number": 80}}})
}

fn paths(paths: &[(&str, &str)]) -> Vec<Value> {
    let path =
        |(kind, path): &(&str, &str)| json!({"path": path, "pathType": kind, "backend": service()});
    paths.iter().map(path).collect()
}

fn ingress(namespace: &str, name: &str, year: u32, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "namespace": namespace, "name": name, "creationTimestamp": format!("{year}-01-01T00:00:00Z"),
            "annotations": {},
        },
        "spec": spec,
    })
}

fn annotate(object: &mut Value, name: &str, value: &str) {
    if !name.is_empty() {
        object["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")] =
            value.into();
    }
}

impl Tenants {
    /// What clients ask of `good`.
    fn asked(&self) -> Vec<&'static str> {
        let regexes = ["use-regex", "rewrite-target"].contains(&self.good.annotation.0);
        let has = |(kind, ..): &&Owned| regexes || *kind != "ImplementationSpecific";
        let paths = self.good.paths.iter().filter(has);
        let mut asked: Vec<_> = paths.flat_map(|(.., asked)| *asked).copied().collect();
        // A denied path that cannot be read closes all that nobody else has.
        let closes = |evil: &Evil| evil.paths.iter().any(|(_, path)| UNREADABLE.contains(path));
        if !self.evil.iter().any(closes) {
            asked.push(NOTHING);
        }
        asked
    }
}

impl Good {
    fn objects(&self, set: usize) -> Vec<Value> {
        let own: Vec<_> = self
            .paths
            .iter()
            .map(|(kind, path, _)| (*kind, *path))
            .collect();
        let paths = paths(&own);
        let rules =
            ["a", "b", "*"].map(|of| json!({"host": host(of, set), "http": {"paths": paths}}));
        let mut spec = json!({"rules": rules, "tls": tls(self.tls, set)});
        if self.default {
            spec["defaultBackend"] = service();
        }
        let mut web = ingress(&format!("good{set}"), "web", 2020, spec);
        annotate(&mut web, self.annotation.0, self.annotation.1);
        vec![web]
    }
}

impl Evil {
    /// Its file, and how it is called.
    fn file(&self, set: usize, number: usize) -> (String, String) {
        let mut paths = paths(&self.paths);
        let mut hosts: Vec<_> = self.hosts.iter().map(|of| host(of, set)).collect();
        match self.oddity {
            Oddity::Regexes => paths.extend((0..200).map(|number| {
                json!({"path": format!("/evil{number}/.{{0,300}}"), "pathType": "ImplementationSpecific", "backend": service()})
            })),
            Oddity::Hosts => hosts.extend((0..300).map(|number| format!("h{number}.u{set}.evil.test"))),
            Oddity::Long => paths.push(json!({
                "path": format!("/{}", "evil/".repeat(20_000)), "pathType": "Prefix", "backend": service(),
            })),
            Oddity::None | Oddity::NoYaml | Oddity::WrongType => {}
        }
        let rules: Vec<_> = hosts
            .iter()
            .map(|host| json!({"host": host, "http": {"paths": paths}}))
            .collect();
        let mut spec = json!({"rules": rules, "tls": tls(self.tls, set)});
        if self.default {
            spec["defaultBackend"] = service();
        }
        let mut object = ingress(&format!("evil{set}"), &format!("i{number}"), 2025, spec);
        for (name, value) in &self.annotations {
            annotate(&mut object, name, value);
        }
        match self.oddity {
            Oddity::Long => annotate(&mut object, "rewrite-target", &"/long".repeat(20_000)),
            Oddity::Regexes => annotate(&mut object, "use-regex", "true"),
            Oddity::WrongType => object["spec"]["rules"][0]["http"] = json!(["nothing"]),
            Oddity::None | Oddity::NoYaml | Oddity::Hosts => {}
        }
        let mut text = object.to_string();
        if matches!(self.oddity, Oddity::NoYaml) {
            text.push_str("\n---\n{[:");
        }
        (format!("evil-{set}-{number}.yaml"), text)
    }
}

/// A Service in `namespace` with one pod.
fn pods(namespace: &str, pod: &Origin) -> [Value; 2] {
    let port = pod.address().port();
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": "s"},
            "spec": {"ports": [{"port": 80, "name": "http"}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": namespace, "name": "s", "labels": {"kubernetes.io/service-name": "s"},
            },
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"]}],
        }),
    ]
}

/// What one client of `good` sees.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

struct Site {
    folder: TempDir,
    forebay: Forebay,
    client: Arc<ClientConfig>,
    /// Whose each certificate is.
    names: BTreeMap<Vec<u8>, String>,
    writes: u32,
    _pods: [Origin; 3],
}

impl Site {
    fn start() -> Self {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        let pods_of = ["good", "evil", "marker"]
            .map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap());
        let mut roots = RootCertStore::empty();
        let mut still = Vec::new();
        let mut names = BTreeMap::new();
        for pod in &pods_of {
            let made = rcgen::generate_simple_self_signed(["*.good.test".to_owned()]).unwrap();
            roots
                .add(CertificateDer::from(made.cert.der().to_vec()))
                .unwrap();
            names.insert(made.cert.der().to_vec(), pod.pod().to_owned());
            let secret = secret_yaml("crt", &made.cert.pem(), &made.signing_key.serialize_pem());
            for set in 0..AT_ONCE {
                let namespace = format!("{}{set}", pod.pod());
                still.extend(pods(&namespace, pod).map(|object| object.to_string()));
                still
                    .push(secret.replace("namespace: default", &format!("namespace: {namespace}")));
            }
        }
        fs::write(folder.path().join("still.yaml"), still.join("\n---\n")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session that is resumed has the certificate of its first handshake.
        client.resumption = Resumption::disabled();
        let forebay = Launch::manifests(folder.path())
            .args(&["--workers", "1", "--ingress-class", "forebay"])
            .start()
            .unwrap();
        Self {
            folder,
            forebay,
            client: Arc::new(client),
            names,
            writes: 0,
            _pods: pods_of,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Waits until everything that was written is in force.
    fn settle(&mut self) {
        // The first scan may have begun before the last file was there.
        self.scan();
        self.scan();
    }

    /// Waits until a file that is written now is in force.
    fn scan(&mut self) {
        self.writes += 1;
        let marker = format!("m{}.marker.test", self.writes);
        let rule = json!({"host": marker, "http": {"paths": paths(&[("Prefix", "/")])}});
        let object = ingress("marker0", "marker", 2019, json!({"rules": [rule]}));
        self.write("marker.yaml", &object.to_string());
        let http = self.forebay.http_addr();
        let until = Instant::now() + PATIENCE;
        let mut stream = BufReader::new(connect(http));
        // Default backends answer for hosts that nobody names.
        while get(&mut stream, &marker, "/").body[0] != "marker" {
            assert!(Instant::now() < until, "what was written is not served");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the clients of a set see: in plain and over TLS, of each host.
    fn ask(&self, set: usize, tenants: &Tenants) -> BTreeMap<String, Seen> {
        let (mut seen, paths) = (BTreeMap::new(), tenants.asked());
        let mut plain = BufReader::new(connect(self.forebay.http_addr()));
        for of in ["a", "b", "*"] {
            let host = host(of, set).replace('*', "x");
            let asked = paths
                .iter()
                .map(|path| (*path, get(&mut plain, &host, path)));
            let asked: Vec<_> = asked.collect();
            let redirects = asked.iter().any(|(_, seen)| seen.status == 308);
            for (path, answer) in asked {
                seen.insert(format!("http://{host}{path}"), answer);
            }
            if of == "*" || !redirects && of == "b" {
                continue;
            }
            let name = ServerName::try_from(host.clone()).unwrap();
            let session = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
            let mut stream = StreamOwned::new(session, connect(self.forebay.https_addr()));
            let mut result = Ok((0, 0));
            while stream.conn.is_handshaking() && result.is_ok() {
                result = stream.conn.complete_io(&mut stream.sock);
            }
            let is_trusted = result.is_ok();
            let certificate = match (result, stream.conn.peer_certificates()) {
                (Ok(_), Some(chain)) => self.names[chain[0].as_ref()].clone(),
                (Ok(_), None) => String::new(),
                (Err(error), _) => error.to_string(),
            };
            let answer = Seen {
                status: 0,
                headers: BTreeMap::new(),
                body: certificate.into(),
            };
            seen.insert(format!("certificate of {host}"), answer);
            if is_trusted {
                let mut stream = BufReader::new(stream);
                for path in &paths {
                    let answer = get(&mut stream, &host, path);
                    seen.insert(format!("https://{host}{path}"), answer);
                }
            }
        }
        seen
    }

    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.forebay.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        kib << 10
    }

    /// Puts the objects of `good` into the folder alone, and then those of `evil` beside them.
    fn round(&mut self, sets: &[Tenants]) -> Result<(), TestCaseError> {
        for file in fs::read_dir(self.folder.path()).unwrap() {
            let file = file.unwrap();
            if file.file_name().to_string_lossy().starts_with("evil") {
                fs::remove_file(file.path()).unwrap();
            }
        }
        let all = sets.iter().enumerate();
        let objects = all
            .clone()
            .flat_map(|(set, tenants)| tenants.good.objects(set));
        let objects: Vec<_> = objects.map(|object| object.to_string()).collect();
        self.write("good.yaml", &objects.join("\n---\n"));
        self.settle();
        let alone: Vec<_> = all
            .clone()
            .map(|(set, tenants)| self.ask(set, tenants))
            .collect();
        for (set, tenants) in all {
            for (number, evil) in tenants.evil.iter().enumerate() {
                let (name, text) = evil.file(set, number);
                self.write(&name, &text);
            }
        }
        self.settle();
        for (set, before) in alone.into_iter().enumerate() {
            let now = self.ask(set, &sets[set]);
            for (asked, before) in before {
                // What nobody served, somebody else may.
                let served = before.status != 404;
                let same = now.get(&asked) == Some(&before);
                prop_assert!(
                    same || !served,
                    "{asked}: {before:?} has become {:?} by {:#?}",
                    now.get(&asked),
                    sets[set]
                );
            }
        }
        Ok(())
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn get<S: Read + Write>(stream: &mut BufReader<S>, host: &str, target: &str) -> Seen {
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Forebay: always\r\nX-Request-ID: 0\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    stream.get_mut().flush().unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_default().parse();
    let status = status.unwrap_or_else(|_| panic!("{host}{target}: {line:?}"));
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or("0", String::as_str);
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    headers.remove("date");
    // Its own port, which its length depends on.
    headers.remove("content-length");
    let body = match serde_json::from_slice::<Echo>(&body) {
        Ok(echo) => json!([echo.pod, echo.method, echo.path, echo.headers]),
        Err(_) => json!(String::from_utf8_lossy(&body)),
    };
    let mut seen = Seen {
        status,
        headers,
        body,
    };
    // Clients of one address come from many ports.
    if let Some(headers) = seen.body.get_mut(3).and_then(Value::as_object_mut) {
        headers.remove("x-forwarded-for-port");
    }
    seen
}

#[test]
fn nothing_that_a_younger_tenant_writes_changes_what_an_older_ones_clients_see() {
    let site = RefCell::new(Site::start());
    let rounds = std::env::var("FOREBAY_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: rounds.unwrap_or(ROUNDS),
        // What a failure prints is one set already.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let sets = prop::collection::vec(any_tenants(), AT_ONCE);
    let round = |sets: Vec<Tenants>| site.borrow_mut().round(&sets);
    if let Err(error) = runner.run(&sets, round) {
        match error {
            TestError::Fail(reason, _) => panic!("{reason}"),
            TestError::Abort(reason) => panic!("{reason}"),
        }
    }
    let memory = site.borrow().memory();
    assert!(memory < MEMORY, "{} MiB", memory >> 20);
}
