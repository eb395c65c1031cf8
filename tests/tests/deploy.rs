//! `deploy/`: what a real API server makes of what kustomize renders, and whether a real Forebay can
//! live on it: its probes, its settings, its capabilities.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use ingress_lab::{
    api_server::{self, ApiServer},
    client::curl_in,
    eventually,
    forebay::{Forebay, Launch, binary, run_to_end},
    lab::{Lab, Namespace, NextHop, PLAIN_HOST, VIP},
    skipped,
};
use serde_json::Value;
use tempfile::TempDir;

/// One way to deploy, as the API server has it.
struct Deployed {
    /// The DaemonSet, with all defaults filled in.
    daemonset: Value,
    /// The environment that its ConfigMap sets.
    settings: BTreeMap<String, String>,
}

impl Deployed {
    fn pod(&self) -> &Value {
        &self.daemonset["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// Names of the capabilities that the container adds to none.
    fn capabilities(&self) -> BTreeSet<String> {
        let capabilities = &self.container()["securityContext"]["capabilities"];
        assert_eq!(strings(&capabilities["drop"]), ["ALL".to_owned()].into());
        strings(&capabilities["add"])
    }

    /// How to start a program with these capabilities and no other, as root.
    fn wrapper(&self) -> Vec<String> {
        let added = self.capabilities().into_iter();
        let added: String = added
            .map(|name| format!(",+{}", name.to_lowercase()))
            .collect();
        let bounding = format!("--bounding-set=-all{added}");
        ["setpriv", &bounding, "--inh-caps=-all", "--no-new-privs"]
            .map(str::to_owned)
            .into()
    }

    /// A Forebay with the container's flags, settings and capabilities, but a folder for a source.
    fn launch(&self, manifests: &Path) -> Launch {
        let args = strings(&self.container()["args"]);
        assert_eq!(args, ["run".to_owned()].into());
        let wrapper = self.wrapper();
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let launch = Launch::new(&["--manifests", manifests.to_str().unwrap()]);
        let settings = self.settings.iter();
        settings
            .fold(launch, |launch, (name, value)| launch.env(name, value))
            .wrapped_by(&wrapper)
    }
}

/// `base` and `overlays/vip`, each applied to the API server over the other.
fn deployed() -> Option<&'static (Deployed, Deployed)> {
    static DEPLOYED: OnceLock<(Deployed, Deployed)> = OnceLock::new();
    if let Err(reason) = api_server::available() {
        skipped(&reason);
        return None;
    }
    Some(DEPLOYED.get_or_init(|| {
        let api = ApiServer::shared().unwrap();
        let vip = apply(&api, "overlays/vip");
        // What the overlay adds must go when it is taken away.
        let base = apply(&api, "base");
        (base, vip)
    }))
}

fn apply(api: &ApiServer, folder: &str) -> Deployed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder);
    let rendered = api.kubectl(&["kustomize", path.to_str().unwrap()], "");
    api.apply(&rendered.unwrap()).unwrap();
    let get = |object: &str| {
        let args = ["get", "--output", "json", "--namespace", "forebay-system"];
        let json = api.kubectl(&[&args[..], &[object]].concat(), "").unwrap();
        serde_json::from_str::<Value>(&json).unwrap()
    };
    let daemonset = get("daemonset/forebay");
    let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
    let name = container["envFrom"][0]["configMapRef"]["name"].as_str();
    let settings = get(&format!("configmap/{}", name.unwrap()));
    let settings = serde_json::from_value(settings["data"].clone()).unwrap();
    Deployed {
        daemonset,
        settings,
    }
}

