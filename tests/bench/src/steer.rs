//! What each verdict of `steer` costs: nanoseconds a frame beside `return XDP_PASS` in the same
//! process.
//!
//! Absolute times say little about another machine; the ratio to the floor does. Rounds are
//! interleaved, so that what else the machine does meets all cases alike; the median counts.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ingress_ebpf::fixtures::{ELSEWHERE, Outcome, Owner, World, cases, outcome, packet::Packet};
use ingress_lab::programs::Programs;
use serde::Serialize;

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

/// A verdict to measure.
struct Subject {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    /// The most it may cost, as a multiple of the floor; none for the floor itself.
    limit: Option<f64>,
}

/// What was measured of one verdict.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Median of the rounds, in nanoseconds a frame.
    nanoseconds: f64,
    /// The median as a multiple of the floor's.
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
    let world = World::new();
    let programs =
        Programs::load(&world, true).context("bench steer needs root and the kernel object")?;
    let subjects = subjects(&world)?;
    let rows = rows(&subjects, &measure(&programs, &subjects, options)?);
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

/// The verdicts and their limits: 1.3 times what a trial of this design cost, over a floor of 22
/// ns.
fn subjects(world: &World) -> Result<Vec<Subject>> {
    let limit = |nanoseconds: f64| Some(nanoseconds / 22.0 * 1.3);
    let short = Packet {
        payload: vec![],
        padding: 6,
        ..Packet::default()
    };
    let from = |owner| {
        Packet {
            source_port: world.port_owned_by(short.source, owner),
            ..short.clone()
        }
        .bytes()
    };
    let elsewhere = Packet {
        destination: ELSEWHERE,
        ..short.clone()
    };
    let udp = Packet {
        protocol: 17,
        payload: vec![0; 12],
        ..elsewhere.clone()
    };
    let decapsulated = cases(world)
        .into_iter()
        .find(|case| case.name == "a peer's packet");
    let steer = |name, frame, limit| Subject {
        name,
        program: "steer",
        frame,
        limit,
    };
    let subjects = vec![
        Subject {
            name: "floor: return XDP_PASS",
            program: "pass",
            frame: from(Owner::Own),
            limit: None,
        },
        steer("not ours, UDP", udp.bytes(), limit(25.0)),
        steer("not ours, TCP", elsewhere.bytes(), limit(48.0)),
        steer("own, local", from(Owner::Own), limit(66.0)),
        steer("forward, L2", from(Owner::L2), limit(84.0)),
        steer("forward, UDP", from(Owner::Udp), limit(96.0)),
        steer(
            "decapsulate, local",
            decapsulated.context("the case has gone")?.frame,
            limit(106.0),
        ),
    ];
    Ok(subjects)
}

/// Nanoseconds of every round, by subject.
fn measure(programs: &Programs, subjects: &[Subject], options: &Options) -> Result<Vec<Vec<f64>>> {
    let world = World::new();
    let mut rounds = vec![Vec::new(); subjects.len()];
    for round in 0..=options.rounds {
        for (subject, times) in subjects.iter().zip(&mut rounds) {
            let run = programs.run(subject.program, &subject.frame, options.repeat)?;
            ensure!(
                run.frame == subject.frame,
                "{}: the frame was not put back",
                subject.name
            );
            if subject.program == "steer" {
                let Outcome { action, .. } = outcome(&world, &subject.frame);
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
    let row = |(subject, median): (&Subject, &f64)| Row {
        name: subject.name,
        nanoseconds: *median,
        ratio: median / floor,
        limit: subject.limit,
    };
    subjects.iter().zip(&medians).map(row).collect()
}

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn report(rows: &[Row]) {
    println!(
        "{:<24} {:>8} {:>8} {:>8}",
        "verdict", "ns", "x floor", "limit"
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
         <text x=\"10\" y=\"20\">steer: cost of a frame, as a multiple of return XDP_PASS (tick: limit)</text>\n"
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
