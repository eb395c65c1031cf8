//! What each verdict of `steer` costs: nanoseconds a frame beside `return XDP_PASS` in the same
//! process.
//!
//! Absolute times say little about another machine; what is above the floor, divided by it, does. Rounds are
//! interleaved, so that what else the machine does meets all cases alike; the median counts.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ingress_ebpf::fixtures::{
    ELSEWHERE, ELSEWHERE6, Outcome, Owner, VLAN, World, cases, outcome, packet::Packet,
};
use ingress_lab::{lab::Namespace, programs::Programs};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::{at_least, median::median};

/// The command line of `bench steer`.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Runs per frame and round
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Rounds over all cases
    #[arg(long, default_value_t = 9, value_parser = at_least(1))]
    rounds: usize,
    /// Where to write the JSON and the chart
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// One flow, packet after packet.
const OWN: &str = "own";
/// Another flow each time, of as many as a client has ports.
const MANY: &str = "own, 65,536 flows";
/// The floor of [`MANY`]: the flow changes, and the frame passes.
const MANY_FLOOR: &str = "floor of 65,536 flows";
/// The most that [`MANY`] may be above its floor, as a multiple of what [`OWN`] is above its own.
const MANY_LIMIT: f64 = 1.1;

/// A verdict to measure.
struct Subject {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    cluster: Cluster,
    /// The most it may cost above the floor, as a multiple of that; none where nothing is asked.
    limit: Option<f64>,
}

/// What the nodes do: which of the stands.
#[derive(Clone, Copy, Debug)]
enum Cluster {
    /// They send each other packets in UDP.
    ByUdp,
    /// They send each other frames by MAC address.
    ByMac,
    /// Their set has changed: each bucket has a second and a third hop.
    Changing,
    /// This one has every bucket.
    Alone,
}

/// Programs and what their maps hold.
struct Stand {
    programs: Programs,
    world: World,
}

/// What was measured of one verdict.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Median of the rounds, in nanoseconds a frame.
    nanoseconds: f64,
    /// What the median is above its floor, as a multiple of the first row's.
    ratio: f64,
    /// The most the ratio may be.
    limit: Option<f64>,
}

/// Measures, prints a table, and writes `steer.json` and `steer.svg`.
///
/// # Errors
/// The programs cannot be loaded, a frame has another verdict than its subject names, or a verdict costs more than
/// its limit.
pub(crate) fn run(options: &Options) -> Result<()> {
    // A machine of its own: a connection that is there needs addresses.
    let machine = Namespace::new("steer").context("bench steer needs root")?;
    let own = options.clone();
    let rows = machine.run(move || measured(&own))?;
    report(&rows);
    fs::create_dir_all(&options.out)?;
    write(
        &options.out,
        "steer.json",
        &serde_json::to_string_pretty(&rows)?,
    )?;
    write(&options.out, "steer.svg", &chart(&rows))?;
    let over: Vec<_> = rows
        .iter()
        .filter(|row| row.limit.is_some_and(|limit| row.ratio > limit))
        .collect();
    ensure!(
        over.is_empty(),
        "over the limit: {:?}",
        over.iter().map(|row| row.name).collect::<Vec<_>>()
    );
    Ok(())
}

/// What each verdict costs.
fn measured(options: &Options) -> Result<Vec<Row>> {
    let world = World::new();
    let load = |world: &World| {
        Programs::load_undoing(world)
            .context("bench steer needs root, and the object that cargo xtask bench builds")
    };
    let subjects = subjects(&world)?;
    let stand = |world: World| {
        Ok::<_, anyhow::Error>(Stand {
            programs: load(&world)?,
            world,
        })
    };
    let by_udp = World::new().without_forwarding_by_mac();
    let changing = World {
        connected: true,
        ..by_udp.clone().with_hops([Owner::Udp, Owner::Six])
    };
    let alone = by_udp.clone().with_all_here();
    let stands = [by_udp, world, changing, alone].map(stand);
    let stands = stands.into_iter().collect::<Result<Vec<_>>>()?;
    let connected = connect(&stands[Cluster::Changing as usize].world)?;
    let times = measure(&stands, &subjects, options)?;
    drop(connected);
    Ok(rows(&subjects, &times))
}

