//! What Forebay costs, beside nginx, HAProxy, Envoy and a loop that only copies bytes: one worker
//! each, one origin for all.
//!
//! `stand` starts the origins, `peer` the proxies, with settings (`config`) that do the same work
//! → `load` puts each `row` on them in turn and reads the bill (`account`) → `summary` → `report`.

mod child;
mod config;
mod load;
mod peer;
mod proxy;
mod report;
mod row;
mod sample;
mod stand;
mod summary;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::at_least;

use self::{
    load::Turn,
    peer::Peer,
    proxy::Proxy,
    row::{Routes, Row},
    sample::Sample,
    stand::Stand,
    summary::Cell,
};

/// What to measure and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds; each measures every proxy once per row, and the report shows medians
    #[arg(long, default_value_t = 3, value_parser = at_least(1))]
    rounds: usize,
    /// Seconds per proxy, row and round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Connections of the load, at least four
    #[arg(long, default_value_t = 64, value_parser = at_least(4))]
    connections: usize,
    /// Proxies to measure [default: all that are installed]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Proxy>,
    /// Rows to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    rows: Vec<Row>,
    /// Let the kernel choose cores [default: the proxy on the first core, load and origins on the
    /// last]
    #[arg(long)]
    no_pin: bool,
    /// Keep nginx's default response buffers, 8 of 4 KiB [default: as in ingress-nginx, no
    /// buffering and reads of 4 KiB]
    #[arg(long)]
    nginx_buffering: bool,
    /// Where to write the results
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

/// Runs `bench http`.
///
/// # Errors
/// A proxy cannot be started, the load cannot be run, or the results cannot be written.
#[expect(
    clippy::print_stdout,
    reason = "the table is for the person who measures"
)]
pub(crate) fn run(options: &Options) -> Result<()> {
    child::raise_descriptor_limit()?;
    let mut cells = cells(options);
    ensure!(!cells.is_empty(), "no proxy for any of these rows");
    let stand = Stand::start(!options.no_pin, options.nginx_buffering)?;
    let fleet = fleet(&cells, &stand)?;
    // The first round warms up: connections to the origin, caches, branch predictors.
    for round in 0..=options.rounds {
        let seconds = if round == 0 { 1 } else { options.seconds };
        for cell in &mut cells {
            if round == 0 && cell.row.wants_fresh_proxy() {
                continue;
            }
            let sample = sample(cell, &fleet, &stand, options.connections, seconds)
                .with_context(|| format!("measure {} in {}", cell.proxy, cell.row))?;
            if round > 0 {
                println!(
                    "round {round}: {:<12} {:<10} {:9.2} {}",
                    cell.row,
                    cell.proxy,
                    sample.cost,
                    cell.row.unit()
                );
                cell.samples.push(sample);
            }
        }
    }
    end(fleet)?;
    let figures = summary::summarise(&cells);
    print!("{}", report::table(&figures));
    if !options.nginx_buffering {
        println!("\nnginx as ingress-nginx sets it: proxy_buffering off, proxy_buffer_size 4k");
    }
    report::write(&options.output, &figures)
}

/// Puts every kind of load on Forebay, a second each, and measures nothing: what it does meanwhile
/// tells a compiler which code is hot.
///
/// # Errors
/// As [`run`], or a request fails.
pub(crate) fn train() -> Result<()> {
    const CONNECTIONS: usize = 64;
    child::raise_descriptor_limit()?;
    let version = Proxy::Forebay.version().context("there is no Forebay")?;
    let cell = |row| Cell {
        row,
        proxy: Proxy::Forebay,
        version: version.clone(),
        samples: Vec::new(),
    };
    let rows = Row::ALL.into_iter().filter(|row| !row.wants_fresh_proxy());
    let cells: Vec<_> = rows.map(cell).collect();
    let stand = Stand::start(true, false)?;
    let fleet = fleet(&cells, &stand)?;
    let all_served = |sample: &Sample, row| {
        ensure!(sample.failed == 0, "{} failed in {row}", sample.failed);
        Ok(())
    };
    for cell in &cells {
        let sample = sample(cell, &fleet, &stand, CONNECTIONS, 1)?;
        all_served(&sample, cell.row)?;
    }
    end(fleet)?;
    // Not for the profile, which a process without rights cannot write: what is linked otherwise than
    // what the tests run, as in the image, may need a file or a system call that it is denied.
    let two = Peer::start_two(Routes::One, &stand).context("serve by two processes")?;
    for row in [Row::Http1, Row::Handshakes, Row::Https2] {
        let turn = Turn {
            peer: &two,
            stand: &stand,
            connections: CONNECTIONS,
            seconds: 1,
        };
        all_served(&turn.measure(row)?, row)?;
    }
    two.end()
}

/// What will be measured, row by row; says which proxy is left out.
#[expect(
    clippy::print_stdout,
    reason = "the line is for the person who measures"
)]
fn cells(options: &Options) -> Vec<Cell> {
    let mut installed = Vec::new();
    for proxy in Proxy::ALL {
        if !options.only.is_empty() && !options.only.contains(&proxy) {
            continue;
        }
        match proxy.version() {
            Some(version) => installed.push((proxy, version)),
            None => println!("skipped {proxy}: not installed"),
        }
    }
    let mut cells = Vec::new();
    for &row in &options.rows {
        for (proxy, version) in &installed {
            if *proxy != Proxy::CopyLoop || row.can_be_copied() {
                cells.push(Cell {
                    row,
                    proxy: *proxy,
                    version: version.clone(),
                    samples: Vec::new(),
                });
            }
        }
    }
    cells
}

type Fleet = BTreeMap<(Routes, Proxy), Peer>;

/// The proxies that stay up for all rounds.
fn fleet(cells: &[Cell], stand: &Stand) -> Result<Fleet> {
    let mut fleet = Fleet::new();
    for cell in cells {
        let key = (cell.row.routes(), cell.proxy);
        if !cell.row.wants_fresh_proxy() && !fleet.contains_key(&key) {
            fleet.insert(key, Peer::start(cell.proxy, cell.row.routes(), stand)?);
        }
    }
    Ok(fleet)
}

fn end(fleet: Fleet) -> Result<()> {
    fleet.into_values().try_for_each(Peer::end)
}

fn sample(
    cell: &Cell,
    fleet: &Fleet,
    stand: &Stand,
    connections: usize,
    seconds: u64,
) -> Result<Sample> {
    let routes = cell.row.routes();
    let fresh;
    let peer = if cell.row.wants_fresh_proxy() {
        fresh = Peer::start(cell.proxy, routes, stand)?;
        &fresh
    } else {
        let peer = fleet.get(&(routes, cell.proxy));
        peer.context("a proxy of no fleet")?
    };
    let turn = Turn {
        peer,
        stand,
        connections,
        seconds,
    };
    turn.measure(cell.row)
}
