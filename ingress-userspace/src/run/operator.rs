//! `forebay operator`: what is done once per cluster. It serves nobody, and its absence harms no traffic.

use anyhow::Context as _;
use ingress_agent::membership::{self, Cluster};

use super::{UsageError, control, signals::Signals};
use crate::config::OperatorConfig;

/// Runs an operator until SIGTERM or SIGINT.
///
/// # Errors
/// A flag or the cluster's configuration cannot be used ([`UsageError`]).
pub(crate) fn operator(config: &OperatorConfig) -> anyhow::Result<()> {
    control(&config.process, operate(config))
}

async fn operate(config: &OperatorConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let cluster = Cluster::new(config.kubeconfig.clone(), config.nodes_namespace.clone());
    let cluster = cluster.await.map_err(UsageError::from)?;
    let node = config.process.node_name.as_deref().unwrap_or("operator");
    tokio::select! {
        () = membership::operate(cluster, node) => {}
        signal = signals.next() => tracing::info!(signal, "stopped"),
    }
    Ok(())
}
