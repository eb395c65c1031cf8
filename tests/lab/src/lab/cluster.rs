//! The lab with a Forebay on each node: what the end-to-end tests and the demo ask.

use std::path::Path;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Lab, NextHop, PLAIN_HOST, TLS_HOST, VIP};
use crate::{
    client::{Answer, PendingCurl, start_curl},
    forebay::{Forebay, Launch},
};

/// How packets get to the node that serves them.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    /// How the router reaches the VIP.
    pub next_hop: NextHop,
    /// `native` or `generic`: `--xdp-mode`.
    pub mode: &'static str,
    /// `udp` or `l2`: `--forward`.
    pub forward: &'static str,
}

/// A lab whose nodes run Forebay; all of it ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// One a node, in the order of [`Lab::nodes`].
    pub forebays: Vec<Forebay>,
    /// The networks.
    pub lab: Lab,
    folder: TempDir,
    steering: Steering,
}

impl Cluster {
    /// Builds the lab and starts Forebay on each node; returns when all are ready.
    ///
    /// # Errors
    /// The process may not make namespaces, or a Forebay is not ready.
    pub fn start(steering: Steering) -> Result<Self> {
        let lab = Lab::new(steering.next_hop)?;
        let folder = TempDir::new()?;
        lab.write_manifests(folder.path())?;
        let forebays = (0..lab.nodes.len())
            .map(|node| launch(&lab, node, steering, folder.path()).start_unready());
        let mut forebays = forebays.collect::<Result<Vec<_>>>()?;
        for forebay in &mut forebays {
            forebay.wait_for_ready()?;
        }
        Ok(Self {
            forebays,
            lab,
            folder,
            steering,
        })
    }

    /// Starts another Forebay on a node, and ends the one that ran there once the new one is ready.
    ///
    /// # Errors
    /// The new one is not ready, or the old one does not end.
    pub fn replace(&mut self, node: usize) -> Result<()> {
        let launch = launch(&self.lab, node, self.steering, self.folder.path());
        let mut old = std::mem::replace(&mut self.forebays[node], launch.start()?);
        old.terminate()?;
        let status = old.wait()?;
        ensure!(status.success(), "{status}: {}", old.log_text());
        Ok(())
    }

    /// Where the manifests stand that all nodes serve.
    pub fn manifests(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a request from the client's `port` for `path` of [`PLAIN_HOST`] or, with `tls`, of
    /// [`TLS_HOST`]; `args` go to curl.
    ///
    /// # Errors
    /// curl is not installed.
    pub fn request(&self, tls: bool, port: u16, path: &str, args: &[&str]) -> Result<PendingCurl> {
        let ca = self.manifests().join("ca.crt").display().to_string();
        let url = if tls {
            format!("https://{TLS_HOST}{path}")
        } else {
            format!("http://{PLAIN_HOST}{path}")
        };
        let port = port.to_string();
        let mut all = vec!["--local-port", &port, "--cacert", &ca];
        all.extend(args);
        all.push(&url);
        start_curl(Some(&self.lab.client), &all)
    }

    /// [`Cluster::request`] and its answer.
    ///
    /// # Errors
    /// curl fails.
    pub fn get(&self, tls: bool, port: u16, path: &str) -> Result<Answer> {
        self.request(tls, port, path, &[])?.answer()
    }
}

fn launch(lab: &Lab, node: usize, steering: Steering, manifests: &Path) -> Launch {
    let node = &lab.nodes[node];
    Launch::new(&["--manifests", &manifests.display().to_string()])
        .args(&[
            "--vip",
            &VIP.to_string(),
            "--xdp-interface",
            "eth0",
            "--node-name",
            &node.name,
        ])
        .args(&["--xdp-mode", steering.mode, "--forward", steering.forward])
        .args(&lab.node_flags())
        .args(&["--workers", "2", "--trace-responses"])
        .within(&node.namespace)
}
