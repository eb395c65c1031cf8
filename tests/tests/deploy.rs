//! `deploy/`: what a real API server makes of what kustomize renders, and whether a real Forebay can
//! live on it: its probes, its settings, its capabilities.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
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

    fn container(&self, name: &str) -> &Value {
        let containers = self.pod()["containers"].as_array().unwrap();
        let found = containers.iter().find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("no container {name}"))
    }

    /// Names of the capabilities that a container adds to none.
    fn capabilities(&self, container: &str) -> BTreeSet<String> {
        let capabilities = &self.container(container)["securityContext"]["capabilities"];
        assert_eq!(strings(&capabilities["drop"]), ["ALL".to_owned()].into());
        strings(&capabilities["add"])
    }

    /// How to start a program as a container's user, with its capabilities and no other.
    fn wrapper(&self, container: &str) -> Vec<String> {
        let added = self.capabilities(container).into_iter();
        let added: String = added
            .map(|name| format!(",+{}", name.to_lowercase()))
            .collect();
        let id = |field: &str| {
            let rights = &self.container(container)["securityContext"];
            rights[field].as_u64().unwrap()
        };
        let group = &self.pod()["securityContext"]["fsGroup"];
        [
            "setpriv".to_owned(),
            format!("--reuid={}", id("runAsUser")),
            format!("--regid={}", id("runAsGroup")),
            format!("--groups={group}"),
            format!("--bounding-set=-all{added}"),
            "--inh-caps=-all".to_owned(),
            "--no-new-privs".to_owned(),
        ]
        .into()
    }

    /// A container's process, with its flags, settings, user and capabilities.
    fn launch(&self, container: &str, link: &Path) -> Launch {
        let args = strings(&self.container(container)["args"]);
        assert_eq!(args, [container.to_owned()].into());
        let wrapper = self.wrapper(container);
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let launch = Launch::of(container, &["--link", link.to_str().unwrap()]);
        let settings = self.settings.iter();
        settings
            .fold(launch, |launch, (name, value)| launch.env(name, value))
            .wrapped_by(&wrapper)
    }

    /// The pod's processes, with a folder for a source.
    fn start(&self, manifests: &Path, node: &Arc<Namespace>, agent_args: &[&str]) -> Pod {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // As a kubelet makes an emptyDir for the group.
        let group = self.pod()["securityContext"]["fsGroup"].as_u64().unwrap();
        let group = Some(u32::try_from(group).unwrap());
        let volume = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, None, group).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o2777)).unwrap();
            path
        };
        let (link, state) = (
            volume("link").join("link.sock"),
            volume("run").join("state"),
        );
        let agent = self
            .launch("agent", &link)
            .args(&["--manifests", manifests.to_str().unwrap()])
            .args(agent_args)
            .within(node)
            .start_unready()
            .unwrap();
        let proxy = self
            .launch("proxy", &link)
            .env("FOREBAY_STATE_DIR", state.to_str().unwrap())
            .within(node)
            .start()
            .unwrap();
        Pod {
            agent,
            proxy,
            _folder: folder,
        }
    }
}

/// Both processes of a pod, and its volumes.
struct Pod {
    agent: Forebay,
    proxy: Forebay,
    _folder: TempDir,
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
    assert_eq!(base.capabilities("agent"), set(&["NET_BIND_SERVICE"]));
    for name in ["agent", "proxy"] {
        let rights = &base.container(name)["securityContext"];
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["privileged"], Value::Null);
    }
    for volume in base.pod()["volumes"].as_array().unwrap() {
        assert_eq!(volume["hostPath"], Value::Null, "{volume}");
    }
}

#[test]
fn the_proxy_has_no_right_no_token_and_nothing_of_the_node() {
    let Some((base, vip)) = deployed() else {
        return;
    };
    for deployed in [base, vip] {
        assert_eq!(deployed.capabilities("proxy"), set(&[]));
        let proxy = deployed.container("proxy");
        assert_eq!(proxy["securityContext"]["runAsNonRoot"], true);
        assert_eq!(deployed.pod()["automountServiceAccountToken"], false);
        let volumes = deployed.pod()["volumes"].as_array().unwrap();
        for mount in proxy["volumeMounts"].as_array().unwrap() {
            let volume = volumes.iter().find(|one| one["name"] == mount["name"]);
            let volume = volume.unwrap();
            // Private keys are in them.
            assert_eq!(volume["emptyDir"]["medium"], "Memory", "{volume}");
        }
    }
}