fn strings(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The fields of `more` that `less` has not, or has otherwise.
fn additions(less: &Value, more: &Value) -> BTreeSet<String> {
    let fields = more.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| less[field.as_str()] != **value)
        .map(|(field, _)| field.clone())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn base_asks_for_low_ports_and_for_nothing_of_the_node() {
    let Some((base, _)) = deployed() else { return };
    assert_eq!(base.capabilities(), set(&["NET_BIND_SERVICE"]));
    let rights = &base.container()["securityContext"];
    assert_eq!(rights["readOnlyRootFilesystem"], true);
    assert_eq!(rights["allowPrivilegeEscalation"], false);
    assert_eq!(rights["privileged"], Value::Null);
    for volume in base.pod()["volumes"].as_array().unwrap() {
        assert_eq!(volume["hostPath"], Value::Null, "{volume}");
    }
}

#[test]
fn vip_adds_what_virtual_ips_need_and_nothing_else() {
    let Some((base, vip)) = deployed() else {
        return;
    };
    let added = &vip.capabilities() - &base.capabilities();
    assert_eq!(added, set(&["BPF", "NET_ADMIN", "PERFMON"]));
    assert!(base.capabilities().is_subset(&vip.capabilities()));

    let pods = additions(base.pod(), vip.pod());
    assert_eq!(pods, set(&["containers", "nodeSelector", "volumes"]));
    let containers = additions(base.container(), vip.container());
    let expected = ["env", "envFrom", "securityContext", "volumeMounts"];
    assert_eq!(containers, set(&expected));
    let rights = |deployed: &'static Deployed| &deployed.container()["securityContext"];
    assert_eq!(
        additions(rights(base), rights(vip)),
        set(&["appArmorProfile", "capabilities", "seLinuxOptions"])
    );

    let mounts = vip.container()["volumeMounts"].as_array().unwrap();
    let bpffs = mounts.iter().find(|mount| mount["name"] == "bpffs");
    assert_eq!(bpffs.unwrap()["mountPropagation"], "HostToContainer");
    // Nobody's cluster may run with a seed that stands in a repository.
    assert!(!vip.settings.contains_key("FOREBAY_HASH_SEED"));
    let environment = vip.container()["env"].as_array().unwrap();
    let seed = environment
        .iter()
        .find(|variable| variable["name"] == "FOREBAY_HASH_SEED");
    let from = &seed.unwrap()["valueFrom"]["secretKeyRef"];
    assert_eq!(from["name"], "forebay-hash-seed", "{seed:?}");
    assert_ne!(from["optional"], true, "pods must wait for the seed");
}

#[test]
fn a_new_pod_fits_beside_the_old_one_and_has_time_to_end() {
    let Some((base, vip)) = deployed() else {
        return;
    };
    for deployed in [base, vip] {
        let update = &deployed.daemonset["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!(update["maxSurge"], 1);
        assert_eq!(update["maxUnavailable"], 0);
        assert!(deployed.daemonset["spec"]["minReadySeconds"].as_u64() > Some(0));
        assert_eq!(deployed.pod()["hostNetwork"], true);
        // A declared port would be a port of the node, and the new pod would find no place.
        assert_eq!(deployed.container()["ports"], Value::Null);
        let seconds = |name: &str| {
            let value = deployed.settings[name].strip_suffix('s').unwrap();
            Duration::from_secs(value.parse().unwrap())
        };
        let period = deployed.pod()["terminationGracePeriodSeconds"].as_u64();
        let ending = seconds("FOREBAY_SHUTDOWN_DELAY") + seconds("FOREBAY_SHUTDOWN_GRACE");
        assert!(Duration::from_secs(period.unwrap()) > ending);
    }
}

#[test]
fn every_setting_is_a_variable_that_forebay_reads() {
    let Some((base, vip)) = deployed() else {
        return;
    };
    let help = run_to_end(&["run", "--help"]).unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for name in base.settings.keys().chain(vip.settings.keys()) {
        assert!(help.contains(&format!("[env: {name}=")), "{name}");
    }
}

/// Runs the command of a probe as a kubelet would, beside `forebay`; tells whether it succeeds.
fn probe(forebay: &Forebay, probe: &Value) -> bool {
    let words = probe["exec"]["command"].as_array().unwrap();
    let mut words = words.iter().map(|word| word.as_str().unwrap());
    assert_eq!(words.next(), Some("/forebay"));
    let status = Command::new(binary().unwrap())
        .args(words)
        .env("FOREBAY_ADMIN_SOCKET", forebay.admin_socket())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

#[test]
fn probes_tell_a_pod_that_serves_from_one_that_waits_and_one_that_is_gone() {
    let Some((base, _)) = deployed() else { return };
    let probes = |forebay: &Forebay| {
        ["readinessProbe", "livenessProbe"].map(|name| probe(forebay, &base.container()[name]))
    };
    let folder = TempDir::new().unwrap();
    let mut serving = Launch::manifests(folder.path()).start().unwrap();
    assert_eq!(probes(&serving), [true, true]);
    serving.kill();
    assert_eq!(probes(&serving), [false, false]);

    // It waits for an API server that is not there, beside one on the same ports that serves: the
    // old pod of a rollout must not answer for the new one.
    let old = Launch::manifests(folder.path()).start().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NOWHERE).unwrap();
    let waiting = Launch::new(&["--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(&["--http", &old.http_addr().to_string()])
        .args(&["--https", &old.https_addr().to_string()])
        .args(&["--metrics", "127.0.0.1:0"])
        .start_unready()
        .unwrap();
    waiting.wait_for("cannot watch the source").unwrap();
    // The agent has a thread of its own: the socket, which is said last, may come later.
    eventually("it listens", || {
        waiting.log_text().contains(r#""listener":"admin""#)
    });
    // Its scrapes would come from the old one's port.
    assert!(TcpStream::connect(waiting.metrics_addr()).is_err());
    for _ in 0..10 {
        assert_eq!(probes(&waiting), [false, true]);
        assert_eq!(probes(&old), [true, true]);
    }
}

const NOWHERE: &str = "\
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
";

#[test]
fn the_rights_of_base_suffice_for_ports_80_and_443() {
    let Some((base, _)) = deployed() else { return };
    let node = Arc::new(Namespace::new("node").unwrap());
    node.up("lo").unwrap();
    let folder = TempDir::new().unwrap();
    let forebay = base.launch(folder.path()).within(&node).start().unwrap();
    assert_eq!(forebay.http_addr().port(), 80);
    assert_eq!(forebay.https_addr().port(), 443);
    let answer = curl_in(&node, &["http://127.0.0.1:10254/metrics"]).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn the_rights_of_vip_suffice_for_virtual_ips() {
    let Some((_, vip)) = deployed() else { return };
    let lab = Lab::new(NextHop::Single).unwrap();
    let folder = TempDir::new().unwrap();
    lab.write_manifests(folder.path()).unwrap();
    let node = &lab.nodes[0];
    // Its addresses are of the documentation; its interfaces are candidates, of which a node has
    // one. It is the only node: no connection belongs to another, on which nothing runs.
    let this_node = format!("{}={}", node.name, node.address);
    let forebay = vip
        .launch(folder.path())
        .args(&["--vip", &VIP.to_string(), "--node-name", &node.name])
        .args(&["--node", &this_node])
        .within(&node.namespace)
        .start()
        .unwrap();
    assert_eq!(
        forebay.status().unwrap()["data_plane"]["mode"],
        "xdp-native"
    );
    eventually("a request reaches the virtual IP", || {
        let url = format!("http://{VIP}/");
        let args = [
            "--max-time",
            "2",
            "-H",
            &format!("Host: {PLAIN_HOST}"),
            &url,
        ];
        curl_in(&lab.client, &args).is_ok_and(|answer| answer.status == 200)
    });
}
