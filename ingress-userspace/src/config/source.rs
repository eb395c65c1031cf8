//! Flags: which objects are served.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use ingress_agent::{Settings, Source};
use ingress_model::ObjectName;

/// Where the objects come from, and which of them are read.
#[derive(Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// Watch the YAML and JSON files below DIR instead of a cluster
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_MANIFESTS",
        help_heading = "Source"
    )]
    pub(crate) manifests: Option<PathBuf>,

    /// Watch the cluster of this kubeconfig [default: $KUBECONFIG, else the pod's service account]
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_KUBECONFIG",
        conflicts_with = "manifests",
        help_heading = "Source"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Serve Ingresses of this class; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_INGRESS_CLASS",
        value_delimiter = ',',
        default_values = ["forebay", "nginx"],
        help_heading = "Source"
    )]
    pub(crate) ingress_class: Vec<String>,

    /// Values of `spec.controller` of the IngressClasses to serve. Narrow it to run two instances
    /// side by side
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_CONTROLLER_CLASS",
        value_delimiter = ',',
        default_values = ["forebay.dev/ingress", "k8s.io/ingress-nginx"],
        help_heading = "Source"
    )]
    pub(crate) controller_class: Vec<String>,

    /// ConfigMap with the defaults of all Ingresses, as ingress-nginx has it
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "FOREBAY_CONFIGMAP",
        value_parser = object_name,
        help_heading = "Source"
    )]
    pub(crate) configmap: Option<ObjectName>,

    /// Prefix of the annotations that are read beside `forebay.dev/`
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FOREBAY_ANNOTATIONS_PREFIX",
        default_value = "nginx.ingress.kubernetes.io",
        help_heading = "Source"
    )]
    pub(crate) annotations_prefix: String,

    /// Secret whose certificate is served to names that no other fits [default: self-signed]
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "FOREBAY_DEFAULT_SSL_CERTIFICATE",
        value_parser = object_name,
        help_heading = "Source"
    )]
    pub(crate) default_ssl_certificate: Option<ObjectName>,

    /// Serve Ingresses without a class [default: true for a folder, false for a cluster]
    #[arg(
        long,
        value_name = "BOOL",
        env = "FOREBAY_WATCH_INGRESS_WITHOUT_CLASS",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        help_heading = "Source"
    )]
    pub(crate) watch_ingress_without_class: Option<bool>,
}

impl SourceArgs {
    /// Whether the objects come from a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.manifests.is_some()
    }

    /// What kind of source it is, in the status.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_folder() {
            "folder"
        } else {
            "cluster"
        }
    }

    /// What the agent watches, and how it reads it.
    pub(crate) fn of_agent(&self, listeners: Vec<SocketAddr>) -> (Source, Settings) {
        let folder = self.manifests.clone();
        let settings = Settings {
            classes: self.ingress_class.clone(),
            controllers: self.controller_class.clone(),
            annotations_prefix: self.annotations_prefix.clone(),
            configmap: self.configmap.clone(),
            default_certificate: self.default_ssl_certificate.clone(),
            watch_without_class: self.watch_ingress_without_class.unwrap_or(folder.is_some()),
            allow_loopback_endpoints: folder.is_some(),
            listeners,
        };
        let source = folder.map_or_else(
            || Source::Cluster {
                kubeconfig: self.kubeconfig.clone(),
            },
            Source::Folder,
        );
        (source, settings)
    }
}

/// Reads `NAMESPACE/NAME`.
fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}