#[test]
fn vip_adds_what_virtual_ips_need_and_nothing_else() {
    let Some((base, vip)) = deployed() else {
        return;
    };
    let (less, more) = (base.capabilities("agent"), vip.capabilities("agent"));
    assert_eq!(
        &more - &less,
        set(&["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"])
    );
    assert!(less.is_subset(&more));
    // Its settings have another name.
    let proxies = additions(base.container("proxy"), vip.container("proxy"));
    assert_eq!(proxies, set(&["envFrom"]));

    let pods = additions(base.pod(), vip.pod());
    assert_eq!(pods, set(&["containers", "nodeSelector", "volumes"]));
    let containers = additions(base.container("agent"), vip.container("agent"));
    let expected = ["env", "envFrom", "securityContext", "volumeMounts"];
    assert_eq!(containers, set(&expected));
    let rights = |deployed: &'static Deployed| &deployed.container("agent")["securityContext"];
    assert_eq!(
        additions(rights(base), rights(vip)),
        set(&["appArmorProfile", "capabilities", "seLinuxOptions"])
    );

    let mounts = vip.container("agent")["volumeMounts"].as_array().unwrap();
    let bpffs = mounts.iter().find(|mount| mount["name"] == "bpffs");
    assert_eq!(bpffs.unwrap()["mountPropagation"], "HostToContainer");
    // Nobody's cluster may run with a seed that stands in a repository.
    assert!(!vip.settings.contains_key("FOREBAY_HASH_SEED"));
    let environment = vip.container("agent")["env"].as_array().unwrap();
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
        for name in ["agent", "proxy"] {
            assert_eq!(deployed.container(name)["ports"], Value::Null);
        }
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
    let help = ["agent", "proxy"].map(|command| {
        let help = run_to_end(&[command, "--help"]).unwrap().stdout;
        String::from_utf8(help).unwrap()
    });
    let help = help.concat();
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
    let probes = |container: &str, forebay: &Forebay| {
        ["readinessProbe", "livenessProbe"]
            .map(|name| probe(forebay, &base.container(container)[name]))
    };
    let folder = TempDir::new().unwrap();
    let node = Arc::new(Namespace::new("node").unwrap());
    node.up("lo").unwrap();
    let mut serving = base.start(folder.path(), &node, &[]);
    serving.agent.wait_for("a proxy is there").unwrap();
    eventually("both are ready", || {
        probes("agent", &serving.agent) == [true, true]
            && probes("proxy", &serving.proxy) == [true, true]
    });
    // One waits for an API server that is not there, beside the one that serves, on the same ports and
    // in the same network: the old pod of a rollout must not answer for the new one.
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NOWHERE).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let link = folder.path().join("link.sock");
    let mut agent = base.launch("agent", &link).within(&node);
    agent = agent.args(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let agent = agent.start_unready().unwrap();
    agent.wait_for("cannot watch the source").unwrap();
    std::fs::set_permissions(&link, Permissions::from_mode(0o666)).unwrap();
    let proxy = base.launch("proxy", &link).within(&node);
    let proxy = proxy.start_unready().unwrap();
    agent.wait_for("a proxy is there").unwrap();
    for _ in 0..10 {
        assert_eq!(probes("agent", &agent), [false, true]);
        assert_eq!(probes("proxy", &proxy), [false, true]);
        assert_eq!(probes("agent", &serving.agent), [true, true]);
        assert_eq!(probes("proxy", &serving.proxy), [true, true]);
        // Scrapes reach the one that serves, never the one that waits.
        let answer = curl_in(&node, &["http://127.0.0.1:10254/metrics"]).unwrap();
        assert!(answer.text().contains("forebay_ready 1"));
    }
    serving.proxy.kill();
    assert_eq!(probes("proxy", &serving.proxy), [false, false]);
    assert_eq!(probes("agent", &serving.agent), [true, true]);
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
    let mut pod = base.start(folder.path(), &node, &[]);
    let served = || {
        let answers = ["http://127.0.0.1/", "http://127.0.0.1:10254/metrics"]
            .map(|url| curl_in(&node, &[url]).unwrap().status);
        assert_eq!(answers, [404, 200]);
    };
    assert_eq!(pod.proxy.http_addr().port(), 80);
    assert_eq!(pod.proxy.https_addr().port(), 443);
    served();
    // Each container may end alone.
    for _ in 0..2 {
        pod.agent.kill();
        served();
        pod.agent.restart_unready().unwrap();
        pod.agent.wait_for("a proxy is there").unwrap();
        pod.proxy.kill();
        pod.proxy.restart().unwrap();
        served();
    }
}

