//! `cargo xtask demo`: Forebay on three nodes, a few requests, and where each of them went.
//!
//! As root: the lab's client, router, nodes and pods, with XDP and sk_lookup on every node.
//! Otherwise: one Forebay on loopback that serves the same manifests.

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode, sync::mpsc, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use ingress_lab::{
    client::{Answer, curl},
    forebay::{Forebay, Launch, Metrics, binary},
    lab::{self, Cluster, NextHop, PLAIN_HOST, Steering, TLS_HOST, VIP},
    origin::Origin,
};
use tempfile::TempDir;

/// Shows Forebay at work.
#[derive(Parser)]
struct Options {
    /// Exit after the table instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// How the router reaches the virtual IP: through one node, or through all
    #[arg(long, default_value = "ecmp", value_parser = ["single", "ecmp"])]
    next_hop: String,
    /// Where XDP runs
    #[arg(long, default_value = "native", value_parser = ["native", "generic"])]
    xdp_mode: String,
    /// How nodes forward packets to each other
    #[arg(long, default_value = "udp", value_parser = ["udp", "l2"])]
    forward: String,
}

/// A request of the demo and what should answer it.
struct Request {
    tls: bool,
    path: &'static str,
    service: &'static str,
    ingress: &'static str,
}

/// What is asked in turn, each time from another port.
const REQUESTS: [Request; 4] = [
    Request {
        tls: false,
        path: "/",
        service: "s1",
        ingress: "default/shop",
    },
    Request {
        tls: false,
        path: "/cart/42",
        service: "s2",
        ingress: "default/shop",
    },
    Request {
        tls: true,
        path: "/login",
        service: "s1",
        ingress: "default/secure",
    },
    Request {
        tls: true,
        path: "/account/me",
        service: "s2",
        ingress: "default/account",
    },
];

impl Request {
    fn url(&self) -> String {
        let (scheme, host) = if self.tls {
            ("https", TLS_HOST)
        } else {
            ("http", PLAIN_HOST)
        };
        format!("{scheme}://{host}{}", self.path)
    }

