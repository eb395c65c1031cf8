//! Agent and proxy end, in any order, and begin again.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use ingress_lab::{
    client::{Answer, curl},
    eventually,
    forebay::{Forebay, Launch},
    lab::{PLAIN_HOST, TLS_HOST},
    origin::Origin,
    skipped,
};

use crate::{clients::Clients, pair::Pair, site::Site};

fn pods() -> [Origin; 2] {
    ["s1-a", "s2-a"].map(|pod| Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap())
}

fn site([s1, s2]: &[Origin; 2]) -> Site {
    Site::new(&[("s1", "s1-a", s1.address()), ("s2", "s2-a", s2.address())])
}

fn get(proxy: &Forebay, host: &str) -> Answer {
    let url = format!("http://{}/", proxy.http_addr());
    curl(&["-H", &format!("Host: {host}"), &url]).unwrap()
}

/// An Ingress whose host is served only once it has arrived.
fn ingress(host: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: extra, namespace: lab}}\n\
         spec: {{rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: \
         {{service: {{name: s1, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

/// A change that is made now reaches the proxy.
fn converges(site: &Site, proxy: &Forebay, host: &str) {
    site.write("extra.yaml", &ingress(host));
    eventually("a change reaches the proxy", || {
        get(proxy, host).status != 404
    });
}

fn source(proxy: &Forebay) -> String {
    let status = proxy.status().unwrap();
    status["source"]["state"]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn an_agent_that_is_killed_again_and_again_costs_no_request_and_is_followed_again() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let (http, https) = (pair.proxy.http_addr(), pair.proxy.https_addr());
    let clients = Clients::start(http, https, &site.ca());
    for turn in 0..4 {
        pair.agent.kill();
        eventually("the proxy notices", || source(&pair.proxy) == "degraded");
        let goal = pods[0].requests() + 500;
        eventually("it serves alone", || pods[0].requests() >= goal);
        pair.agent.restart_unready().unwrap();
        eventually("it follows again", || source(&pair.proxy) == "in-sync");
        converges(&site, &pair.proxy, &format!("turn{turn}.example"));
    }
    clients.expect_no_loss();
    // The last agent has what it needs to hand the sockets on.
    assert_eq!(pair.end(), (Some(0), Some(0)));
}

#[test]
fn connections_wait_while_a_killed_proxy_is_replaced() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let http = pair.proxy.http_addr();
    for _ in 0..2 {
        pair.proxy.kill();
        pair.agent
            .wait_for("the proxy is lost; its sockets are held for the next one")
            .unwrap();
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let mut client = TcpStream::connect(http).unwrap();
                client
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let head = "GET / HTTP/1.1\r\nConnection: close\r\n";
                write!(client, "{head}Host: {PLAIN_HOST}\r\n\r\n").unwrap();
                client
            })
            .collect();
        pair.proxy.restart().unwrap();
        assert_eq!(pair.proxy.http_addr(), http);
        for mut client in waiting {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        }
    }
}

#[test]
fn a_proxy_starts_from_its_last_good_state_while_the_agent_is_away() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let (http, https) = (pair.proxy.http_addr(), pair.proxy.https_addr());
    converges(&site, &pair.proxy, "changed.example");
    pair.agent.kill();
    pair.proxy.kill();
    pair.proxy.restart().unwrap();
    assert_eq!(pair.proxy.http_addr(), http);
    assert_eq!(get(&pair.proxy, PLAIN_HOST).status, 200);
    assert_ne!(get(&pair.proxy, "changed.example").status, 404);
    let (ca, url) = (site.ca(), format!("https://{TLS_HOST}:{}/", https.port()));
    let resolve = format!("{TLS_HOST}:{}:127.0.0.1", https.port());
    let tls = curl(&[
        "--cacert",
        ca.to_str().unwrap(),
        "--resolve",
        &resolve,
        &url,
    ]);
    assert_eq!(tls.unwrap().status, 200, "the certificate is part of it");
    assert_eq!(source(&pair.proxy), "degraded");
    pair.agent.restart_unready().unwrap();
    eventually("it follows again", || source(&pair.proxy) == "in-sync");
    converges(&site, &pair.proxy, "again.example");
}

#[test]
fn a_proxy_without_an_agent_or_a_state_is_never_ready() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let link = folder.path().join("link.sock");
    let proxy = Launch::of("proxy", &["--link", link.to_str().unwrap()])
        .args(&["--metrics", "off"])
        .args(&["--state-dir", folder.path().to_str().unwrap()])
        .start_unready()
        .unwrap();
    proxy.wait_for("no agent").unwrap();
    // Longer than it waits for an agent.
    std::thread::sleep(Duration::from_secs(4));
    let (code, answer) = proxy.ask("/readyz").unwrap();
    assert_eq!(code, 503, "{answer}");
}

#[test]
fn an_agent_that_waits_for_its_nodes_says_that_it_is_healthy_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("kubeconfig"), crate::replacement::NOWHERE).unwrap();
    let mut agent = Launch::of("agent", &["--link", &path("link.sock")])
        .args(&["--kubeconfig", &path("kubeconfig"), "--metrics", "off"])
        .args(&["--vip", "198.51.100.10", "--xdp-interface", "lo"])
        .args(&["--node-name", "n1", "--node-address", "198.18.0.11"])
        .args(&["--nodes-namespace", "forebay-system", "--hash-seed", "7"])
        .start_unready()
        .unwrap();
    agent
        .wait_for("other nodes do not hear of this one")
        .unwrap();
    assert_eq!(agent.ask("/healthz").unwrap().0, 200);
    assert_eq!(agent.ask("/readyz").unwrap().0, 503);
    // Long enough for it to try again.
    std::thread::sleep(Duration::from_secs(5));
    let log = agent.log_text();
    let told = log.matches("cannot follow the set of nodes").count();
    assert_eq!(told, 1, "{log}");
    agent.terminate().unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn a_pod_of_two_processes_replaces_another_without_loss() {
    let pods = pods();
    let site = site(&pods);
    let mut running = Pair::serve(site.path());
    let (http, https) = (running.proxy.http_addr(), running.proxy.https_addr());
    let clients = Clients::start(http, https, &site.ca());
    for _ in 0..3 {
        let successor = Pair::start(site.path(), http, https);
        eventually("the new agent knows that its proxy serves", || {
            successor.agent.status().unwrap()["proxy"] == "serving"
        });
        let ended = std::mem::replace(&mut running, successor).end();
        assert_eq!(ended, (Some(0), Some(0)));
    }
    clients.expect_no_loss();
}