/// Connections of the client of all cases to both virtual addresses, in buckets that this node owns.
fn connect(world: &World) -> Result<Vec<(TcpStream, TcpListener)>> {
    ensure!(
        Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?
            .success()
    );
    let four = Packet::default();
    let packets = [four.six(), four];
    for address in packets
        .iter()
        .flat_map(|packet| [packet.source, packet.destination])
    {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut command = Command::new("ip");
        command.args([
            "address",
            "add",
            &format!("{address}/{length}"),
            "dev",
            "lo",
        ]);
        if address.is_ipv6() {
            command.arg("nodad");
        }
        ensure!(command.status()?.success(), "{command:?}");
    }
    let connect = |packet: &Packet| {
        let listener = TcpListener::bind((packet.destination, packet.destination_port))?;
        let port = world.port_owned_by(packet.source, Owner::Own);
        let socket = Socket::new(
            Domain::for_address(listener.local_addr()?),
            Type::STREAM,
            None,
        )?;
        socket.bind(&SocketAddr::new(packet.source, port).into())?;
        socket.connect(&listener.local_addr()?.into())?;
        Ok((socket.into(), listener))
    };
    packets.iter().map(connect).collect()
}

/// The verdicts and their limits.
fn subjects(world: &World) -> Result<Vec<Subject>> {
    let four = Packet {
        payload: vec![],
        padding: 6,
        ..Packet::default()
    };
    let six = Packet {
        padding: 0,
        ..four.six()
    };
    let from = |base: &Packet, owner| Packet {
        source_port: world.port_owned_by(base.source, owner),
        ..base.clone()
    };
    let syn = |packet: &Packet| {
        let mut frame = packet.bytes();
        frame[packet.transport_at() + 13] = 0x02;
        frame
    };
    let fragment = |packet: &Packet| Packet {
        fragment: 0x2000,
        ..packet.clone()
    };
    let in_vlan = |packet: &Packet| Packet {
        vlans: vec![VLAN],
        ..packet.clone()
    };
    let to = |base: &Packet, destination| Packet {
        destination,
        ..base.clone()
    };
    let (elsewhere4, elsewhere6) = (to(&four, ELSEWHERE.into()), to(&six, ELSEWHERE6.into()));
    let datagram = Packet {
        protocol: 17,
        payload: vec![0; 12],
        ..elsewhere4.clone()
    };
    let from_peer = |name| {
        let cases = cases(world);
        let case = cases.into_iter().find(|case| case.name == name);
        Ok::<_, anyhow::Error>(case.context("the case has gone")?.frame)
    };
    let steer = |name, frame, limit| Subject {
        name,
        program: "steer",
        frame,
        cluster: Cluster::ByUdp,
        limit,
    };
    let by_mac = |name, frame, limit| Subject {
        cluster: Cluster::ByMac,
        ..steer(name, frame, limit)
    };
    let changing = |name, frame, limit| Subject {
        cluster: Cluster::Changing,
        ..steer(name, frame, limit)
    };
    let own4 = from(&four, Owner::Own);
    let alone = |name, program, frame| Subject {
        program,
        cluster: Cluster::Alone,
        ..steer(name, frame, None)
    };
    Ok(vec![
        Subject {
            name: "floor: return XDP_PASS",
            program: "pass",
            frame: own4.bytes(),
            cluster: Cluster::ByUdp,
            limit: None,
        },
        steer("not ours, UDP", datagram.bytes(), None),
        steer("not ours, TCP", elsewhere4.bytes(), Some(0.95)),
        steer(OWN, own4.bytes(), Some(1.75)),
        changing("own, second hop in use", own4.bytes(), Some(1.75 + 1.3)),
        alone(MANY_FLOOR, "pass_many", own4.bytes()),
        alone(MANY, "steer_many", own4.bytes()),
        steer("own, in a VLAN", in_vlan(&own4).bytes(), None),
        steer("own SYN, no worker", syn(&own4), None),
        steer("a fragment, dropped", fragment(&own4).bytes(), None),
        by_mac("forward by MAC", from(&four, Owner::L2).bytes(), Some(2.1)),
        steer("forward in UDP", from(&four, Owner::Udp).bytes(), Some(2.7)),
        steer("decapsulate", from_peer("a peer's packet")?, Some(3.1)),
        steer("IPv6: not ours, TCP", elsewhere6.bytes(), Some(0.95 * 1.15)),
        steer(
            "IPv6: own",
            from(&six, Owner::Own).bytes(),
            Some(1.75 * 1.15),
        ),
        changing(
            "IPv6: own, second hop",
            from(&six, Owner::Own).bytes(),
            Some((1.75 + 1.3) * 1.15),
        ),
        by_mac(
            "IPv6: forward by MAC",
            from(&six, Owner::L2).bytes(),
            Some(2.1 * 1.15),
        ),
        steer(
            "IPv6: forward in UDP",
            from(&six, Owner::Six).bytes(),
            Some(2.7 * 1.15),
        ),
        steer(
            "IPv6: decapsulate",
            from_peer("a peer's IPv6 packet in IPv6")?,
            Some(3.1 * 1.15),
        ),
    ])
}

