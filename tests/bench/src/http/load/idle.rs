//! What a proxy keeps for a connection that waits: its memory before and after there are many.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use super::{Peer, Sample, Stand, own_program};
use crate::{account::pss_kib, http::child::Running, program::Outcome};

/// Connections that are held.
const MANY: usize = 3_000;
/// Connections before those: what a first connection brings with it is not theirs.
const FEW: usize = 4;

/// Counts on a proxy that has not been under load.
///
/// # Errors
/// A connection fails: the others would be fewer than they are counted as.
pub(super) fn measure(peer: &Peer, stand: &Stand, tls: bool) -> Result<Sample> {
    drop(hold(peer, stand, tls, FEW)?);
    let before = pss_kib(peer.pid())?;
    let held = hold(peer, stand, tls, MANY)?;
    let after = pss_kib(peer.pid())?;
    drop(held);
    Ok(Sample {
        cost: (after as f64 - before as f64) / MANY as f64,
        rate: None,
        p50_us: None,
        p99_us: None,
        failed: 0,
    })
}

/// Connections with one request each, for as long as the process runs that is returned.
fn hold(peer: &Peer, stand: &Stand, tls: bool, connections: usize) -> Result<Running> {
    let address: SocketAddr = if tls { peer.https } else { peer.http };
    let mut idle = own_program("idle", stand)?;
    idle.arg(address.to_string())
        .args(["--connections", &connections.to_string()]);
    if tls {
        idle.arg("--certificate").arg(stand.certificate());
    }
    // An input that ends with this process, should it be killed.
    idle.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&mut idle)?;
    let stdout = running.take_stdout().context("stdout is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let outcome: Outcome =
        serde_json::from_str(&line).with_context(|| format!("{idle:?} printed {line:?}"))?;
    ensure!(
        outcome.failed == 0,
        "{} of {connections} connections failed",
        outcome.failed
    );
    Ok(running)
}
