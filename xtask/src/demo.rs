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
    /// Exit after the table instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// How the router reaches the virtual IP: through one node, or through all [default: ecmp]
    #[arg(long, value_parser = ["single", "ecmp"])]
    next_hop: Option<String>,
    /// Where XDP runs [default: native]
    #[arg(long, value_parser = ["native", "generic"])]
    xdp_mode: Option<String>,
    /// How nodes forward packets to each other [default: udp]
    #[arg(long, value_parser = ["udp", "l2"])]
    forward: Option<String>,
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
        println!("skipped the kernel object, which only root can load: {error:#}");
    }
    shell::run(cargo().arg("build").args(WORKSPACE).arg("--bins"))?;
    let built = workspace::target().join("debug");
    let mut demo = command(built.join("demo"));
    demo.env("FOREBAY_BIN", built.join("forebay"));
    if options.once {
        demo.arg("--once");
    }
    let choices = [
        ("--next-hop", &options.next_hop),
        ("--xdp-mode", &options.xdp_mode),
        ("--forward", &options.forward),
    ];
    for (flag, choice) in choices {
        if let Some(choice) = choice {
            demo.args([flag, choice]);
        }
    }
    shell::replace_by(&mut demo)
}
