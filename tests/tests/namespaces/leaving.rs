//! What is left in the kernel where virtual IPs are served no more: nothing that drops packets.

use std::process::{Command, Output};

use ingress_lab::{
    client::{Answer, curl_in, start_curl},
    eventually,
    forebay::{Launch, binary},
    lab::{self, Lab, NextHop, Node, PLAIN_HOST, VIP},
    skipped,
};
use tempfile::TempDir;

/// Ordinary sockets where the virtual IP's would be.
const SOCKETS: [&str; 4] = ["--http", "0.0.0.0:80", "--https", "0.0.0.0:443"];

/// Runs a program that may bind low ports, but not touch BPF or routes.
const BARE: [&str; 3] = [
    "setpriv",
    "--bounding-set=-all,+net_bind_service",
    "--inh-caps=-all,+net_bind_service",
];

/// The first node of a lab, which has the virtual IP for itself.
struct Alone {
    lab: Lab,
    folder: TempDir,
}

impl Alone {
    /// `None`, and says so, where the machine allows no lab.
    fn new() -> Option<Self> {
        if let Err(reason) = lab::available() {
            skipped(&reason);
            return None;
        }
        let lab = Lab::new(NextHop::Single).unwrap();
        let folder = TempDir::new().unwrap();
        lab.write_manifests(folder.path()).unwrap();
        Some(Self { lab, folder })
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn plain(&self) -> Launch {
        Launch::new(&["--manifests", self.folder.path().to_str().unwrap()])
            .args(&["--metrics", "off", "--node-name", &self.node().name])
            .within(&self.node().namespace)
    }

    fn steering(&self) -> Launch {
        let vip = VIP.to_string();
        self.plain()
            .args(&["--vip", &vip, "--xdp-interface", "eth0"])
    }

    /// What the client gets from the virtual IP.
    fn ask(&self) -> Result<Answer, String> {
        let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/"));
        let args = ["--max-time", "3", "-H", &host, &url];
        curl_in(&self.lab.client, &args).map_err(|error| format!("{error:#}"))
    }

    #[track_caller]
    fn assert_served(&self, when: &str) {
        match self.ask() {
            Ok(answer) => assert_eq!(answer.status, 200, "{when}: {}", answer.text()),
            Err(error) => panic!("{when}: {error}"),
        }
    }

    fn output(&self, mut command: Command) -> Output {
        let namespace = &self.node().namespace;
        namespace.run(move || command.output()).unwrap()
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ip");
        command.args(arguments);
        let output = self.output(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn is_steered(&self) -> bool {
        self.ip(&["-d", "link", "show", "eth0"])
            .contains("prog/xdp")
    }

    fn is_local(&self) -> bool {
        let routes = self.ip(&["route", "show", "table", "local"]);
        routes.contains(&VIP.to_string())
    }

    /// Names of all pins.
    fn pins(&self) -> Vec<String> {
        self.node().namespace.run(|| {
            let schemas = std::fs::read_dir("/sys/fs/bpf/forebay").into_iter();
            let schemas = schemas.flatten().flatten();
            let pins = schemas.flat_map(|schema| std::fs::read_dir(schema.path()));
            let names = pins.flatten().flatten().map(|pin| pin.file_name());
            names.filter_map(|name| name.into_string().ok()).collect()
        })
    }

    /// `forebay detach` on the node.
    fn detach(&self) -> Output {
        let mut command = Command::new(binary().unwrap());
        command.arg("detach");
        self.output(command)
    }
}

#[test]
fn ordinary_sockets_get_the_connections_that_can_be_steered_no_more() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    node.assert_served("steered");
    steering.kill();
    assert!(node.is_steered(), "the programs outlive the process");

    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    assert!(!node.is_steered(), "{}", fallen_back.log_text());
    node.assert_served("by ordinary sockets");
}

#[test]
fn a_start_without_virtual_ips_leaves_nothing_of_theirs() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    node.assert_served("steered");
    steering.kill();

    let plain = node.plain().args(&SOCKETS).start().unwrap();
    assert!(!node.is_steered(), "{}", plain.log_text());
    assert!(!node.is_local(), "{}", plain.log_text());
    assert_eq!(node.pins(), Vec::<String>::new(), "{}", plain.log_text());
}

#[test]
fn a_process_that_cannot_steer_leaves_the_one_that_does_alone_until_that_ends() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    assert!(node.is_steered(), "{}", fallen_back.log_text());
    node.assert_served("by the first process");
    steering.kill();
    eventually("the programs are gone", || !node.is_steered());
    node.assert_served("by ordinary sockets");
}