#[test]
fn a_pod_that_never_becomes_ready_beside_another_costs_no_request() {
    let pods = pods();
    let site = site(&pods);
    let running = Pair::serve(site.path());
    let (http, https) = (running.proxy.http_addr(), running.proxy.https_addr());
    let clients = Clients::start(http, https, &site.ca());
    let kubeconfig = site.path().join("kubeconfig");
    std::fs::write(&kubeconfig, crate::replacement::NOWHERE).unwrap();
    for _ in 0..2 {
        let source = ["--kubeconfig", kubeconfig.to_str().unwrap()];
        let stuck = Pair::of(&source, http, https);
        stuck.agent.wait_for("a proxy is there").unwrap();
        let goal = pods[0].requests() + 2_000;
        eventually("the load goes on", || pods[0].requests() >= goal);
        assert_eq!(stuck.proxy.ask("/readyz").unwrap().0, 503);
        assert_eq!(stuck.agent.ask("/readyz").unwrap().0, 503);
    }
    clients.expect_no_loss();
}

#[test]
fn an_agent_alone_that_is_asked_to_end_leaves_its_proxy_serving() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    let clients = Clients::start(pair.proxy.http_addr(), pair.proxy.https_addr(), &site.ca());
    pair.agent.terminate().unwrap();
    assert_eq!(pair.agent.wait().unwrap().code(), Some(0));
    let goal = pods[0].requests() + 500;
    eventually("the load goes on", || pods[0].requests() >= goal);
    clients.expect_no_loss();
}

/// The fields of `/proc/PID/status` of each thread of a process, as `name value`.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status"));
    tasks.map(|task| status(task.unwrap()).unwrap()).collect()
}

#[test]
fn a_proxy_runs_as_anybody_and_has_no_right_in_any_thread() {
    if !rustix::process::geteuid().is_root() {
        return skipped("another user needs root");
    }
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    pair.proxy.kill();
    // The group of the link's folder is what lets the proxy in.
    let group = Some(rustix::process::Gid::from_raw(65532));
    for path in [pair.link().parent().unwrap(), &pair.link(), pair.state()] {
        rustix::fs::chown(path, None, group).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o770);
        rustix::fs::chmod(path, mode).unwrap();
    }
    for file in ["state", "places", "lock"] {
        std::fs::remove_file(pair.state().join(file)).unwrap();
    }
    let user = [
        "setpriv",
        "--reuid",
        "65532",
        "--regid",
        "65532",
        "--clear-groups",
        "--",
    ];
    let link = pair.link();
    let proxy = Launch::of("proxy", &["--link", link.to_str().unwrap()])
        .args(&["--metrics", "off", "--workers", "2"])
        .args(&["--state-dir", pair.state().to_str().unwrap()])
        .wrapped_by(&user)
        .start()
        .unwrap();
    assert_eq!(get(&proxy, PLAIN_HOST).status, 200);
    let threads = threads(proxy.pid());
    assert!(threads.len() >= 4, "{threads:?}");
    for status in threads {
        for expected in [
            "Uid:\t65532\t65532\t65532\t65532",
            "Groups:\t \n",
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.contains(expected), "{expected:?} in\n{status}");
        }
    }
    let status = proxy.status().unwrap();
    assert_eq!(status["confinement"]["privileges"], "none", "{status}");
}

