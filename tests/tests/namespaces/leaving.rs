//! What is left in the kernel where virtual IPs are served no more: nothing that drops packets.

use std::{
    fs::Permissions,
    io::{ErrorKind, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use ingress_lab::{
    client::{Answer, PendingCurl, curl_in, start_curl},
    eventually,
    forebay::{Launch, binary},
    lab::{self, Lab, NextHop, Node, PLAIN_HOST, VIP},
    skipped,
};
use ingress_model::wire::{self, FromProxy};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown, recvmsg};
use tempfile::TempDir;

/// Ordinary sockets where the virtual IP's would be.
const SOCKETS: [&str; 4] = ["--http", "0.0.0.0:80", "--https", "0.0.0.0:443"];

/// Runs a program that may bind low ports, but not touch BPF or routes.
const BARE: [&str; 3] = [
    "setpriv",
    "--bounding-set=-all,+net_bind_service",
    "--inh-caps=-all,+net_bind_service",
];

/// A cluster whose API server never answers.
const NOWHERE: &str = "
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
current-context: nowhere
";

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

    /// Where an agent and its proxy meet.
    fn link(&self) -> PathBuf {
        self.folder.path().join("link.sock")
    }

    fn agent(&self) -> Launch {
        let (vip, link) = (VIP.to_string(), self.link());
        Launch::of("agent", &["--link", link.to_str().unwrap()])
            .args(&["--manifests", self.folder.path().to_str().unwrap()])
            .args(&["--vip", &vip, "--xdp-interface", "eth0"])
            .args(&["--metrics", "off", "--node-name", &self.node().name])
            .within(&self.node().namespace)
    }

    fn proxy(&self) -> Launch {
        Launch::of("proxy", &["--link", self.link().to_str().unwrap()])
            .args(&["--metrics", "off", "--workers", "2"])
            .within(&self.node().namespace)
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

    /// A request for the virtual IP that a pod holds.
    fn hold(&self) -> PendingCurl {
        let (host, url) = (format!("Host: {PLAIN_HOST}"), format!("http://{VIP}/hold"));
        let held = start_curl(Some(&self.lab.client), &["-H", &host, &url]).unwrap();
        let pods = || self.lab.nodes.iter().flat_map(|node| &node.pods);
        eventually("the request is at a pod", || {
            pods().map(|pod| pod.origin.held()).sum::<u64>() == 1
        });
        held
    }

    fn release(&self) {
        let pods = self.lab.nodes.iter().flat_map(|node| &node.pods);
        pods.for_each(|pod| pod.origin.release());
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
    let degraded = &fallen_back.status().unwrap()["data_plane"]["degraded"];
    assert!(degraded.to_string().contains("CAP_BPF"), "{degraded}");
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
    let held = node.hold();
    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    steering.terminate().unwrap();
    eventually("the programs are gone", || !node.is_steered());
    node.assert_served("by ordinary sockets");
    node.release();
    assert_eq!(held.answer().unwrap().status, 200);
    assert!(steering.wait().unwrap().success());
}

#[test]
fn a_proxy_keeps_its_virtual_ips_under_an_agent_that_cannot_steer_until_it_ends() {
    let Some(node) = Alone::new() else { return };
    let mut first = node.agent().start_unready().unwrap();
    let mut proxy = node.proxy().start().unwrap();
    node.assert_served("steered");
    first.kill();
    let second = node.agent().wrapped_by(&BARE).start_unready().unwrap();
    second.wait_for("a proxy is there").unwrap();
    assert!(node.is_steered(), "{}", second.log_text());
    node.assert_served("under an agent that cannot steer");
    proxy.kill();
    proxy.restart().unwrap();
    assert!(!node.is_steered(), "{}", second.log_text());
    node.assert_served("by ordinary sockets");
}

/// A proxy that a client has taken over, and the sockets that an agent has given to it.
struct Hostile {
    link: UnixStream,
    sockets: Vec<OwnedFd>,
}

impl Hostile {
    fn connect(path: &Path) -> Self {
        let link = UnixStream::connect(path).unwrap();
        let limit = Some(Duration::from_secs(20));
        link.set_read_timeout(limit).unwrap();
        let sockets = Vec::new();
        let mut hostile = Self { link, sockets };
        hostile.say(&FromProxy::Hello {
            version: wire::VERSION,
            workers: 1,
            sockets: Vec::new(),
        });
        hostile.take_sockets();
        hostile
    }

    fn say(&mut self, message: &FromProxy) {
        let body = wire::write(message).unwrap();
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let frame = [&length[..], &[0], &body].concat();
        self.link.write_all(&frame).unwrap();
    }

    fn take_sockets(&mut self) {
        while self.sockets.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut data = [0; 5];
            let mut data = [IoSliceMut::new(&mut data)];
            let received = recvmsg(&self.link, &mut data, &mut control, RecvFlags::empty());
            assert!(received.unwrap().bytes > 0, "no sockets came");
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(sockets) = message {
                    self.sockets.extend(sockets);
                }
            }
        }
    }

    /// Waits until the agent has closed the link.
    fn wait_for_end(mut self) {
        let end = self.link.read_to_end(&mut Vec::new());
        let is_end = |error: std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(end.is_ok() || end.is_err_and(is_end), "the link is open");
    }
}

