//! The operator's settings for Ingresses.

/// Which Ingresses to serve and which endpoints to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names of `--ingress-class`: of an IngressClass, or in `kubernetes.io/ingress.class`.
    pub classes: Vec<String>,
    /// Serve Ingresses without a class.
    pub watch_without_class: bool,
    /// Accept loopback and link-local endpoints; meant for a folder, never for a shared cluster.
    pub allow_loopback_endpoints: bool,
}
