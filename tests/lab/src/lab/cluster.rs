//! The lab with a Forebay on each node: what the end-to-end tests and the demo ask.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{HASH_SEED, Lab, NextHop, PLAIN_HOST, TLS_HOST, VIP, VIP6};
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
    /// Whether [`VIP6`] is served beside [`VIP`].
    pub has_ipv6: bool,
}

impl Steering {
    /// `none` or `l2`: `--announce`. Who has no router must be told.
    fn announce(self) -> &'static str {
        if self.next_hop == NextHop::Flat {
            "l2"
        } else {
            "none"
        }
    }
}

/// How Forebays learn of each other.
#[derive(Debug)]
enum Nodes {
    /// By flags.
    Fixed,
    /// From a file for each node in this folder.
    Files(TempDir),
    /// From the cluster of this kubeconfig, as they do of everything else.
    Cluster(PathBuf),
}

/// A lab whose nodes run Forebay; all of it ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// One a node, in the order of [`Lab::nodes`].
    pub forebays: Vec<Forebay>,
    /// The networks.
    pub lab: Lab,
    folder: TempDir,
    nodes: Nodes,
    steering: Steering,
}

impl Cluster {
    /// Builds the lab and starts Forebay on each node; returns when all are ready.
    ///
    /// # Errors
    /// The process may not make namespaces, or a Forebay is not ready.
    pub fn start(steering: Steering) -> Result<Self> {
        let mut cluster = Self::new(steering, Nodes::Fixed)?;
        cluster.launch_all()?;
        Ok(cluster)
    }

    /// The same with the nodes in a file for each node, which says so at first; see
    /// [`Cluster::write_nodes`].
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub fn start_with_nodes(steering: Steering, nodes: &str) -> Result<Self> {
        let mut cluster = Self::new(steering, Nodes::Files(TempDir::new()?))?;
        for node in 0..cluster.lab.nodes.len() {
            cluster.write_nodes(node, nodes)?;
        }
        cluster.launch_all()?;
        Ok(cluster)
    }

    /// Builds the lab for Forebays that follow the cluster of a kubeconfig, and starts none.
    ///
    /// # Errors
    /// The process may not make namespaces.
    pub fn of_cluster(steering: Steering, kubeconfig: &Path) -> Result<Self> {
        Self::new(steering, Nodes::Cluster(kubeconfig.to_owned()))
    }

    fn new(steering: Steering, nodes: Nodes) -> Result<Self> {
        let lab = Lab::new(steering.next_hop)?;
        if steering.has_ipv6 {
            lab.enable_ipv6(steering.next_hop)?;
        }
        let folder = TempDir::new()?;
        lab.write_manifests(folder.path())?;
        Ok(Self {
            forebays: Vec::new(),
            lab,
            folder,
            nodes,
            steering,
        })
    }

    /// Starts a Forebay on each node; returns when all are ready.
    ///
    /// # Errors
    /// One is not ready.
    pub fn launch_all(&mut self) -> Result<()> {
        for node in 0..self.lab.nodes.len() {
            let forebay = self.launch(node, HASH_SEED).start_unready()?;
            self.forebays.push(forebay);
        }
        for forebay in &mut self.forebays {
            forebay.wait_for_ready()?;
        }
        Ok(())
    }

    /// Replaces a node's file of nodes, as a rename does.
    ///
    /// # Errors
    /// The nodes are given by flags, or the file cannot be written.
    pub fn write_nodes(&self, node: usize, text: &str) -> Result<()> {
        let path = self.nodes_file(node).context("nodes are not in files")?;
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &path)?;
        Ok(())
    }

    fn nodes_file(&self, node: usize) -> Option<PathBuf> {
        let Nodes::Files(folder) = &self.nodes else {
            return None;
        };
        let name = format!("{}.yaml", self.lab.nodes[node].name);
        Some(folder.path().join(name))
    }

    /// Starts another Forebay on a node, and ends the one that ran there once the new one is ready.
    ///
    /// # Errors
    /// The new one is not ready, or the old one does not end.
    pub fn replace(&mut self, node: usize) -> Result<()> {
        self.replace_with_seed(node, HASH_SEED)
    }

    /// The same with another seed of the flow hash.
    ///
    /// # Errors
    /// As for [`Cluster::replace`].
    pub fn replace_with_seed(&mut self, node: usize, seed: u64) -> Result<()> {
        let launch = self.launch(node, seed);
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

    fn launch(&self, node: usize, seed: u64) -> Launch {
        let mut source = vec![
            "--manifests".to_owned(),
            self.manifests().display().to_string(),
        ];
        let nodes = match (&self.nodes, self.nodes_file(node)) {
            (_, Some(file)) => vec!["--nodes-file".to_owned(), file.display().to_string()],
            (Nodes::Cluster(kubeconfig), _) => {
                source = vec!["--kubeconfig".to_owned(), kubeconfig.display().to_string()];
                let address = self.lab.nodes[node].address.to_string();
                [
                    "--nodes-namespace",
                    "forebay-system",
                    "--node-address",
                    &address,
                ]
                .map(str::to_owned)
                .into()
            }
            _ => self.lab.node_flags(),
        };
        let Steering {
            mode,
            forward,
            has_ipv6,
            ..
        } = self.steering;
        let vips: &[_] = if has_ipv6 {
            &[IpAddr::V4(VIP), IpAddr::V6(VIP6)]
        } else {
            &[IpAddr::V4(VIP)]
        };
        let vips: Vec<_> = vips
            .iter()
            .flat_map(|vip| ["--vip".to_owned(), vip.to_string()])
            .collect();
        let node = &self.lab.nodes[node];
        Launch::new(&source)
            .args(&vips)
            .args(&["--xdp-interface", "eth0", "--node-name", &node.name])
            .args(&["--xdp-mode", mode, "--forward", forward])
            .args(&["--announce", self.steering.announce()])
            .args(&nodes)
            .args(&["--hash-seed", &seed.to_string()])
            .args(&["--workers", "2", "--trace-responses"])
            .within(&node.namespace)
    }
}