#[test]
fn an_agent_outlives_a_proxy_that_makes_its_sockets_accept_nothing() {
    let Some(node) = Alone::new() else { return };
    let agent = node.agent().start_unready().unwrap();
    agent.wait_for("listening").unwrap();
    for end in [None, Some(FromProxy::Closed)] {
        let mut hostile = Hostile::connect(&node.link());
        for socket in &hostile.sockets {
            rustix::net::shutdown(socket, Shutdown::Both).unwrap();
        }
        if let Some(end) = end {
            hostile.say(&end);
        }
        hostile.say(&FromProxy::Serving);
        hostile.wait_for_end();
        assert_eq!(agent.status().unwrap()["proxy"], "away");
    }
    let _proxy = node.proxy().start().unwrap();
    node.assert_served("by the next proxy");
}

#[test]
fn a_process_that_ends_for_want_of_sockets_leaves_no_program_that_steers() {
    let Some(node) = Alone::new() else { return };
    let few = ["prlimit", "--nofile=64:64"];
    let steering = node.steering().args(&["--workers", "40"]);
    let mut steering = steering.wrapped_by(&few).start_unready().unwrap();
    assert!(!steering.wait().unwrap().success());
    let log = steering.log_text();
    // The interface stays taken by a program that lets every frame pass, for the next process.
    let link = node.ip(&["-d", "link", "show", "eth0"]);
    assert!(
        link.contains("name pass") && !link.contains("name steer"),
        "{link}\n{log}"
    );
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
    for removed in ["eth0", "network namespace", &VIP.to_string(), "17 maps"] {
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

#[test]
fn a_process_that_ends_keeps_its_requests_where_the_next_has_no_virtual_ips() {
    let Some(node) = Alone::new() else { return };
    let steering = node.steering().args(&["--lame-duck", "1s"]);
    let mut steering = steering.start().unwrap();
    let held = node.hold();
    let plain = node.plain().args(&SOCKETS).start().unwrap();
    steering.terminate().unwrap();
    eventually("the programs are gone", || !node.is_steered());
    node.release();
    assert_eq!(held.answer().unwrap().status, 200, "{}", plain.log_text());
    assert!(steering.wait().unwrap().success());
    eventually("the virtual IP is gone", || !node.is_local());
    // After the routes.
    eventually("the pins are gone", || node.pins().is_empty());
}

#[test]
fn ordinary_sockets_get_the_connections_that_a_later_process_steers_no_more() {
    let Some(node) = Alone::new() else { return };
    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    let mut steering = node.steering().start().unwrap();
    node.assert_served("steered");
    steering.kill();
    eventually("the programs are gone", || !node.is_steered());
    node.assert_served("by ordinary sockets");
}

#[test]
fn an_agent_gives_the_virtual_ips_up_whether_it_or_its_proxy_is_told_to_end_first() {
    let Some(node) = Alone::new() else { return };
    let mut agent = node.agent().start_unready().unwrap();
    let proxy = node.proxy().args(&["--lame-duck", "0s"]);
    let mut proxy = proxy.start().unwrap();
    let held = node.hold();
    let fallen_back = node.steering().args(&SOCKETS).wrapped_by(&BARE);
    let fallen_back = fallen_back.start_unready().unwrap();
    fallen_back
        .wait_for("not ready: serving without the virtual IPs")
        .unwrap();
    proxy.terminate().unwrap();
    eventually("the proxy accepts no more", || node.ask().is_err());
    agent.terminate().unwrap();
    eventually("the programs are gone", || !node.is_steered());
    node.assert_served("by ordinary sockets");
    node.release();
    assert_eq!(held.answer().unwrap().status, 200);
    assert!(proxy.wait().unwrap().success());
    assert!(agent.wait().unwrap().success());
}

#[test]
fn no_client_is_refused_while_a_process_that_cannot_steer_starts() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    steering.kill();
    let nowhere = node.folder.path().join("kubeconfig");
    std::fs::write(&nowhere, NOWHERE).unwrap();
    let vip = VIP.to_string();
    let fallen_back = Launch::cluster(nowhere.to_str().unwrap())
        .args(&["--vip", &vip, "--xdp-interface", "eth0"])
        .args(&["--metrics", "off", "--node-name", &node.node().name])
        .args(&SOCKETS)
        .wrapped_by(&BARE)
        .within(&node.node().namespace);
    let fallen_back = fallen_back.start_unready().unwrap();
    // Of its admin socket: by then, all others are bound.
    fallen_back.wait_for("listening").unwrap();
    let client = node.lab.client.run(|| {
        let patience = Duration::from_millis(300);
        TcpStream::connect_timeout(&(VIP, 80).into(), patience).map(drop)
    });
    let kind = client.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::TimedOut), "{}", fallen_back.log_text());
}

