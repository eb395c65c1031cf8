//! What a process does with its file of nodes, whatever else it waits for.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use ingress_lab::{
    eventually,
    forebay::{Forebay, Launch, binary},
    lab::{self, Lab, NextHop, VIP},
    skipped,
};
use tempfile::TempDir;

/// The first node of a lab, with a file that names it.
struct Node {
    lab: Lab,
    /// Of the manifests.
    served: TempDir,
    /// Of the file of nodes, the link and the kubeconfig.
    folder: TempDir,
}

impl Node {
    /// `None`, and says so, where the machine allows no lab.
    fn new() -> Option<Self> {
        if let Err(reason) = lab::available() {
            skipped(&reason);
            return None;
        }
        let lab = Lab::new(NextHop::Single).unwrap();
        let (served, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        lab.write_manifests(served.path()).unwrap();
        let node = Self {
            lab,
            served,
            folder,
        };
        node.write(1);
        Some(node)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, epoch: u64) {
        let name = &self.lab.nodes[0].name;
        let text =
            format!("nodes: [{{id: 3, name: {name}, address: 198.18.1.11}}]\nepoch: {epoch}\n");
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("nodes.yaml")).unwrap();
    }

    fn steering(&self, launch: Launch) -> Launch {
        let (vip, nodes) = (VIP.to_string(), self.path("nodes.yaml"));
        launch
            .args(&["--vip", &vip, "--xdp-interface", "eth0", "--hash-seed", "1"])
            .args(&["--nodes-file", nodes.to_str().unwrap(), "--metrics", "off"])
            .args(&["--node-name", &self.lab.nodes[0].name])
            .within(&self.lab.nodes[0].namespace)
    }

    fn agent(&self) -> Launch {
        let link = self.path("link.sock");
        let of_agent = Launch::of("agent", &["--link", link.to_str().unwrap()]);
        self.steering(of_agent.args(&["--manifests", self.served.path().to_str().unwrap()]))
    }

    fn proxy(&self) -> Launch {
        let link = self.path("link.sock");
        Launch::of("proxy", &["--link", link.to_str().unwrap()])
            .args(&["--metrics", "off", "--workers", "2"])
            .within(&self.lab.nodes[0].namespace)
    }

    fn forebay(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary().unwrap());
        command.args(arguments);
        let output = self.lab.nodes[0].namespace.run(move || command.output());
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn epoch(forebay: &Forebay) -> Option<f64> {
    forebay.metrics().ok()?.sum("forebay_steer_epoch", &[])
}

fn degraded(forebay: &Forebay) -> Option<String> {
    let status = forebay.status().ok()?;
    status["data_plane"]["degraded"].as_str().map(str::to_owned)
}

#[test]
fn an_agent_follows_its_file_of_nodes_with_and_without_a_proxy() {
    let Some(node) = Node::new() else { return };
    let agent = node.agent().start_unready().unwrap();
    eventually("it has the first one", || epoch(&agent) == Some(1.0));
    node.write(2);
    eventually("it has the second one", || epoch(&agent) == Some(2.0));
    let _proxy = node.proxy().start().unwrap();
    let (client, server) = ("198.18.0.2:1000", format!("{VIP}:80"));
    let explained = || node.forebay(&["explain", client, &server]);
    assert!(explained().contains("epoch 2\n"), "{}", explained());
    node.write(3);
    eventually("packets are steered by the third one", || {
        explained().contains("epoch 3\n")
    });
    fs::write(node.path("nodes.yaml"), "epoch: 4").unwrap();
    eventually("the status says what is wrong", || {
        degraded(&agent).is_some_and(|said| said.contains("nodes.yaml"))
    });
}

/// Or it would go back to what other nodes have left long since.
#[test]
fn a_process_that_waits_for_the_cluster_follows_its_file_of_nodes() {
    let Some(node) = Node::new() else { return };
    // Its API server never answers.
    let kubeconfig = node.path("kubeconfig");
    let nowhere = "
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
current-context: nowhere
";
    fs::write(&kubeconfig, nowhere).unwrap();
    let launch = node.steering(Launch::cluster(kubeconfig.to_str().unwrap()));
    let waiting = launch.start_unready().unwrap();
    eventually("it has the first one", || epoch(&waiting) == Some(1.0));
    node.write(2);
    eventually("it has the second one", || epoch(&waiting) == Some(2.0));
}

#[test]
fn a_set_of_nodes_that_could_not_be_put_in_force_is_tried_again() {
    let Some(node) = Node::new() else { return };
    let manifests = ["--manifests", node.served.path().to_str().unwrap()];
    let serving = node.steering(Launch::new(&manifests)).start().unwrap();
    // As another process does that changes the pins and hangs for longer than anybody waits.
    let pins = node.lab.nodes[0].namespace.run(|| {
        let links = fs::File::open("/sys/fs/bpf/forebay/links").unwrap();
        links.lock().unwrap();
        links
    });
    node.write(2);
    let patience = Instant::now() + Duration::from_secs(30);
    while !degraded(&serving).is_some_and(|said| said.contains("is changing the pins")) {
        assert!(Instant::now() < patience, "{}", serving.log_text());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(pins);
    eventually("it is in force", || epoch(&serving) == Some(2.0));
    eventually("all is well", || degraded(&serving).is_none());
}

#[test]
fn an_agent_says_it_when_a_proxy_comes_after_a_detach() {
    let Some(node) = Node::new() else { return };
    let agent = node.agent().start_unready().unwrap();
    let mut proxy = node.proxy().start().unwrap();
    node.forebay(&["detach"]);
    proxy.kill();
    proxy.restart().unwrap();
    eventually("it is said", || {
        degraded(&agent).is_some_and(|said| said.contains("detached"))
    });
    let (code, body) = agent.ask("/readyz").unwrap();
    assert_eq!(code, 503, "{body}");
    let programs = node.lab.nodes[0].namespace.run(|| {
        let show = ["-d", "link", "show", "eth0"];
        Command::new("ip").args(show).output().unwrap().stdout
    });
    let programs = String::from_utf8(programs).unwrap();
    assert!(!programs.contains("prog/xdp"), "{programs}");
}
