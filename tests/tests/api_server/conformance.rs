//! What the Kubernetes project's conformance suite for Ingress controllers (2021, its last) asks of one:
//! host rules, path rules, default backends, load balancing, classes. Its steps need a kubelet, since
//! backends are Deployments; here pods are processes, and their EndpointSlices are written by the test.
//! Not asked yet is what waits for `status.loadBalancer`, which Forebay does not write.

use std::{collections::BTreeSet, sync::Arc};

use ingress_lab::{
    api_server::{self, ApiServer, POD},
    client::{Answer, curl_in},
    eventually,
    forebay::{Forebay, Launch},
    lab::secret_yaml,
    origin::{Echo, Origin},
    skipped,
};

/// A controller that serves one class of its own, and pods by Service.
struct Suite {
    api: Arc<ApiServer>,
    forebay: Forebay,
    namespace: &'static str,
    pods: Vec<Origin>,
}

impl Suite {
    /// `None` where there is no API server to run it with.
    fn start(namespace: &'static str) -> Option<Self> {
        if let Err(reason) = api_server::available() {
            skipped(&reason);
            return None;
        }
        let api = ApiServer::shared().unwrap();
        let object =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
        api.apply(&object).unwrap();
        let kubeconfig = api.forebay_kubeconfig().unwrap();
        // A catch-all of another test would answer, too.
        let forebay = Launch::cluster(kubeconfig.to_str().unwrap())
            .args(&[
                "--ingress-class",
                namespace,
                "--workers",
                "2",
                "--metrics",
                "off",
            ])
            .within(api.namespace())
            .start()
            .unwrap();
        Some(Self {
            api,
            forebay,
            namespace,
            pods: Vec::new(),
        })
    }

    /// A Service of that name, with so many pods.
    fn service(&mut self, name: &str, pods: usize) {
        let namespace = self.namespace;
        self.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}}}, \
             spec: {{ports: [{{name: http, port: 8080}}]}}}}"
        ));
        for number in 0..pods {
            let pod = format!("{name}-{number}");
            let origin = self.api.namespace().origin(&pod, (POD, 0).into()).unwrap();
            let port = origin.address().port();
            self.apply(&format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: {namespace}, \
                 name: {pod}, labels: {{kubernetes.io/service-name: {name}}}}}, addressType: IPv4, \
                 ports: [{{name: http, port: {port}}}], endpoints: [{{addresses: ['{POD}'], \
                 targetRef: {{kind: Pod, name: {pod}}}}}]}}"
            ));
            self.pods.push(origin);
        }
    }

    fn apply(&self, object: &str) {
        self.api.apply(object).unwrap();
    }

    /// An Ingress of the suite's class.
    fn ingress(&self, name: &str, spec: &str) {
        let namespace = self.namespace;
        self.apply(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{namespace: {namespace}, \
             name: {name}}}, spec: {{ingressClassName: {namespace}, {spec}}}}}"
        ));
    }

    fn curl(&self, args: &[&str], path: &str) -> Answer {
        let url = format!("http://{}{path}", self.forebay.http_addr());
        curl_in(self.api.namespace(), &[args, &[&url]].concat()).unwrap()
    }

    fn get(&self, host: &str, path: &str) -> Answer {
        self.curl(&["-H", &format!("Host: {host}")], path)
    }

    /// As a client that follows a redirect to TLS and asks for no certificate: the suite's.
    fn follow(&self, host: &str, path: &str) -> Answer {
        let answer = self.get(host, path);
        if answer.status != 308 {
            return answer;
        }
        let at = format!("{host}:443:{}", self.forebay.https_addr());
        let (insecure, url) = (["--insecure", "--http1.1"], answer.header("location"));
        let args = [&insecure[..], &["--connect-to", &at, url]].concat();
        curl_in(self.api.namespace(), &args).unwrap()
    }

    /// A request for `host` and `path` must reach a pod of `service` as it is, or get 404.
    fn expect(&self, host: &str, path: &str, service: Option<&str>) {
        let answer = self.follow(host, path);
        let Some(service) = service else {
            assert_eq!(answer.status, 404, "{host}{path}");
            return;
        };
        assert_eq!(answer.status, 200, "{host}{path}: {}", answer.text());
        let echo: Echo = answer.json().unwrap();
        assert_eq!(echo.pod, format!("{service}-0"), "{host}{path}");
        assert_eq!((&*echo.path, &*echo.headers["host"]), (path, host));
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        // Nobody waits for it: the control plane goes with the last test anyway.
        let args = ["delete", "namespace", self.namespace, "--wait=false"];
        let _ = self.api.kubectl(&args, "");
    }
}

