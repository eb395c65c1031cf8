//! What one test has of the cluster: a namespace, pods, and a Forebay.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ingress_lab::{
    api_server::{ApiServer, POD},
    client::{self, Answer},
    forebay::{Forebay, Launch},
    lab::secret_yaml,
    origin::{Echo, Origin},
};

/// One test's namespace of the cluster, its pods, and its Forebay.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    /// One process, or the proxy of two.
    pub(crate) forebay: Forebay,
    /// The agent of two.
    pub(crate) agent: Option<Forebay>,
    pods: Vec<Origin>,
    dir: tempfile::TempDir,
    pub(crate) api: Arc<ApiServer>,
}

impl Site {
    /// With a Service `s` and the pods `a` and `b`, of which only `a` is an endpoint.
    pub(crate) fn new(name: &'static str, api: Arc<ApiServer>) -> Self {
        let kubeconfig = api.forebay_kubeconfig().unwrap();
        let mut site = Self::unready(name, api, &kubeconfig);
        site.forebay.wait_for_ready().unwrap();
        site
    }

    /// As [`new`](Self::new), with more flags, and without waiting.
    pub(crate) fn with_flags(name: &'static str, api: Arc<ApiServer>, flags: &[&str]) -> Self {
        let kubeconfig = api.forebay_kubeconfig().unwrap();
        Self::started(name, api, &kubeconfig, flags)
    }

    /// As [`new`](Self::new), with a Forebay under other credentials that need not do.
    pub(crate) fn unready(name: &'static str, api: Arc<ApiServer>, kubeconfig: &Path) -> Self {
        Self::started(name, api, kubeconfig, &[])
    }

    fn started(name: &'static str, api: Arc<ApiServer>, kubeconfig: &Path, flags: &[&str]) -> Self {
        let pod = |pod: &str| api.namespace().origin(pod, (POD, 0).into()).unwrap();
        let pods = vec![pod("a"), pod("b")];
        let forebay = Launch::new(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(&[
                "--workers",
                "1",
                "--kubeconfig",
                kubeconfig.to_str().unwrap(),
            ])
            .args(flags)
            .within(api.namespace())
            .start_unready()
            .unwrap();
        Self::of(name, api, pods, forebay, None)
    }

    /// As [`new`](Self::new), with agent and proxy as two processes.
    pub(crate) fn of_two_processes(name: &'static str, api: Arc<ApiServer>) -> Self {
        let kubeconfig = api.forebay_kubeconfig().unwrap();
        let pod = |pod: &str| api.namespace().origin(pod, (POD, 0).into()).unwrap();
        let pods = vec![pod("a"), pod("b")];
        // In memory: the proxy's state holds private keys.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let link = dir.path().join("link.sock");
        let at = ["--link", link.to_str().unwrap(), "--metrics", "off"];
        let agent = Launch::of("agent", &at)
            .args(&["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
            .args(&["--kubeconfig", kubeconfig.to_str().unwrap()])
            .within(api.namespace())
            .start_unready()
            .unwrap();
        let state = dir.path().join("state");
        let mut proxy = Launch::of("proxy", &at)
            .args(&["--workers", "1", "--state-dir", state.to_str().unwrap()])
            .within(api.namespace())
            .start_unready()
            .unwrap();
        proxy.wait_for_ready().unwrap();
        let mut site = Self::of(name, api, pods, proxy, Some(agent));
        site.dir = dir;
        site
    }

    fn of(
        name: &'static str,
        api: Arc<ApiServer>,
        pods: Vec<Origin>,
        forebay: Forebay,
        agent: Option<Forebay>,
    ) -> Self {
        let site = Self {
            name,
            forebay,
            agent,
            pods,
            dir: tempfile::tempdir().unwrap(),
            api,
        };
        site.api
            .apply(&format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
            ))
            .unwrap();
        site.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{name: http, port: 80}]}}");
        site.endpoints(&[("a", "ready: true")]);
        site
    }

    /// Applies one object, in flow YAML without a namespace.
    fn apply(&self, object: &str) {
        let placed = object.replacen(
            "metadata: {",
            &format!("metadata: {{namespace: {}, ", self.name),
            1,
        );
        self.api.apply(&placed).unwrap();
    }

    /// Makes `endpoints`, each a pod and its conditions, the endpoints of `s`.
    pub(crate) fn endpoints(&self, endpoints: &[(&str, &str)]) {
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

    pub(crate) fn ingress(&self, name: &str, host: &str, more: &str) {
        self.apply(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}}}, spec: {{ingressClassName: \
             nginx, {more} rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: \
             {{name: s, port: {{name: http}}}}}}}}]}}}}]}}}}"
        ));
    }

    /// Makes as many Ingresses at once, for the hosts `n0.<site>.test` and so on.
    pub(crate) fn ingresses(&self, count: u32) {
        let name = self.name;
        let all: String = (0..count)
            .map(|number| {
                format!(
                    "---\n{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{namespace: {name}, name: \
                     n{number}}}, spec: {{ingressClassName: nginx, rules: [{{host: n{number}.{name}.test, http: \
                     {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: s, port: {{name: \
                     http}}}}}}}}]}}}}]}}}}\n"
                )
            })
            .collect();
        self.api.apply(&all).unwrap();
    }

    /// Makes a certificate for `host`, puts it into the Secret `tls`, and gives it as a file to
    /// trust.
    pub(crate) fn certificate(&self, host: &str, file: &str) -> PathBuf {
        self.certificate_of_type(host, file, "kubernetes.io/tls")
    }

    /// As [`certificate`](Self::certificate), in a Secret of another type.
    pub(crate) fn certificate_of_type(&self, host: &str, file: &str, r#type: &str) -> PathBuf {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let secret = secret_yaml("tls", &made.cert.pem(), &made.signing_key.serialize_pem())
            .replace("namespace: default", &format!("namespace: {}", self.name))
            .replace("kubernetes.io/tls", r#type);
        let path = self.dir.path().join(file);
        fs::write(&path, made.cert.pem()).unwrap();
        self.api.apply(&secret).unwrap();
        path
    }

    pub(crate) fn get(&self, host: &str) -> Answer {
        let url = format!("http://{}/", self.forebay.http_addr());
        client::curl_in(
            self.api.namespace(),
            &["-H", &format!("Host: {host}"), &url],
        )
        .unwrap()
    }

    /// How many requests the pods have answered.
    pub(crate) fn requests(&self) -> u64 {
        self.pods.iter().map(Origin::requests).sum()
    }

    /// The name of the pod that answers for `host`, or the status.
    pub(crate) fn pod(&self, host: &str) -> String {
        let answer = self.get(host);
        if answer.status == 200 {
            answer.json::<Echo>().unwrap().pod
        } else {
            answer.status.to_string()
        }
    }

    /// Tells whether a TLS client that trusts only `certificate` gets an answer from `host`.
    pub(crate) fn verifies(&self, host: &str, certificate: &Path) -> bool {
        let at = format!("{host}:443:{}", self.forebay.https_addr());
        let (file, url) = (
            certificate.display().to_string(),
            format!("https://{host}/"),
        );
        let answer = client::curl_in(
            self.api.namespace(),
            &["--connect-to", &at, "--cacert", &file, &url],
        );
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nobody waits for it: the control plane goes with the last test anyway.
        let _ = self
            .api
            .kubectl(&["delete", "namespace", self.name, "--wait=false"], "");
    }
}
