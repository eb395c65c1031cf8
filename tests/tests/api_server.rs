//! Forebay and a real API server; Forebay under its own ServiceAccount and the ClusterRole of `deploy/`.
//!
//! Times are counted from the moment kubectl has returned to the first request that sees the change.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ingress_tests::{
    api_server::{self, ApiServer, POD},
    client::{self, Answer},
    eventually,
    forebay::{Forebay, Launch},
    lab::secret_yaml,
    origin::{Echo, Origin},
    skipped,
};

/// What the issue demands of every change.
const DEMANDED: Duration = Duration::from_secs(1);

/// One test's namespace of the cluster, its pods, and its Forebay.
struct Site {
    name: &'static str,
    forebay: Forebay,
    pods: Vec<Origin>,
    dir: tempfile::TempDir,
    api: Arc<ApiServer>,
}

impl Site {
    /// With a Service `s` and the pods `a` and `b`, of which only `a` is an endpoint.
    fn new(name: &'static str, api: Arc<ApiServer>) -> Self {
        let kubeconfig = api.forebay_kubeconfig().unwrap();
        let pod = |pod: &str| api.namespace().origin(pod, (POD, 0).into()).unwrap();
        let pods = vec![pod("a"), pod("b")];
        let forebay = Launch::new(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(&["--workers", "1", "--kubeconfig", kubeconfig.to_str().unwrap()])
            .within(api.namespace())
            .start()
            .unwrap();
        let site = Self { name, forebay, pods, dir: tempfile::tempdir().unwrap(), api };
        site.api.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")).unwrap();
        site.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{name: http, port: 80}]}}");
        site.endpoints(&[("a", "ready: true")]);
        site
    }

    /// Applies one object, in flow YAML without a namespace.
    fn apply(&self, object: &str) {
        let placed = object.replacen("metadata: {", &format!("metadata: {{namespace: {}, ", self.name), 1);
        self.api.apply(&placed).unwrap();
    }

    /// Makes `endpoints`, each a pod and its conditions, the endpoints of `s`.
    fn endpoints(&self, endpoints: &[(&str, &str)]) {
        // One slice a pod: each has a port of its own.
        for origin in &self.pods {
            let pod = origin.pod();
            let conditions = endpoints.iter().filter(|(of, _)| *of == pod);
            let list: Vec<_> = conditions
                .map(|(_, conditions)| {
                    format!(
                        "{{addresses: ['{POD}'], conditions: {{{conditions}}}, targetRef: {{kind: Pod, name: {pod}}}}}"
                    )
                })
                .collect();
            self.apply(&format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s-{pod}, labels: \
                 {{kubernetes.io/service-name: s}}}}, addressType: IPv4, ports: [{{name: http, port: {}}}], endpoints: \
                 [{}]}}",
                origin.address().port(),
                list.join(", ")
            ));
        }
    }

    fn ingress(&self, name: &str, host: &str, more: &str) {
        self.apply(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}}}, spec: {{ingressClassName: \
             nginx, {more} rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: \
             {{name: s, port: {{name: http}}}}}}}}]}}}}]}}}}"
        ));
    }

    /// Makes a certificate for `host`, puts it into the Secret `tls`, and gives it as a file to trust.
    fn certificate(&self, host: &str, file: &str) -> PathBuf {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let secret = secret_yaml("tls", &made.cert.pem(), &made.signing_key.serialize_pem())
            .replace("namespace: default", &format!("namespace: {}", self.name));
        let path = self.dir.path().join(file);
        fs::write(&path, made.cert.pem()).unwrap();
        self.api.apply(&secret).unwrap();
        path
    }

    fn get(&self, host: &str) -> Answer {
        let url = format!("http://{}/", self.forebay.http_addr());
        client::curl_in(self.api.namespace(), &["-H", &format!("Host: {host}"), &url]).unwrap()
    }

    /// The name of the pod that answers for `host`, or the status.
    fn pod(&self, host: &str) -> String {
        let answer = self.get(host);
        if answer.status == 200 { answer.json::<Echo>().unwrap().pod } else { answer.status.to_string() }
    }

    /// Tells whether a TLS client that trusts only `certificate` gets an answer from `host`.
    fn verifies(&self, host: &str, certificate: &std::path::Path) -> bool {
        let at = format!("{host}:443:{}", self.forebay.https_addr());
        let (file, url) = (certificate.display().to_string(), format!("https://{host}/"));
        let answer = client::curl_in(self.api.namespace(), &["--connect-to", &at, "--cacert", &file, &url]);
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nobody waits for it: the control plane goes with the last test anyway.
        let _ = self.api.kubectl(&["delete", "namespace", self.name, "--wait=false"], "");
    }
}