    /// Tells whether the right pod answered by the right route.
    fn is_answered_by(&self, answer: &Answer) -> bool {
        answer.status == 200
            && answer.header("x-pod").starts_with(self.service)
            && answer.trace().get("ingress") == Some(&self.ingress)
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let interrupted = on_interrupt()?;
    let good = match lab::available() {
        Ok(()) => show_cluster(&options, &interrupted)?,
        Err(reason) => show_loopback(&options, &reason, &interrupted)?,
    };
    println!(
        "\n{}",
        if good {
            "All requests took the expected path."
        } else {
            "Some requests took an unexpected path."
        }
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show_cluster(options: &Options, interrupted: &mpsc::Receiver<()>) -> Result<bool> {
    let start = Instant::now();
    let steering = Steering {
        next_hop: if options.next_hop == "ecmp" {
            NextHop::Ecmp
        } else {
            NextHop::Single
        },
        mode: if options.xdp_mode == "native" {
            "native"
        } else {
            "generic"
        },
        forward: if options.forward == "udp" {
            "udp"
        } else {
            "l2"
        },
        has_ipv6: false,
    };
    let cluster = Cluster::start(steering)?;
    println!(
        "A client, a router, three nodes and six pods, each in a network namespace of its own:\n"
    );
    println!(
        "  client {} ── router ── {VIP} by {}",
        lab::CLIENT,
        options.next_hop
    );
    for (node, forebay) in cluster.lab.nodes.iter().zip(&cluster.forebays) {
        let mode = forebay.status()?["data_plane"].clone();
        let mode = format!(
            "{}{}",
            mode["mode"].as_str().unwrap_or("?"),
            degraded(&mode)
        );
        let pods: Vec<_> = node.pods.iter().map(|pod| pod.origin.pod()).collect();
        println!(
            "    {} {}  forebay {mode}, {}  pods {}",
            node.name,
            node.address,
            options.forward,
            pods.join(" ")
        );
    }
    println!("  up in {:.1} s\n", start.elapsed().as_secs_f32());

    let mut table = Table::new(&[
        "request",
        "from port",
        "packets to",
        "served by",
        "worker",
        "ingress",
        "pod",
        "status",
        "time",
    ]);
    let mut good = true;
    let mut served = BTreeMap::<String, u32>::new();
    for (number, request) in REQUESTS.iter().cycle().take(3 * REQUESTS.len()).enumerate() {
        let port = 40_001 + u16::try_from(number)?;
        let before = arrivals(&cluster)?;
        let answer = cluster
            .get(request.tls, port, request.path)
            .with_context(|| request.url())?;
        // The last packets of the connection before this one may come late: most packets are this
        // one's.
        let grown = cluster
            .lab
            .nodes
            .iter()
            .zip(before)
            .zip(arrivals(&cluster)?);
        let grown = grown.map(|((node, before), after)| (after - before, node.name.as_str()));
        let (packets, entry) = grown
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .context("the lab has no nodes")?;
        let trace = answer.trace();
        let of = |name: &str| (*trace.get(name).unwrap_or(&"?")).to_owned();
        let row = [
            of("node"),
            of("worker"),
            of("ingress"),
            of("pod"),
            answer.status.to_string(),
            time(&answer),
        ];
        table.row(
            [request.url(), port.to_string(), entry.to_owned()]
                .into_iter()
                .chain(row),
        );
        good &= request.is_answered_by(&answer) && packets > 0.0;
        *served.entry(of("node")).or_default() += 1;
    }
    table.print();
    good &= served.keys().eq(["n1", "n2", "n3"]);
    println!();
    print_counters(&cluster)?;
    if !options.once {
        print_commands(&cluster)?;
        interrupted.recv()?;
    }
    Ok(good)
}

fn degraded(data_plane: &serde_json::Value) -> String {
    data_plane["degraded"]
        .as_str()
        .map_or_else(String::new, |reason| format!(" (degraded: {reason})"))
}

fn time(answer: &Answer) -> String {
    format!("{:.1} ms", answer.took.as_secs_f64() * 1000.0)
}

/// Packets of the VIP that the router sent to each node, by the node's own counters.
fn arrivals(cluster: &Cluster) -> Result<Vec<f64>> {
    let counters = |forebay: &Forebay| {
        let metrics = forebay.metrics()?;
        // A packet sent on counts for more: over L2 its owner counts it as well.
        Ok(steered(&metrics, ("reason", "own")) + 1.5 * steered(&metrics, ("action", "forward")))
    };
    cluster.forebays.iter().map(counters).collect()
}

fn steered(metrics: &Metrics, label: (&str, &str)) -> f64 {
    metrics
        .sum("forebay_steer_packets_total", &[label])
        .unwrap_or(0.0)
}

fn print_counters(cluster: &Cluster) -> Result<()> {
    let mut table = Table::new(&[
        "node",
        "packets kept",
        "sent on",
        "received from nodes",
        "connections given to workers",
    ]);
    for (node, forebay) in cluster.lab.nodes.iter().zip(&cluster.forebays) {
        let metrics = forebay.metrics()?;
        let counts = [
            ("reason", "own"),
            ("action", "forward"),
            ("reason", "decapsulated"),
            ("reason", "assigned"),
        ]
        .map(|label| steered(&metrics, label));
        table.row(
            [node.name.clone()]
                .into_iter()
                .chain(counts.map(|count| count.to_string())),
        );
    }
    table.print();
    Ok(())
}

fn print_commands(cluster: &Cluster) -> Result<()> {
    let client = cluster.lab.client.enter_command();
    let forebay = &cluster.forebays[1];
    let (socket, folder) = (forebay.admin_socket(), cluster.manifests().display());
    let ask = format!(
        "FOREBAY_ADMIN_SOCKET={} {}",
        socket.display(),
        binary()?.display()
    );
    println!("\nIt stays up until Ctrl-C. In another terminal, as root:\n");
    println!("  {client} curl -i http://{PLAIN_HOST}/cart");
    println!("  {client} curl -i --cacert {folder}/ca.crt https://{TLS_HOST}/account");
    println!("  {client} wrk -c 64 -d 5 http://{PLAIN_HOST}/");
    println!("  {ask} routes         # what n2 routes; also status");
    println!("  {ask} metrics | grep steer");
    println!(
        "  {} ip route get {VIP} from {} iif client",
        cluster.lab.router.enter_command(),
        lab::CLIENT
    );
    println!("  sed -i 's/: s2/: s1/' {folder}/ingresses.yaml  # then ask for /cart again");
    println!(
        "  kill -9 {}                                # n2's Forebay: the other nodes' clients go on",
        forebay.pid()
    );
    Ok(())
}

fn show_loopback(
    options: &Options,
    reason: &str,
    interrupted: &mpsc::Receiver<()>,
) -> Result<bool> {
    println!("Skipped: {reason}. Run it as root to see virtual IPs, XDP, sk_lookup and nodes.");
    println!("What needs no privilege: Forebay on loopback, serving a folder of manifests.\n");
    let folder = TempDir::new()?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let origins = ["s1-a", "s1-b", "s2-a", "s2-b"].map(|pod| Origin::start(pod, any));
    let origins = origins.into_iter().collect::<Result<Vec<_>, _>>()?;
    let pods: Vec<_> = origins
        .iter()
        .map(|pod| (&pod.pod()[..2], pod.pod(), pod.address()))
        .collect();
    lab::write_manifests(folder.path(), &pods)?;
    let forebay = Launch::manifests(folder.path())
        .args(&["--workers", "2", "--trace-responses"])
        .start()?;

    let ca = folder.path().join("ca.crt").display().to_string();
    let route = [
        format!("{PLAIN_HOST}:80:{}", forebay.http_addr()),
        format!("{TLS_HOST}:443:{}", forebay.https_addr()),
    ];
    let mut table = Table::new(&["request", "worker", "ingress", "pod", "status", "time"]);
    let mut good = true;
    for request in REQUESTS.iter().cycle().take(2 * REQUESTS.len()) {
        let url = request.url();
        let answer = curl(&[
            "--cacert",
            &ca,
            "--connect-to",
            &route[0],
            "--connect-to",
            &route[1],
            &url,
        ])?;
        let trace = answer.trace();
        let of = |name: &str| (*trace.get(name).unwrap_or(&"?")).to_owned();
        table.row([
            url,
            of("worker"),
            of("ingress"),
            of("pod"),
            answer.status.to_string(),
            time(&answer),
        ]);
        good &= request.is_answered_by(&answer);
    }
    table.print();
    if !options.once {
        let (http, https) = (forebay.http_addr(), forebay.https_addr());
        let socket = forebay.admin_socket();
        println!("\nIt stays up until Ctrl-C. In another terminal:\n");
        println!("  curl -i -H 'Host: {PLAIN_HOST}' http://{http}/cart");
        println!(
            "  curl -i --cacert {ca} --connect-to {TLS_HOST}:443:{https} https://{TLS_HOST}/account"
        );
        println!(
            "  FOREBAY_ADMIN_SOCKET={} {} routes    # also status and metrics",
            socket.display(),
            binary()?.display()
        );
        println!(
            "  sed -i 's/: s2/: s1/' {}/ingresses.yaml   # then ask for /cart again",
            folder.path().display()
        );
        interrupted.recv()?;
    }
    Ok(good)
}

/// Takes Ctrl-C from here on, so that the program ends in order. The terminal sends it to the
/// Forebays and to curl as well: whatever is under way fails, and what was made is removed.
fn on_interrupt() -> Result<mpsc::Receiver<()>> {
    let (sender, interrupted) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let _ = runtime.block_on(tokio::signal::ctrl_c());
        let _ = sender.send(());
    });
    Ok(interrupted)
}

/// Lines of cells, each column as wide as its widest.
struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self {
            lines: vec![head.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.lines.push(cells.into_iter().collect());
    }

    fn print(&self) {
        let columns = self.lines.first().map_or(0, Vec::len);
        let width = |column| {
            self.lines
                .iter()
                .map(|line| line.get(column).map_or(0, String::len))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, line) in self.lines.iter().enumerate() {
            let cells = line
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
            if number == 0 {
                println!(
                    "{}",
                    widths
                        .iter()
                        .map(|&width| "─".repeat(width))
                        .collect::<Vec<_>>()
                        .join("  ")
                );
            }
        }
    }
}
