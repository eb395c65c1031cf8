//! `bench converge`: from an edit to the first request that sees it, and what an edit costs, through
//! a real API server and through a folder.
//!
//! `site` (objects) → `source` (who is told of an edit) → `running` (Forebay) → `measure` → `report`.

#![allow(clippy::print_stdout, reason = "a person waits, and reads the figures")]

mod measure;
mod report;
mod running;
mod site;
mod source;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::at_least;

use self::{
    measure::Plan,
    report::Report,
    source::{Folder, Server},
};

/// How Forebay hears of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// A real kube-apiserver with etcd.
    Api,
    /// A folder of manifests.
    Folder,
}

/// What to measure, and how much of it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only this source
    #[arg(long, value_enum)]
    only: Option<From>,
    /// Agent and proxy as two processes, whose costs are added up
    #[arg(long)]
    two_processes: bool,
    /// Ingresses of each site, at least ten; a tenth as many Services and Secrets, and fifty
    /// endpoints for each Service
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10_000], value_parser = at_least(10))]
    ingresses: Vec<usize>,
    /// Edits, and endpoint changes, whose latency is measured
    #[arg(long, default_value_t = 300, value_parser = at_least(1))]
    edits: usize,
    /// Seconds of steady edits
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where to write the figures as JSON and the plot as SVG
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

/// Runs the benchmark.
///
/// # Errors
/// There is no API server, Forebay is not ready in time, or an edit has no effect.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut report = Report::default();
    for &ingresses in &options.ingresses {
        let plan = Plan {
            ingresses,
            edits: options.edits,
            seconds: options.seconds,
        };
        if options.only != Some(From::Folder) {
            println!("{ingresses} Ingresses through an API server");
            report.push(measure::measure::<Server>(
                "api",
                &plan,
                options.two_processes,
            )?);
        }
        if options.only != Some(From::Api) {
            println!("{ingresses} Ingresses through a folder");
            report.push(measure::measure::<Folder>(
                "folder",
                &plan,
                options.two_processes,
            )?);
        }
    }
    print!("{report}");
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("create {}", options.out.display()))?;
    report.write(&options.out)
}
