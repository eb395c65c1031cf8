//! Ingress as `networking.k8s.io/v1beta1` and `extensions/v1beta1` wrote it, turned into v1.
//!
//! Both groups share one form: `serviceName` and `servicePort` beside the path, and a `pathType`
//! that may be missing, which means `ImplementationSpecific`.

use k8s_openapi::{
    api::{
        core::v1::TypedLocalObjectReference,
        networking::v1::{
            HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
            IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
        },
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde::Deserialize;

/// An Ingress of a `v1beta1` group.
#[derive(Debug, Deserialize)]
pub(super) struct LegacyIngress {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    backend: Option<Backend>,
    ingress_class_name: Option<String>,
    rules: Option<Vec<Rule>>,
    tls: Option<Vec<IngressTLS>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    service_name: Option<String>,
    service_port: Option<IntOrString>,
    resource: Option<TypedLocalObjectReference>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    host: Option<String>,
    http: Option<Http>,
}

#[derive(Debug, Deserialize)]
struct Http {
    paths: Option<Vec<Path>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    path: Option<String>,
    path_type: Option<String>,
    backend: Backend,
}

impl From<LegacyIngress> for Ingress {
    fn from(legacy: LegacyIngress) -> Self {
        Self {
            metadata: legacy.metadata,
            spec: legacy.spec.map(IngressSpec::from),
            status: None,
        }
    }
}

impl From<Spec> for IngressSpec {
    fn from(spec: Spec) -> Self {
        Self {
            default_backend: spec.backend.map(IngressBackend::from),
            ingress_class_name: spec.ingress_class_name,
            rules: spec
                .rules
                .map(|rules| rules.into_iter().map(IngressRule::from).collect()),
            tls: spec.tls,
        }
    }
}

impl From<Rule> for IngressRule {
    fn from(rule: Rule) -> Self {
        let paths = |http: Http| {
            http.paths
                .unwrap_or_default()
                .into_iter()
                .map(HTTPIngressPath::from)
                .collect()
        };
        Self {
            host: rule.host,
            http: rule
                .http
                .map(|http| HTTPIngressRuleValue { paths: paths(http) }),
        }
    }
}

impl From<Path> for HTTPIngressPath {
    fn from(path: Path) -> Self {
        Self {
            backend: path.backend.into(),
            path: path.path,
            path_type: path
                .path_type
                .unwrap_or_else(|| "ImplementationSpecific".to_owned()),
        }
    }
}

impl From<Backend> for IngressBackend {
    fn from(backend: Backend) -> Self {
        let service = backend.service_name.map(|name| IngressServiceBackend {
            name,
            port: backend.service_port.map(|port| match port {
                IntOrString::Int(number) => ServiceBackendPort {
                    name: None,
                    number: Some(number),
                },
                // A port's name has a letter in it, so digits in quotes are a number.
                IntOrString::String(text) => match text.parse() {
                    Ok(number) => ServiceBackendPort {
                        name: None,
                        number: Some(number),
                    },
                    Err(_) => ServiceBackendPort {
                        name: Some(text),
                        number: None,
                    },
                },
            }),
        });
        Self {
            resource: backend.resource,
            service,
        }
    }
}
