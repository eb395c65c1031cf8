//! The process under test: builds, starts, asks, stops and restarts the `forebay` binary.
//!
//! `launch` → `log` → [`Forebay`] → `metric`.

mod launch;
mod log;
mod metric;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::{launch::Running, log::Log};
pub use self::{
    launch::{Launch, binary, run_to_end},
    metric::Metrics,
};
use crate::client;

/// Longest wait for `ready`, and for the end after a signal.
const LIMIT: Duration = Duration::from_secs(20);

/// A running `forebay`; killed when dropped. Its log is printed if the test fails.
#[derive(Debug)]
pub struct Forebay {
    launch: Launch,
    log: Log,
    running: Option<Running>,
}

impl Forebay {
    /// Address of the first HTTP listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn http_addr(&self) -> SocketAddr {
        self.listener("http")
    }

    /// Address of the first HTTPS listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn https_addr(&self) -> SocketAddr {
        self.listener("https")
    }

    /// Address of the metrics listener.
    ///
    /// # Panics
    /// When there is none.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.listener("metrics")
    }

    /// Its admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.launch.admin_socket()
    }

    fn listener(&self, name: &str) -> SocketAddr {
        self.log
            .find(|line| {
                let listening = line["message"] == "listening" && line["listener"] == name;
                if listening {
                    line["address"].as_str()?.parse().ok()
                } else {
                    None
                }
            })
            .unwrap_or_else(|| {
                unreachable!("forebay logged no {name} listener:\n{}", self.log.text())
            })
    }

    /// Asks the admin socket for `path`; returns status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        client::get_unix(&self.admin_socket(), path)
    }

    /// The answer of `/status`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn status(&self) -> Result<Value> {
        let (_, body) = self.ask("/status")?;
        serde_json::from_str(&body).with_context(|| format!("/status: {body}"))
    }

    /// The answer of `/routes`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn routes(&self) -> Result<Value> {
        let (_, body) = self.ask("/routes")?;
        serde_json::from_str(&body).with_context(|| format!("/routes: {body}"))
    }

    /// The answer of `/metrics`.
    ///
    /// # Errors
    /// No answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::new(self.ask("/metrics")?.1))
    }

    /// Lines logged so far that are JSON, oldest first.
    pub fn log(&self) -> Vec<Value> {
        self.log
            .lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Everything logged so far.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// Process id.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or_else(
            || unreachable!("forebay was stopped"),
            |running| running.child.id(),
        )
    }

    /// Waits for the line `ready`.
    ///
    /// # Errors
    /// It ends, or is not ready within 20 s; its log is in the error.
    pub fn wait_for_ready(&mut self) -> Result<()> {
        self.wait_for("ready")
    }

    /// Waits for a line with this message.
    ///
    /// # Errors
    /// It ends, or does not say so within 20 s; its log is in the error.
    pub fn wait_for(&self, message: &str) -> Result<()> {
        let said = self.log.wait_for(|line| line["message"] == message);
        ensure!(
            said,
            "forebay did not say {message:?}:\n{}",
            self.log.text()
        );
        Ok(())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<()> {
        let running = self.running.as_ref().context("forebay was stopped")?;
        Ok(kill_process(Pid::from_child(&running.child), Signal::TERM)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after 20 s.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut running = self.running.take().context("forebay was stopped")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = running.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "forebay still runs after {LIMIT:?}:\n{}",
                self.log.text()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again as it was started, after [`Forebay::kill`] or [`Forebay::wait`]; the log
    /// starts anew.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.restart_unready()?;
        self.wait_for_ready()
    }

    /// Likewise, and waits for nothing.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn restart_unready(&mut self) -> Result<()> {
        self.running = None;
        self.log = Log::default();
        self.running = Some(Running::start(&self.launch, &self.log)?);
        Ok(())
    }
}

impl Drop for Forebay {
    #[expect(clippy::print_stderr, reason = "the log of a failed test")]
    fn drop(&mut self) {
        self.running = None;
        if std::thread::panicking() {
            eprintln!(
                "--- log of forebay {:?}\n{}---",
                self.launch.args,
                self.log.text()
            );
        }
    }
}