/// Nanoseconds of every round, by subject.
fn measure(stands: &[Stand], subjects: &[Subject], options: &Options) -> Result<Vec<Vec<f64>>> {
    let mut rounds = vec![Vec::new(); subjects.len()];
    for round in 0..=options.rounds {
        for (subject, times) in subjects.iter().zip(&mut rounds) {
            let Stand { programs, world } = &stands[subject.cluster as usize];
            let run = programs.run(subject.program, &subject.frame, options.repeat)?;
            ensure!(
                run.frame == subject.frame,
                "{}: the frame was not put back",
                subject.name
            );
            if subject.program.starts_with("steer") {
                let Outcome { action, .. } = outcome(world, &subject.frame);
                ensure!(
                    run.action == action,
                    "{}: {:?} instead of {action:?}",
                    subject.name,
                    run.action
                );
            }
            // The first round warms up.
            if round > 0 {
                times.push(run.duration.as_nanos() as f64);
            }
        }
    }
    Ok(rounds)
}

fn rows(subjects: &[Subject], rounds: &[Vec<f64>]) -> Vec<Row> {
    let medians: Vec<f64> = rounds
        .iter()
        .map(|times| median(times.iter().copied()).unwrap_or(f64::NAN))
        .collect();
    let floor = medians.first().copied().unwrap_or(1.0);
    let of = |name| {
        let mut all = subjects.iter().zip(&medians);
        let found = all.find(|(subject, _)| subject.name == name);
        found.map_or(f64::NAN, |(_, median)| *median)
    };
    let row = |(subject, median): (&Subject, &f64)| {
        let is_many = subject.name == MANY;
        let own_floor = if is_many { of(MANY_FLOOR) } else { floor };
        Row {
            name: subject.name,
            nanoseconds: *median,
            ratio: (median - own_floor) / floor,
            limit: match is_many {
                true => Some(MANY_LIMIT * (of(OWN) - floor) / floor),
                false => subject.limit,
            },
        }
    };
    subjects.iter().zip(&medians).map(row).collect()
}

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn report(rows: &[Row]) {
    println!(
        "{:<24} {:>8} {:>8} {:>8}",
        "verdict", "ns", "above", "limit"
    );
    for row in rows {
        let limit = row
            .limit
            .map_or_else(String::new, |limit| format!("{limit:.2}"));
        println!(
            "{:<24} {:>8.0} {:>8.2} {:>8}",
            row.name, row.nanoseconds, row.ratio, limit
        );
    }
}

/// A bar for each verdict's ratio, a tick for its limit.
fn chart(rows: &[Row]) -> String {
    const SCALE: f64 = 70.0;
    let height = 24 * rows.len() + 40;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\">steer: cost of a frame, above return XDP_PASS, as a multiple of it (tick: limit)</text>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        let y = 24 * index + 34;
        let width = row.ratio * SCALE;
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + 13, row.name);
        let _ = writeln!(
            svg,
            "<rect x=\"180\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"#2a7de1\"/>"
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{:.2} ({:.0} ns)</text>",
            188.0 + width,
            y + 13,
            row.ratio,
            row.nanoseconds
        );
        if let Some(limit) = row.limit {
            let x = 180.0 + limit * SCALE;
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#c00\" stroke-width=\"2\"/>",
                y - 2,
                y + 18
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
