//! The objects of Forebay's namespace by which agents and the operator hear each other.

use std::path::PathBuf;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, Client};

use crate::{source::AgentError, watch};

/// The ConfigMap with the set of nodes that is in force.
pub(super) const PUBLISHED: &str = "forebay-nodes";
/// The key in it: a text as a file of nodes has it.
pub(super) const KEY: &str = "nodes.yaml";

/// An API server and the namespace in which Forebay keeps its own objects.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    namespace: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The server of a kubeconfig, or without one that of the pod's ServiceAccount.
    ///
    /// # Errors
    /// There is no usable configuration. A server that cannot be reached is no error: it is waited for.
    pub async fn new(kubeconfig: Option<PathBuf>, namespace: String) -> Result<Self, AgentError> {
        let client = watch::client(kubeconfig).await?;
        Ok(Self { client, namespace })
    }

    #[cfg(test)]
    pub(super) fn of(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }

    pub(super) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn published(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// An answer of the API server that does not name the object, for a log line that does.
pub(super) fn reason(error: &kube::Error) -> String {
    let error: &dyn std::error::Error = error;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

/// Whether somebody else has changed the object meanwhile.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
