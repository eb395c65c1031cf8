//! Agent, proxy, API server and etcd are killed by SIGKILL, under wrk.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use ingress_lab::{
    api_server::{self, ApiServer},
    client::Wrk,
    eventually, skipped,
};

use crate::{site::Site, state};

/// Connections that wrk has open.
const CONNECTIONS: u64 = 4;
/// Clients of their own that come while no proxy runs.
const WAITING: usize = 20;
/// Longer than any turn takes; wrk is stopped before.
const LIMIT: Duration = Duration::from_secs(300);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Proxy,
    Server,
    Etcd,
}

use Victim::{Agent, Etcd, Proxy, Server};

/// Each is once the first to the fourth, and each pair comes in both orders, also one right after the
/// other (a Williams design). `FOREBAY_ROUNDS=6` makes it all 24 orders, in minutes.
const ORDERS: [[Victim; 4]; 4] = [
    [Agent, Proxy, Etcd, Server],
    [Proxy, Server, Agent, Etcd],
    [Server, Etcd, Proxy, Agent],
    [Etcd, Agent, Server, Proxy],
];

fn orders() -> Vec<[Victim; 4]> {
    let rounds = std::env::var("FOREBAY_ROUNDS").ok();
    if rounds.is_none_or(|rounds| rounds == "1") {
        return ORDERS.into();
    }
    let all = [Agent, Proxy, Server, Etcd];
    let four = (0..4usize.pow(4)).map(|n| [n / 64, n / 16 % 4, n / 4 % 4, n % 4].map(|i| all[i]));
    four.filter(|four| all.iter().all(|one| four.contains(one)))
        .collect()
}

/// Load on the host that is always there, and what it may lose.
struct Load {
    wrk: Wrk,
    /// How often the proxy was killed under it.
    kills: u64,
}

impl Load {
    fn start(site: &Site, host: &str) -> Self {
        let header = format!("Host: {host}");
        let url = format!("http://{}/load", site.forebay.http_addr());
        let connections = usize::try_from(CONNECTIONS).unwrap();
        let namespace = Some(&**site.api.namespace());
        let wrk = Wrk::start(namespace, connections, LIMIT, &[&header], &url).unwrap();
        // A wrk that has just begun takes no signal.
        flows(site);
        Self { wrk, kills: 0 }
    }

    /// Ends it, and demands that nothing was lost but what a killed proxy had open.
    fn stop(self, context: &str) {
        let load = self.wrk.stop().unwrap();
        let most = self.kills * CONNECTIONS;
        println!(
            "{context}: {} requests, {} lost with {} killed proxies",
            load.requests, load.failed, self.kills
        );
        assert_eq!((load.wrong, load.refused), (0, 0), "{context}: {load:?}");
        assert!(load.failed <= most, "{context}: more than {most}: {load:?}");
    }
}

/// Waits until requests come through, on every connection by all odds.
fn flows(site: &Site) {
    let goal = site.requests() + 200;
    eventually("the load goes on", || site.requests() >= goal);
}

/// A client that sends its request and waits.
fn client(site: &Site, host: &str) -> TcpStream {
    let address = site.forebay.http_addr();
    let connect = move || TcpStream::connect(address);
    let mut client = site.api.namespace().run(connect).unwrap();
    let limit = Some(Duration::from_secs(20));
    client.set_read_timeout(limit).unwrap();
    let head = "GET / HTTP/1.1\r\nConnection: close\r\n";
    write!(client, "{head}Host: {host}\r\n\r\n").unwrap();
    client
}

fn assert_served(clients: Vec<TcpStream>, context: &str) {
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{context}: {answer:?}");
    }
}

/// Kills the proxy while an agent holds its sockets, and starts it again: clients that come meanwhile
/// wait in them, and are served.
fn kill_held_proxy(site: &mut Site, host: &str, load: &mut Load, context: &str) {
    load.kills += 1;
    site.forebay.kill();
    let waiting = (0..WAITING).map(|_| client(site, host)).collect();
    site.forebay.restart().unwrap();
    assert_served(waiting, context);
}

/// Kills the proxy while nobody else holds its sockets, and starts it again: the sockets end with it,
/// and clients are refused until the next one has bound what its last good state names.
fn kill_lone_proxy(site: &mut Site, host: &str, context: &str) {
    let address = site.forebay.http_addr();
    site.forebay.kill();
    let connect = move || TcpStream::connect(address);
    let refused = site.api.namespace().run(connect).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{context}");
    let since = Instant::now();
    site.forebay.restart().unwrap();
    println!(
        "{context}: a proxy alone serves after {} ms",
        since.elapsed().as_millis()
    );
    assert_eq!(site.forebay.http_addr(), address, "{context}");
    assert_served(vec![client(site, host)], context);
}

#[test]
fn all_four_are_killed_each_before_and_after_each_and_only_what_a_proxy_had_open_is_lost() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let mut site = Site::of_two_processes("killed", Arc::new(ApiServer::start().unwrap()));
    let (stays, began) = ("stays.killed.test", Instant::now());
    site.ingress("stays", stays, "");
    eventually("Ingress is served", || site.pod(stays) == "a");
    let mut newest = stays.to_owned();
    for (turn, order) in orders().into_iter().enumerate() {
        let mut load = Load::start(&site, stays);
        let mut is_agent_away = false;
        for victim in order {
            let context = format!("{order:?}, {victim:?}");
            flows(&site);
            match victim {
                Agent => {
                    site.agent.as_mut().unwrap().kill();
                    is_agent_away = true;
                }
                Server => site.api.kill_server(),
                Etcd => site.api.kill_etcd(),
                Proxy if is_agent_away => {
                    // wrk takes no refused connection up again.
                    load.stop(&context);
                    kill_lone_proxy(&mut site, stays, &context);
                    load = Load::start(&site, stays);
                }
                Proxy => kill_held_proxy(&mut site, stays, &mut load, &context),
            }
            for host in [stays, &newest] {
                assert_eq!(site.pod(host), "a", "{context}, {host}");
            }
        }
        let context = format!("{order:?}, back");
        // The agent comes back before the cluster does, or after.
        if turn % 2 == 0 {
            site.agent.as_mut().unwrap().restart_unready().unwrap();
            eventually("the agent has the proxy", || {
                let status = site.agent.as_ref().unwrap().status();
                status.is_ok_and(|status| status["proxy"] == "serving")
            });
            // It has no state yet, but the sockets.
            kill_held_proxy(&mut site, stays, &mut load, &context);
            assert_eq!(site.pod(&newest), "a", "{context}");
        }
        site.api.restart_etcd().unwrap();
        site.api.restart_server().unwrap();
        if turn % 2 == 1 {
            site.agent.as_mut().unwrap().restart_unready().unwrap();
        }
        newest = format!("turn{turn}.killed.test");
        site.ingress(&format!("turn{turn}"), &newest, "");
        eventually("a change is seen", || site.pod(&newest) == "a");
        eventually("the proxy follows", || state(&site.forebay) == "in-sync");
        load.stop(&context);
    }
    println!("all of it took {:?}", began.elapsed());
}