/// Waits until `holds` and asserts that it took no longer than the issue demands.
#[track_caller]
fn within_a_second(what: &str, holds: impl FnMut() -> bool) {
    let since = Instant::now();
    eventually(what, holds);
    let took = since.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took < DEMANDED, "{what}: took {took:?}");
}

/// The shared control plane, or `None` after having said why there is none.
fn api() -> Option<Arc<ApiServer>> {
    match api_server::available() {
        Ok(()) => Some(ApiServer::shared().unwrap()),
        Err(reason) => {
            skipped(&reason);
            None
        }
    }
}

#[test]
fn ingress_that_is_created_changed_and_deleted_is_followed_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("ingress", api);
    assert_eq!(site.pod("one.ingress.test"), "404");
    site.ingress("web", "one.ingress.test", "");
    within_a_second("Ingress created", || site.pod("one.ingress.test") == "a");
    site.ingress("web", "two.ingress.test", "");
    within_a_second("Ingress changed", || site.pod("two.ingress.test") == "a");
    assert_eq!(site.pod("one.ingress.test"), "404");
    site.api.delete(site.name, "ingress/web").unwrap();
    within_a_second("Ingress deleted", || site.pod("two.ingress.test") == "404");
}

#[test]
fn endpoints_that_come_drain_and_go_are_followed_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("endpoints", api);
    site.ingress("web", "endpoints.test", "");
    within_a_second("Ingress created", || site.pod("endpoints.test") == "a");
    let pods = || (0..4).map(|_| site.pod("endpoints.test")).collect::<BTreeSet<_>>();
    let (only_a, only_b, both) =
        (BTreeSet::from(["a".to_owned()]), BTreeSet::from(["b".to_owned()]), BTreeSet::from(["a".into(), "b".into()]));
    let draining = "ready: false, serving: true, terminating: true";
    site.endpoints(&[("a", "ready: true"), ("b", "ready: true")]);
    within_a_second("second endpoint", || pods() == both);
    site.endpoints(&[("a", draining), ("b", "ready: true")]);
    within_a_second("first endpoint terminating", || pods() == only_b);
    site.endpoints(&[("a", draining)]);
    within_a_second("only a terminating endpoint", || pods() == only_a);
    site.api.delete(site.name, "endpointslice/s-a").unwrap();
    within_a_second("no endpoints", || site.pod("endpoints.test") == "503");
}

#[test]
fn certificate_of_a_changed_secret_is_served_within_a_second() {
    let Some(api) = api() else { return };
    let site = Site::new("certificate", api);
    let host = "certificate.test";
    site.ingress("web", host, &format!("tls: [{{hosts: [{host}], secretName: tls}}],"));
    within_a_second("redirect without a Secret", || site.get(host).status == 308);
    let first = site.certificate(host, "first.pem");
    within_a_second("Secret created", || site.verifies(host, &first));
    let second = site.certificate(host, "second.pem");
    within_a_second("Secret changed", || site.verifies(host, &second));
    assert!(!site.verifies(host, &first), "the first certificate is still served");
    site.api.delete(site.name, "secret/tls").unwrap();
    within_a_second("Secret deleted", || !site.verifies(host, &second));
    assert_eq!(site.get(host).status, 308, "a missing Secret does not turn the redirect off");
}

#[test]
fn the_cluster_role_gives_what_is_used_and_nothing_else() {
    let Some(api) = api() else { return };
    api.forebay_kubeconfig().unwrap();
    let account = "--as=system:serviceaccount:forebay-system:forebay";
    let list = api.kubectl(&["auth", "can-i", "--list", account, "--no-headers"], "").unwrap();
    // Every account may ask about itself and read the version; those lines name other groups or paths.
    let ours: BTreeSet<_> = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.contains("selfsubject") && !line.starts_with('['))
        .collect();
    let expected = [
        "endpointslices.discovery.k8s.io [] [] [list watch]",
        "ingressclasses.networking.k8s.io [] [] [list watch]",
        "ingresses.networking.k8s.io [] [] [list watch]",
        "secrets [] [] [list watch]",
        "services [] [] [list watch]",
    ];
    assert_eq!(ours, expected.map(str::to_owned).into());
}

