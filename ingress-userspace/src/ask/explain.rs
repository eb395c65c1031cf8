//! `forebay explain`: where the packets of a connection go, and why.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use ingress_agent::kernel::{self, Hop, Reach, Steered, Way};

use super::output;
use crate::config::ExplainArgs;

/// Prints the way of a connection's packets that enter by this node.
///
/// # Errors
/// No maps are pinned, or the process may not read them.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let way = kernel::explain(&args.pins.pin_dir, args.client, args.server)
        .context("cannot say where the packets go")?;
    output::print(&summary(args, &way))?;
    Ok(ExitCode::SUCCESS)
}

fn summary(args: &ExplainArgs, way: &Way) -> String {
    let ExplainArgs { client, server, .. } = args;
    match way {
        Way::NotVip => format!("{} is no virtual IP of this node\n", server.ip()),
        Way::ClosedPort => {
            let (vip, port) = (server.ip(), server.port());
            format!("the virtual IP {vip} does not serve port {port}: its packets are dropped\n")
        }
        Way::Steered(steered) => {
            let mut text = format!("{client} to {server}\n");
            // Writing to a String cannot fail.
            let _ = tell(&mut text, steered);
            text
        }
    }
}

fn tell(text: &mut String, steered: &Steered) -> std::fmt::Result {
    let Steered {
        epoch,
        bucket,
        hops,
        worker,
    } = steered;
    writeln!(text, "bucket   {bucket}, epoch {epoch}")?;
    match hops.split_first() {
        None => writeln!(text, "owner    nobody: this node serves it")?,
        Some((owner, others)) => {
            writeln!(text, "owner    {}", node(owner))?;
            for hop in others {
                writeln!(
                    text,
                    "or, if it is older and not there:\n         {}",
                    node(hop)
                )?;
            }
        }
    }
    match worker {
        Some((worker, count)) => {
            writeln!(
                text,
                "worker   {worker} of {count}, where it is this node's"
            )
        }
        None => writeln!(text, "worker   none listens on this node"),
    }
}

fn node(hop: &Hop) -> String {
    let Hop { id, address, reach } = hop;
    match reach {
        Reach::Here => format!("this node ({id}, {address})"),
        Reach::Udp(interface) => format!("node {id}, {address}, in UDP by interface {interface}"),
        Reach::Mac(interface) => {
            format!("node {id}, {address}, by its MAC address, by interface {interface}")
        }
        Reach::Unresolved => {
            format!("node {id}, {address}, whose MAC address is not known: this node serves it")
        }
    }
}