#[test]
fn strangers_at_the_link_get_nothing_and_harm_nobody() {
    let pods = pods();
    let site = site(&pods);
    let pair = Pair::serve(site.path());
    let connect = || {
        let stream = UnixStream::connect(pair.link()).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        stream
    };
    // A hello: length, kind, then the message: 0, version, workers, no sockets.
    let hello = |version: u8| [&[4, 0, 0, 0, 0][..], &[0, version, 2, 0]].concat();
    for (sent, answered) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], None),
        (&[255, 255, 255, 255, 0], None),
        // An update.
        (&[1, 0, 0, 0, 1, 0], None),
        // Another message than hello.
        (&[1, 0, 0, 0, 0, 1], None),
        // One socket, and no descriptor.
        (
            &[13, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 127, 0, 0, 1, 80, 0, 0],
            None,
        ),
        (&hello(1), Some("it has another proxy")),
        (&hello(9), Some("it has another proxy")),
    ] {
        let mut stream = connect();
        stream.write_all(sent).unwrap();
        let mut answer = Vec::new();
        // The end of a stream with unread bytes is a reset.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        match answered {
            Some(reason) => assert!(answer.contains(reason), "{sent:?}: {answer:?}"),
            None => assert_eq!(answer, "", "{sent:?}"),
        }
    }
    // More than the agent listens to at once, and none of them says a word.
    let silent: Vec<_> = (0..20).map(|_| connect()).collect();
    converges(&site, &pair.proxy, "beside.example");
    drop(silent);
    assert_eq!(pair.agent.status().unwrap()["proxy"], "serving");
}

#[test]
fn a_proxy_of_another_version_hears_why_it_gets_nothing() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    pair.proxy.kill();
    eventually("the agent has no proxy", || {
        pair.agent.status().unwrap()["proxy"] == "away"
    });
    // It tries again and again.
    for _ in 0..3 {
        let mut stream = UnixStream::connect(pair.link()).unwrap();
        stream.write_all(&[4, 0, 0, 0, 0, 0, 9, 2, 0]).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.contains("run the same Forebay for both"),
            "{answer:?}"
        );
    }
    let log = pair.agent.log_text();
    let said = log.matches("cannot serve a proxy").count();
    assert_eq!(said, 1, "{log}");
}

#[test]
fn a_private_key_stands_nowhere_but_in_the_state() {
    let pods = pods();
    let site = site(&pods);
    let mut pair = Pair::serve(site.path());
    get(&pair.proxy, PLAIN_HOST);
    converges(&site, &pair.proxy, "one.example");
    pair.agent.kill();
    pair.agent.restart_unready().unwrap();
    converges(&site, &pair.proxy, "two.example");
    let manifests = std::fs::read_dir(site.path()).unwrap();
    let manifests: String = manifests
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
        .collect();
    let encoded = manifests
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tls.key:"))
        .map(|key| key.trim().trim_matches('"').to_owned());
    let keys: Vec<_> = encoded.collect();
    assert!(!keys.is_empty(), "no key in the manifests");
    let mut said = vec![
        ("the agent's log", pair.agent.log_text()),
        ("the proxy's log", pair.proxy.log_text()),
    ];
    for (name, process) in [("agent", &pair.agent), ("proxy", &pair.proxy)] {
        for path in ["/status", "/routes", "/metrics"] {
            said.push((name, process.ask(path).unwrap().1));
        }
    }
    let state = std::fs::read(pair.state().join("state")).unwrap();
    for key in keys {
        let pem = decode(&key);
        // One line from its middle.
        let line = pem.lines().nth(1).unwrap();
        for (place, text) in &said {
            for secret in [&key[40..80], line] {
                assert!(!text.contains(secret), "{place} tells a key");
            }
        }
        let holds = state.windows(line.len()).any(|at| at == line.as_bytes());
        assert!(holds, "the search would find a key");
    }
}

/// Base64, as in a Secret.
fn decode(text: &str) -> String {
    let mut command = std::process::Command::new("base64");
    let mut child = command
        .arg("--decode")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