/// The first release ran both in one container, as root.
#[test]
fn a_pod_of_one_container_is_replaced_by_one_of_two() {
    let Some((base, _)) = deployed() else { return };
    let node = Arc::new(Namespace::new("node").unwrap());
    node.up("lo").unwrap();
    let folder = TempDir::new().unwrap();
    let mut old = Launch::new(&["--manifests", folder.path().to_str().unwrap()])
        .args(&["--http", "0.0.0.0:80", "--https", "0.0.0.0:443"])
        .args(&["--metrics", "0.0.0.0:10254", "--lame-duck", "1s"])
        .within(&node)
        .start()
        .unwrap();
    let pod = base.start(folder.path(), &node, &[]);
    eventually("the old process knows about both ports", || {
        old.log_text().matches("the successor serves").count() == 2
    });
    old.terminate().unwrap();
    old.wait().unwrap();
    let end = old.log();
    let end = end.iter().find(|line| line["replaced"].is_boolean());
    assert_eq!(end.unwrap()["replaced"], true, "{}", old.log_text());
    eventually("the metrics are those of the new pod", || {
        let answer = curl_in(&node, &["http://127.0.0.1:10254/metrics"]);
        answer.is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(curl_in(&node, &["http://127.0.0.1/"]).unwrap().status, 404);
    assert_eq!(pod.agent.status().unwrap()["proxy"], "serving");
}

#[test]
fn the_rights_of_vip_suffice_for_virtual_ips() {
    let Some((_, vip)) = deployed() else { return };
    let lab = Lab::new(NextHop::Single).unwrap();
    let folder = TempDir::new().unwrap();
    lab.write_manifests(folder.path()).unwrap();
    let node = &lab.nodes[0];
    // Its address is of the documentation; its interfaces are candidates, of which a node has
    // one. It is the only node, by a flag: there is no operator that lists it.
    let this_node = format!("{}={}", node.name, node.address);
    let (vip_text, name) = (VIP.to_string(), ["--node-name", &node.name]);
    let args = ["--vip", &vip_text, "--node", &this_node];
    let mut settings = vip.settings.clone();
    let namespace = settings.remove("FOREBAY_NODES_NAMESPACE");
    assert_eq!(namespace.as_deref(), Some("forebay-system"));
    let vip = Deployed {
        daemonset: vip.daemonset.clone(),
        settings,
    };
    let mut pod = vip.start(folder.path(), &node.namespace, &[&args[..], &name].concat());
    assert_eq!(
        pod.agent.status().unwrap()["data_plane"]["mode"],
        "xdp-native"
    );
    let asks = |limit: &str| {
        let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/"));
        let args = ["--max-time", limit, "-H", &host, &url];
        curl_in(&lab.client, &args).is_ok_and(|answer| answer.status == 200)
    };
    eventually("a request reaches the virtual IP", || asks("2"));
    // What is in the kernel outlives the agent, and the next one finds the proxy's sockets.
    pod.agent.kill();
    assert!(asks("5"), "without the agent");
    pod.agent.restart_unready().unwrap();
    eventually("the new agent has a proxy", || {
        let status = pod.agent.status();
        status.is_ok_and(|status| status["proxy"] == "serving")
    });
    assert!(asks("5"), "with another agent");
    pod.proxy.kill();
    pod.proxy.restart().unwrap();
    eventually("a request reaches another proxy", || asks("5"));
}
