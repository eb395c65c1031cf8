//! `demo`: builds what the demo needs and becomes it.

use anyhow::Result;
use clap::Args;

use crate::{
    build_ebpf,
    setup::{self, Piece},
    shell::{self, cargo, command},
    test::WORKSPACE,
    workspace,
};

/// The command line of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// End after the table instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// Leave the namespaces and processes behind at the end
    #[arg(long)]
    keep: bool,
}

/// Runs `cargo xtask demo`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = shell::is_root();
    // Without root there is only the embedded default on loopback, which starts no other program.
    setup::ensure(if root { &Piece::NAMESPACES } else { &[] })?;
    if let Err(error) = build_ebpf::build() {
        if root {
            return Err(error);
        }
        println!("left out: the kernel object, which only root could load: {error:#}");
    }
    shell::run(cargo().arg("build").args(WORKSPACE).arg("--bins"))?;
    let flags = [("--once", options.once), ("--keep", options.keep)];
    let given = flags.into_iter().filter_map(|(flag, given)| given.then_some(flag));
    let built = workspace::target().join("debug");
    shell::replace_by(command(built.join("demo")).env("FOREBAY_BIN", built.join("forebay")).args(given))
}