/// One path of a rule.
fn path(kind: &str, path: &str, service: &str) -> String {
    format!(
        "{{path: {path}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 8080}}}}}}}}"
    )
}

fn rule(host: &str, paths: &[String]) -> String {
    format!(
        "{{host: '{host}', http: {{paths: [{}]}}}}",
        paths.join(", ")
    )
}

#[test]
fn paths_are_matched_as_the_conformance_suite_asks() {
    let Some(mut suite) = Suite::start("path-rules") else {
        return;
    };
    for service in ["exact", "foo", "aaa", "aaa-bbb", "slash", "exact-slash"] {
        suite.service(service, 1);
    }
    let rules = [
        rule("exact-rules", &[path("Exact", "/foo", "exact")]),
        rule(
            "prefix-rules",
            &[
                path("Prefix", "/foo", "foo"),
                path("Prefix", "/aaa/bbb", "aaa-bbb"),
                path("Prefix", "/aaa", "aaa"),
            ],
        ),
        rule(
            "mixed-rules",
            &[
                path("Prefix", "/foo", "foo"),
                path("Exact", "/foo", "exact"),
            ],
        ),
        rule(
            "slash-rules",
            &[
                path("Prefix", "/aaa/bbb/", "slash"),
                path("Exact", "/foo/", "exact-slash"),
            ],
        ),
    ];
    suite.ingress("path-rules", &format!("rules: [{}]", rules.join(", ")));
    eventually("the Ingress is served", || {
        suite.get("exact-rules", "/foo").status == 200
    });
    for (host, path, service) in [
        ("exact-rules", "/foo", Some("exact")),
        ("exact-rules", "/foo/", None),
        ("exact-rules", "/FOO", None),
        ("exact-rules", "/bar", None),
        ("prefix-rules", "/foo", Some("foo")),
        ("prefix-rules", "/foo/", Some("foo")),
        ("prefix-rules", "/FOO", None),
        ("prefix-rules", "/aaa/bbb", Some("aaa-bbb")),
        ("prefix-rules", "/aaa/bbb/ccc", Some("aaa-bbb")),
        ("prefix-rules", "/aaa/ccc", Some("aaa")),
        ("prefix-rules", "/aaaccc", None),
        ("mixed-rules", "/foo", Some("exact")),
        ("mixed-rules", "/foo/", Some("foo")),
        ("slash-rules", "/aaa/bbb", Some("slash")),
        ("slash-rules", "/aaa/bbb/", Some("slash")),
        ("slash-rules", "/foo", None),
        ("slash-rules", "/foo/", Some("exact-slash")),
    ] {
        suite.expect(host, path, service);
    }
}