#[test]
fn a_killed_and_restarted_api_server_costs_no_request_and_no_change() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    // Its own: the others would miss it.
    let site = Site::new("outage", Arc::new(ApiServer::start().unwrap()));
    for name in ["stays", "goes"] {
        site.ingress(name, &format!("{name}.outage.test"), "");
    }
    within_a_second("Ingresses created", || site.pod("goes.outage.test") == "a");
    eventually("the source is in sync", || state(&site.forebay) == "in-sync");

    let load = Load::start(&site, "stays.outage.test");
    site.api.kill_server();
    eventually("Forebay has noticed", || state(&site.forebay) == "degraded");
    // Behind Forebay's back: a change, and nothing left of the revisions that its watches know.
    site.api.restart_server_hidden().unwrap();
    site.api.delete(site.name, "ingress/goes").unwrap();
    site.ingress("comes", "comes.outage.test", "");
    site.api.compact().unwrap();
    site.api.kill_server();
    assert_eq!(site.pod("goes.outage.test"), "a", "the last table stays in force");
    site.api.restart_server().unwrap();
    let since = Instant::now();
    eventually("what happened meanwhile is seen", || {
        site.pod("comes.outage.test") == "a" && site.pod("goes.outage.test") == "404"
    });
    println!("caught up {} ms after the API server was back", since.elapsed().as_millis());
    site.ingress("later", "later.outage.test", "");
    eventually("new changes are seen", || site.pod("later.outage.test") == "a");
    eventually("the source is in sync again", || state(&site.forebay) == "in-sync");
    let (requests, failures) = load.stop();
    println!("{requests} requests during the outage, {} failed", failures.len());
    assert_eq!(failures, [] as [String; 0]);
    assert!(requests > 100, "only {requests} requests");
}

fn state(forebay: &Forebay) -> String {
    let status = forebay.status().unwrap();
    let state = &status["source"]["state"];
    // A name, or an object with one, as the status has it.
    state.as_str().or_else(|| state["state"].as_str()).unwrap_or_default().to_owned()
}

/// Requests one after the other over fresh and kept connections, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, Vec<String>)>,
}

impl Load {
    fn start(site: &Site, host: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, host, stopped) = (site.forebay.http_addr(), host.to_owned(), Arc::clone(&stop));
        // Started from the namespace, it stays in there.
        let thread = site.api.namespace().run(move || std::thread::spawn(move || load(address, &host, &stopped)));
        Self { stop, thread }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn load(address: SocketAddr, host: &str, stop: &AtomicBool) -> (u64, Vec<String>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let request = format!("GET /load HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut failures = Vec::new();
    let mut requests = 0;
    while !stop.load(Ordering::SeqCst) {
        // A hundred requests a connection.
        let connection: std::io::Result<()> = (|| {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut reader = BufReader::new(stream.try_clone()?);
            for _ in 0..100 {
                stream.write_all(request.as_bytes())?;
                let (mut line, mut length, mut head) = (String::new(), 0, String::new());
                while reader.read_line(&mut line)? > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    head.push_str(&std::mem::take(&mut line));
                }
                reader.read_exact(&mut vec![0; length])?;
                requests += 1;
                if !head.starts_with("HTTP/1.1 200 ") {
                    failures.push(head);
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        })();
        if let Err(error) = connection {
            failures.push(error.to_string());
        }
    }
    (requests, failures)
}

#[test]
fn deploy_base_is_taken_by_a_real_api_server() {
    let Some(api) = api() else { return };
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base");
    let applied = api.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", base], "").unwrap();
    for object in ["clusterrole.rbac.authorization.k8s.io/forebay", "daemonset.apps/forebay", "ingressclass"] {
        assert!(applied.contains(object), "{object} is not in: {applied}");
    }
}
