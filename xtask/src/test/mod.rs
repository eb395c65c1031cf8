//! `test`: builds what the tests start, runs each group, and says how many tests of each ran.
//!
//! A test that lacks a right or a tool prints a line `SKIPPED: <reason>` and passes; it is counted
//! as skipped. A group that was skipped whole is a failure where it should have run: as root, or
//! with `CI=true`.

use std::{env, time::Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    build_ebpf,
    setup::{self, Piece, Purpose, h2spec, kubernetes},
    shell::{self, cargo},
    workspace,
};

mod cargo_test;
mod report;

use report::Count;

/// A set of tests with the same needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Unit tests
    Host,
    /// The proxy through sockets and files
    Proxy,
    /// The kernel programs, with `BPF_PROG_TEST_RUN`
    Kernel,
    /// Nodes in network namespaces
    Namespaces,
    /// A real API server
    Api,
    /// All of these
    All,
}

/// The command line of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Which tests to run
    #[arg(value_enum, default_value = "all")]
    group: Group,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

/// A row of the summary, and what runs for it.
struct Suite {
    group: Group,
    name: &'static str,
    /// Each item is one `cargo test`.
    runs: &'static [&'static [&'static str]],
    /// Without root there is nothing to run, which is then no failure.
    needs_root: bool,
}

/// The whole workspace at once, so that each library is compiled with one set of features. This
/// program is no part of it: it runs.
pub(crate) const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "xtask"];

const SUITES: [Suite; 5] = [
    Suite {
        group: Group::Host,
        name: "host",
        runs: &[
            &["--workspace", "--exclude", "xtask", "--lib", "--bins"],
            &["--workspace", "--exclude", "xtask", "--doc"],
            &["--package", "xtask"],
        ],
        needs_root: false,
    },
    Suite {
        group: Group::Proxy,
        name: "proxy",
        runs: &[&[
            "--workspace",
            "--exclude",
            "xtask",
            "--test",
            "manifests",
            "--test",
            "http",
            "--test",
            "continuity",
            "--test",
            "tenants",
        ]],
        needs_root: false,
    },
    Suite {
        group: Group::Kernel,
        name: "BPF test-run",
        runs: &[&["--workspace", "--exclude", "xtask", "--test", "kernel"]],
        needs_root: true,
    },
    Suite {
        group: Group::Namespaces,
        name: "namespaces",
        runs: &[&["--workspace", "--exclude", "xtask", "--test", "namespaces"]],
        needs_root: true,
    },
    Suite {
        group: Group::Api,
        name: "API server",
        runs: &[&[
            "--workspace",
            "--exclude",
            "xtask",
            "--test",
            "api_server",
            "--test",
            "deploy",
        ]],
        needs_root: false,
    },
];

impl Group {
    fn pieces(self) -> Vec<Piece> {
        let mut pieces = Piece::BUILD.to_vec();
        match self {
            Self::Host => {}
            Self::Proxy => {
                pieces.extend(Piece::NAMESPACES);
                pieces.push(Piece::H2spec);
            }
            Self::Kernel | Self::Namespaces => pieces.extend(Piece::NAMESPACES),
            Self::Api => pieces.extend(Piece::of(Purpose::Test)),
            Self::All => pieces = Piece::of(Purpose::Test),
        }
        pieces
    }
}

/// Runs `cargo xtask test`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    setup::ensure(&options.group.pieces())?;
    build_ebpf::build()?;
    build_ebpf::build_undo()?;
    build_ebpf::build_packet_log()?;
    // The tests start the binary; cargo builds it only for tests of its own package.
    shell::run(cargo().arg("build").args(WORKSPACE).arg("--bins"))?;
    let mut rows = Vec::new();
    for suite in SUITES
        .iter()
        .filter(|suite| matches!(options.group, Group::All) || suite.group == options.group)
    {
        println!("\n== {} ==", suite.name);
        rows.push((suite, run_suite(suite, options.filter.as_deref())?));
    }
    finish(&rows, options.filter.is_some(), start)
}

/// Runs all groups, as CI does.
pub(crate) fn run_all() -> Result<()> {
    run(&Options {
        group: Group::All,
        filter: None,
    })
}

fn run_suite(suite: &Suite, filter: Option<&str>) -> Result<Count> {
    let mut count = Count::default();
    for arguments in suite.runs {
        let mut test = cargo();
        test.args(["test", "--no-fail-fast"]).args(*arguments);
        // The tests look nowhere else for them.
        match kubernetes::find()? {
            Some(folder) => test.env(kubernetes::VARIABLE, folder),
            None => test.env_remove(kubernetes::VARIABLE),
        };
        match h2spec::find()? {
            Some(program) => test.env(h2spec::VARIABLE, program),
            None => test.env_remove(h2spec::VARIABLE),
        };
        test.env("FOREBAY_BIN", workspace::target().join("debug/forebay"));
        test.arg("--").args(filter).arg("--show-output");
        count += cargo_test::run(&mut test)?;
    }
    Ok(count)
}

/// Prints the summary; fails if a test failed, or if a group that should have run was skipped
/// whole.
fn finish(rows: &[(&Suite, Count)], filtered: bool, start: Instant) -> Result<()> {
    let strict = env::var_os("CI").is_some_and(|value| value == "true");
    let root = shell::is_root();
    let mut total = Count::default();
    let mut broken = Vec::new();
    println!(
        "\n{:<14}{:>8}{:>8}{:>9}",
        "group", "passed", "failed", "skipped"
    );
    for (suite, count) in rows {
        println!(
            "{:<14}{:>8}{:>8}{:>9}",
            suite.name,
            count.passed,
            count.failed,
            count.skipped.len()
        );
        total += count.clone();
        let should_run = strict || root || !suite.needs_root;
        if count.passed + count.failed == 0 && should_run && !filtered {
            broken.push(format!("no test of the group `{}` ran", suite.name));
        }
        if count.crashed {
            broken.push(format!(
                "a test program of the group `{}` did not build or did not finish",
                suite.name
            ));
        }
    }
    for reason in &total.skipped {
        println!("skipped: {reason}");
    }
    for name in &total.failures {
        println!("failed: {name}");
    }
    for line in &broken {
        println!("failed: {line}");
    }
    let seconds = start.elapsed().as_secs();
    println!("\ntook {}:{:02}", seconds / 60, seconds % 60);
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed,
        total.failed,
        total.skipped.len()
    );
    if total.failed > 0 || !broken.is_empty() {
        bail!("tests failed");
    }
    Ok(())
}