#[test]
fn hosts_are_matched_as_the_conformance_suite_asks() {
    let Some(mut suite) = Suite::start("host-rules") else {
        return;
    };
    suite.service("wildcard", 1);
    suite.service("one", 1);
    let made = rcgen::generate_simple_self_signed(["foo.bar.com".to_owned()]).unwrap();
    let secret = secret_yaml("tls", &made.cert.pem(), &made.signing_key.serialize_pem());
    suite.apply(&secret.replace("namespace: default", "namespace: host-rules"));
    let rules = [
        rule("*.foo.com", &[path("Prefix", "/", "wildcard")]),
        rule("foo.bar.com", &[path("Prefix", "/", "one")]).replace("number: 8080", "name: http"),
    ];
    suite.ingress(
        "host-rules",
        &format!(
            "tls: [{{hosts: [foo.bar.com], secretName: tls}}], rules: [{}]",
            rules.join(", ")
        ),
    );
    eventually("the Ingress is served", || {
        suite.follow("bar.foo.com", "/").status == 200
    });
    for (host, service) in [
        ("foo.bar.com", Some("one")),
        ("bar.foo.com", Some("wildcard")),
        ("baz.bar.foo.com", None),
        ("foo.com", None),
        ("subdomain.bar.com", None),
    ] {
        suite.expect(host, "/", service);
    }
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let at = format!("foo.bar.com:443:{}", suite.forebay.https_addr());
    let secure = ["--connect-to", &at, "--cacert", ca.to_str().unwrap()];
    let answer = [&secure[..], &["https://foo.bar.com/"]].concat();
    let answer = curl_in(suite.api.namespace(), &answer).unwrap();
    let echo: Echo = answer.json().unwrap();
    assert_eq!((answer.status, &*echo.pod), (200, "one-0"));
    assert_eq!(echo.headers["host"], "foo.bar.com");
    // What was followed, for each host of an Ingress with a TLS section, as in ingress-nginx.
    for host in ["foo.bar.com", "bar.foo.com"] {
        let answer = suite.get(host, "/");
        let location = answer.header("location");
        assert_eq!(
            (answer.status, location),
            (308, &*format!("https://{host}"))
        );
    }
}

#[test]
fn a_default_backend_gets_everything_as_the_conformance_suite_asks() {
    let Some(mut suite) = Suite::start("default-backend") else {
        return;
    };
    suite.service("echo", 1);
    let spec = "defaultBackend: {service: {name: echo, port: {number: 8080}}}";
    suite.ingress("default-backend", spec);
    eventually("the Ingress is served", || {
        suite.get("my-host", "/").status == 200
    });
    for (method, host, path) in [
        ("GET", "Host: my-host", "/"),
        ("GET", "Host: my-host", "/sub-path"),
        ("POST", "Host: some-host", "/"),
        // Its client sends the address where a host is left out.
        ("PUT", "Accept: */*", "/resource"),
        ("DELETE", "Host: some-host", "/resource"),
        ("PATCH", "Host: my-host", "/resource"),
    ] {
        let agent = ["--user-agent", "Go-http-client/1.1"];
        let args = [&["--request", method, "-H", host][..], &agent].concat();
        let answer = suite.curl(&args, path);
        assert_eq!(answer.status, 200, "{method} {host} {path}");
        assert_eq!(answer.version, "HTTP/1.1");
        for name in ["content-length", "content-type", "date", "server"] {
            assert_ne!(answer.header(name), "", "{method} {host} {path}: {name}");
        }
        let echo: Echo = answer.json().unwrap();
        assert_eq!((&*echo.method, &*echo.path), (method, path));
        assert_eq!(echo.version, "HTTP/1.1");
        assert_eq!(echo.headers["user-agent"], "Go-http-client/1.1");
    }
}

#[test]
fn all_pods_of_a_backend_are_used_as_the_conformance_suite_asks() {
    let Some(mut suite) = Suite::start("load-balancing") else {
        return;
    };
    suite.service("echo", 10);
    let spec = "defaultBackend: {service: {name: echo, port: {number: 8080}}}";
    suite.ingress("load-balancing", spec);
    eventually("all endpoints are known", || {
        let routes = suite.forebay.routes().unwrap();
        let endpoints = routes[0]["endpoints"].as_array();
        endpoints.is_some_and(|endpoints| endpoints.len() == 10)
    });
    let pods: BTreeSet<_> = (0..100)
        .map(|_| suite.get("load-balancing", "/").json::<Echo>().unwrap().pod)
        .collect();
    assert_eq!(pods.len(), 10, "{pods:?}");
}

#[test]
fn an_ingress_of_another_class_is_not_served_as_the_conformance_suite_asks() {
    let Some(mut suite) = Suite::start("ingress-class") else {
        return;
    };
    suite.service("echo", 1);
    let backend = [path("Prefix", "/", "echo")];
    let foreign = format!("rules: [{}]", rule("foreign", &backend));
    suite.ingress(
        "foreign",
        &format!("{foreign}, ingressClassName: some-other"),
    );
    let own = format!("rules: [{}]", rule("own", &backend));
    suite.ingress("own", &own);
    eventually("the Ingress of its class is served", || {
        suite.get("own", "/").status == 200
    });
    suite.expect("foreign", "/", None);
}
