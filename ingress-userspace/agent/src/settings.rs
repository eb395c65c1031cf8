//! What an operator decides about Ingresses.

/// Which Ingresses are served and what their endpoints may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names of `--ingress-class`: of an IngressClass, or in `kubernetes.io/ingress.class`.
    pub classes: Vec<String>,
    /// Serve an Ingress that names no class at all.
    pub watch_without_class: bool,
    /// Accept loopback and link-local endpoints; meant for a folder, never for a shared cluster.
    pub allow_loopback_endpoints: bool,
}
