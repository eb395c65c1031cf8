//! Loads one proxy for a while and reads what it cost: the command, its output, the bill.

mod idle;
mod output;

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::{
    child::{Core, command, wrapper},
    peer::Peer,
    row::{Load, Row, SMALL},
    sample::Sample,
    stand::{Stand, answer_length},
};
use crate::{account::cpu_seconds, client::Client};

/// One proxy's turn in a round.
pub(super) struct Turn<'a> {
    pub(super) peer: &'a Peer,
    pub(super) stand: &'a Stand,
    /// At least 4.
    pub(super) connections: usize,
    /// How long the load lasts; where memory is counted, it lasts as long as it takes.
    pub(super) seconds: u64,
}

impl Turn<'_> {
    /// Puts a row's load on the proxy.
    ///
    /// # Errors
    /// The load cannot be run or gets no answer, or the proxy has ended.
    pub(super) fn measure(&self, row: Row) -> Result<Sample> {
        let mut command = match row.load() {
            Load::Idle { tls } => return idle::measure(self.peer, self.stand, tls),
            Load::Wrk { tls, path } => self.wrk(tls, path)?,
            Load::WrkPost => self.wrk_post()?,
            Load::WrkHosts => self.wrk_hosts(row)?,
            Load::H2load => self.h2load()?,
            Load::Handshakes { resume } => self.handshakes(resume)?,
            Load::Websocket => self.websocket()?,
        };
        self.probe(row)?;
        let before = cpu_seconds(self.peer.pid())?;
        let text = said(&mut command)?;
        let cpu_seconds = cpu_seconds(self.peer.pid())? - before;
        let outcome = match row.load() {
            Load::Handshakes { .. } | Load::Websocket => serde_json::from_str(&text)?,
            _ => output::read(&text)?,
        };
        ensure!(
            outcome.requests > 0,
            "{command:?} counted no right answer: {text}"
        );
        ensure!(cpu_seconds > 0.0, "the proxy used no CPU: it did not serve");
        Ok(Sample {
            cost: cpu_seconds * 1e6 / outcome.requests as f64,
            rate: Some(outcome.requests as f64 / self.seconds as f64),
            p50_us: outcome.p50_us,
            p99_us: outcome.p99_us,
            failed: outcome.failed,
        })
    }

    /// Asks once what wrk will ask: it takes a redirect, or an empty answer, for a good one.
    fn probe(&self, row: Row) -> Result<()> {
        let (path, length) = match row.load() {
            Load::Wrk { tls: false, path } => (path, answer_length(path)),
            Load::WrkPost | Load::WrkHosts => (SMALL, answer_length(SMALL)),
            _ => return Ok(()),
        };
        let answer = Client::connect(self.peer.http)?.get(crate::HOST, path)?;
        ensure!(
            answer.status == 200 && answer.body.len() == length,
            "{path} was answered {} with {} bytes instead of 200 with {length}",
            answer.status,
            answer.body.len()
        );
        Ok(())
    }

    fn wrk(&self, tls: bool, path: &str) -> Result<Command> {
        let (scheme, address) = if tls {
            ("https", self.peer.https)
        } else {
            ("http", self.peer.http)
        };
        let mut wrk = self.load("wrk")?;
        wrk.args(["-t1", "--latency", "--timeout", "5s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .args(["-H", &format!("Host: {}", crate::HOST)])
            .arg(format!("{scheme}://{address}{path}"));
        Ok(wrk)
    }

    fn wrk_post(&self) -> Result<Command> {
        let mut wrk = self.wrk(false, SMALL)?;
        wrk.arg("-s").arg(self.stand.post_script());
        Ok(wrk)
    }

    fn wrk_hosts(&self, row: Row) -> Result<Command> {
        let hosts = self.stand.hosts(row.routes()).len();
        let mut wrk = self.wrk(false, SMALL)?;
        wrk.arg("-s")
            .arg(self.stand.hosts_script())
            .args(["--", crate::HOST, &hosts.to_string()]);
        Ok(wrk)
    }

    /// Four streams on each of a quarter of the connections: as many requests under way.
    fn h2load(&self) -> Result<Command> {
        let mut h2load = self.load("h2load")?;
        h2load
            .args(["-t1", "-m4"])
            .arg(format!("-c{}", self.connections / 4))
            .arg(format!("-D{}", self.seconds))
            .arg(format!("--connect-to={}", self.peer.https))
            .arg(format!("https://{}{SMALL}", crate::HOST));
        Ok(h2load)
    }

    fn handshakes(&self, resume: bool) -> Result<Command> {
        let mut handshakes = self.own_load("handshakes", self.peer.https)?;
        handshakes
            .arg("--certificate")
            .arg(self.stand.certificate());
        if resume {
            handshakes.arg("--resume");
        }
        Ok(handshakes)
    }

    fn websocket(&self) -> Result<Command> {
        self.own_load("websocket", self.peer.websocket)
    }

    fn load(&self, program: &str) -> Result<Command> {
        command(&wrapper(self.stand.pin, Core::Load)?, program)
    }

    fn own_load(&self, name: &str, address: SocketAddr) -> Result<Command> {
        let mut program = own_program(name, self.stand)?;
        program
            .arg(address.to_string())
            .args(["--seconds", &self.seconds.to_string()])
            .args(["--connections", &self.connections.to_string()]);
        Ok(program)
    }
}

fn own_program(name: &str, stand: &Stand) -> Result<Command> {
    let mut program = command(&wrapper(stand.pin, Core::Load)?, std::env::current_exe()?)?;
    program.args(["program", name]);
    Ok(program)
}

/// Runs it to its end.
fn said(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {text}{errors}");
    }
    Ok(text)
}