#[test]
fn a_process_that_ends_gives_the_virtual_ips_to_ordinary_sockets_and_keeps_its_requests() {
    let Some(node) = Alone::new() else { return };
    let steering = node.steering().args(&["--lame-duck", "1s"]);
    let mut steering = steering.start().unwrap();
    let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/hold"));
    let held = start_curl(Some(&node.lab.client), &["-H", &host, &url]).unwrap();
    let pods = || node.lab.nodes.iter().flat_map(|node| &node.pods);
    eventually("the request is at a pod", || {
        pods().map(|pod| pod.origin.held()).sum::<u64>() == 1
    });
    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    steering.terminate().unwrap();
    eventually("the programs are gone", || !node.is_steered());
    node.assert_served("by ordinary sockets");
    pods().for_each(|pod| pod.origin.release());
    assert_eq!(held.answer().unwrap().status, 200);
    assert!(steering.wait().unwrap().success());
}

#[test]
fn a_proxy_keeps_its_virtual_ips_under_an_agent_that_cannot_steer_until_it_ends() {
    let Some(node) = Alone::new() else { return };
    let (vip, folder) = (VIP.to_string(), node.folder.path());
    let link = folder.join("link.sock");
    let at = ["--link", link.to_str().unwrap(), "--metrics", "off"];
    let agent = || {
        Launch::of("agent", &at)
            .args(&["--manifests", folder.to_str().unwrap()])
            .args(&["--vip", &vip, "--xdp-interface", "eth0"])
            .args(&["--node-name", &node.node().name])
            .within(&node.node().namespace)
    };
    let mut first = agent().start_unready().unwrap();
    let proxy = Launch::of("proxy", &at).args(&["--workers", "2"]);
    let mut proxy = proxy.within(&node.node().namespace).start().unwrap();
    node.assert_served("steered");
    first.kill();
    let second = agent().wrapped_by(&BARE).start_unready().unwrap();
    second.wait_for("a proxy is there").unwrap();
    assert!(node.is_steered(), "{}", second.log_text());
    node.assert_served("under an agent that cannot steer");
    proxy.kill();
    proxy.restart().unwrap();
    assert!(!node.is_steered(), "{}", second.log_text());
    node.assert_served("by ordinary sockets");
}

#[test]
fn a_process_that_ends_for_want_of_sockets_leaves_no_program() {
    let Some(node) = Alone::new() else { return };
    let few = ["prlimit", "--nofile=64:64"];
    let steering = node.steering().args(&["--workers", "40"]);
    let mut steering = steering.wrapped_by(&few).start_unready().unwrap();
    assert!(!steering.wait().unwrap().success());
    let log = steering.log_text();
    assert!(log.contains("\"steering\""), "it was attached: {log}");
    assert!(!node.is_steered(), "{log}");
}

#[test]
fn detach_says_what_it_removed_and_finds_nothing_the_second_time() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    steering.kill();
    assert!(node.is_steered() && node.is_local() && !node.pins().is_empty());

    let first = node.detach();
    let said = String::from_utf8_lossy(&first.stdout);
    assert!(first.status.success(), "{first:?}");
    for removed in ["eth0", "network namespace", &VIP.to_string(), "10 maps"] {
        assert!(said.contains(removed), "{removed}: {said}");
    }
    assert!(!node.is_steered() && !node.is_local(), "{said}");
    assert_eq!(node.pins(), Vec::<String>::new());

    let second = node.detach();
    assert!(second.status.success(), "{second:?}");
    assert_eq!(
        String::from_utf8_lossy(&second.stdout),
        "nothing is attached\n"
    );
}