#[test]
fn detach_says_it_where_it_may_not_look() {
    let Some(node) = Alone::new() else { return };
    let mut steering = node.steering().start().unwrap();
    steering.kill();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary().unwrap())
        .arg("detach");
    let output = node.node().namespace.run(move || {
        let only_root = Permissions::from_mode(0o700);
        std::fs::set_permissions("/sys/fs/bpf/forebay", only_root).unwrap();
        command.output().unwrap()
    });
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/sys/fs/bpf/forebay"), "{said}");
    assert!(node.is_steered());
}

#[test]
fn an_agent_that_cannot_go_live_ends_and_the_next_one_serves_by_the_same_proxy() {
    let Some(node) = Alone::new() else { return };
    let mut agent = node.agent().start_unready().unwrap();
    // What is in the kernel is prepared by then.
    eventually("the agent waits for a proxy", || {
        agent.log().iter().any(|line| line["listener"] == "link")
    });
    // As another process does that changes the pins and hangs.
    let pins = node.node().namespace.run(|| {
        let links = std::fs::File::open("/sys/fs/bpf/forebay/links").unwrap();
        links.lock().unwrap();
        links
    });
    let proxy = node.proxy().start_unready().unwrap();
    assert!(!agent.wait().unwrap().success());
    drop(pins);
    agent.restart_unready().unwrap();
    eventually("it is steered", || node.ask().is_ok());
    drop(proxy);
}

#[test]
fn a_process_serves_again_where_the_one_that_took_over_is_killed() {
    let Some(node) = Alone::new() else { return };
    let first = node.steering().start().unwrap();
    node.assert_served("by the first");
    let mut second = node.steering().start().unwrap();
    node.assert_served("by the second");
    second.kill();
    eventually("the first serves again", || node.ask().is_ok());
    let degraded = &first.status().unwrap()["data_plane"]["degraded"];
    assert!(degraded.is_null(), "{degraded}");
}
