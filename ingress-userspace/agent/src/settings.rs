//! The operator's settings for Ingresses.

use std::net::SocketAddr;

use ingress_model::ObjectName;

/// Which Ingresses to serve and which endpoints to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names of `--ingress-class`: of an IngressClass, or in `kubernetes.io/ingress.class`.
    pub classes: Vec<String>,
    /// Values of `spec.controller` of the IngressClasses that are ours.
    pub controllers: Vec<String>,
    /// Prefix of annotations beside our own, with or without the slash.
    pub annotations_prefix: String,
    /// The controller's ConfigMap.
    pub configmap: Option<ObjectName>,
    /// The Secret whose certificate is served where no other fits; a self-signed one if `None`.
    pub default_certificate: Option<ObjectName>,
    /// Serve Ingresses without a class.
    pub watch_without_class: bool,
    /// Accept loopback and link-local endpoints; meant for a folder, never for a shared cluster.
    pub allow_loopback_endpoints: bool,
    /// Where clients connect to Forebay itself, on this node or by a virtual IP: no endpoint is there.
    pub listeners: Vec<SocketAddr>,
}
