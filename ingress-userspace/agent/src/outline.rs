//! What can be read of an Ingress that cannot be read: enough to answer 503 where it may have been to
//! protect something.

use std::sync::Arc;

use k8s_openapi::{
    api::networking::v1::{
        HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressSpec,
        IngressTLS,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The annotation that named the class before there was a field for it.
pub(super) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// An Ingress as far as it can be read, of any version of the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outline {
    /// Without backends. A path, or the host of a rule, that cannot be read is left out.
    pub(super) ingress: Arc<Ingress>,
    /// Some path of a host cannot be read. It may be any: no rule of ours stands for it, since that would
    /// take from other tenants of the host what was theirs.
    pub(super) hides_paths: bool,
    /// Nobody can say of which class it is.
    pub(super) hides_class: bool,
}

impl Outline {
    /// Reads what can be read; `None` of what is no object at all.
    pub(super) fn read(ingress: &Value) -> Option<Self> {
        let ingress = ingress.as_object()?;
        let none = Map::new();
        let part = |name: &str| ingress.get(name).and_then(Value::as_object);
        let (metadata, spec) = (part("metadata"), part("spec").unwrap_or(&none));
        let (metadata, hides_annotation) = read_metadata(metadata.unwrap_or(&none));
        let class = spec
            .get("ingressClassName")
            .filter(|class| !class.is_null());
        let name = class.and_then(Value::as_str);
        let backend = ["defaultBackend", "backend"].map(|field| spec.get(field));
        let backend = backend.into_iter().flatten().find(|it| !it.is_null());
        let (mut rules, mut hides_paths) = (Vec::new(), false);
        for (rule, is_whole) in elements(spec.get("rules")).filter_map(rule) {
            rules.push(rule);
            hides_paths |= !is_whole;
        }
        let tls = elements(spec.get("tls")).filter_map(|entry| IngressTLS::deserialize(entry).ok());
        let has_class = name.is_some_and(|name| !name.is_empty());
        Some(Self {
            hides_class: class.is_some() && name.is_none() || !has_class && hides_annotation,
            hides_paths,
            ingress: Arc::new(Ingress {
                metadata,
                spec: Some(IngressSpec {
                    default_backend: backend.map(|_| IngressBackend::default()),
                    ingress_class_name: name.map(str::to_owned),
                    rules: Some(rules),
                    tls: Some(tls.collect()),
                }),
                status: None,
            }),
        })
    }
}

fn elements(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// The metadata, and whether the annotation that names a class is there and cannot be read.
fn read_metadata(metadata: &Map<String, Value>) -> (ObjectMeta, bool) {
    let text = |field: &str| metadata.get(field)?.as_str().map(str::to_owned);
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    let annotations = annotations.into_iter().flatten();
    let class = annotations
        .clone()
        .find(|(key, _)| *key == CLASS_ANNOTATION);
    let annotations =
        annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let created = metadata.get("creationTimestamp");
    let created = created.filter(|created| !created.is_null());
    // Of one that nobody can tell the age of, all others are older.
    let created = created.map(|it| Time::deserialize(it).unwrap_or(Time(Timestamp::MAX)));
    let metadata = ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        creation_timestamp: created,
        annotations: Some(annotations.collect()),
        ..ObjectMeta::default()
    };
    (metadata, class.is_some_and(|(_, class)| !class.is_string()))
}

/// A rule of a host that can be read, and whether all of its paths can.
fn rule(rule: &Value) -> Option<(IngressRule, bool)> {
    let host = match rule.get("host") {
        None | Some(Value::Null) => None,
        Some(host) => Some(host.as_str()?.to_owned()),
    };
    let http = rule.as_object()?.get("http").filter(|http| !http.is_null());
    let paths = http.map(|http| match http.get("paths") {
        None | Some(Value::Null) if http.is_object() => Vec::new(),
        Some(Value::Array(paths)) => paths.iter().map(path).collect(),
        _ => vec![None],
    });
    let is_whole = paths.iter().flatten().all(Option::is_some);
    let http = paths.map(|paths| HTTPIngressRuleValue {
        paths: paths.into_iter().flatten().collect(),
    });
    Some((IngressRule { host, http }, is_whole))
}

/// A path as wide as it may be; `None` if nobody can tell which it is.
fn path(path: &Value) -> Option<HTTPIngressPath> {
    let path = path.as_object()?;
    let text = match path.get("path") {
        None | Some(Value::Null) => "/",
        Some(text) => text.as_str()?,
    };
    let kind = match path.get("pathType") {
        None | Some(Value::Null) => "ImplementationSpecific",
        // One that is not known is wider than `Exact` at worst.
        Some(kind) => kind
            .as_str()
            .filter(|kind| ["Exact", "Prefix", "ImplementationSpecific"].contains(kind))
            .unwrap_or("Prefix"),
    };
    Some(HTTPIngressPath {
        backend: IngressBackend::default(),
        path: Some(if text.is_empty() { "/" } else { text }.to_owned()),
        path_type: kind.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outline(spec: Value) -> Outline {
        let metadata = json!({"name": "web", "annotations": {"a": 1, "b": "text"}});
        Outline::read(&json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn hosts_and_paths_are_read_whatever_is_wrong_with_the_rest() {
        let all = outline(json!({
            "rules": [
                {"host": "a.test", "http": {"paths": [
                    {"path": "/a", "pathType": "Exact", "backend": {"service": {"port": {"number": "x"}}}},
                    {"path": "/b", "pathType": 7},
                    {"path": ["/c"]},
                    "/d",
                ]}},
                {"host": "b.test"},
                {"host": "c.test", "http": {"paths": "/e"}},
                {"host": "d.test", "http": []},
                {"host": 7, "http": {"paths": [{"path": "/f"}]}},
                {"http": {"paths": [{"path": "/g"}]}},
                "e.test",
            ],
            "tls": [7, {"hosts": ["a.test"], "secretName": "s"}],
            "backend": {"serviceName": "s"},
        }));
        let Ingress { metadata, spec, .. } = (*all.ingress).clone();
        let spec = spec.unwrap();
        let mut paths = Vec::new();
        for rule in spec.rules.unwrap() {
            let host = rule.host.unwrap_or_default();
            match rule.http {
                None => paths.push(host),
                Some(http) => paths.extend(
                    http.paths
                        .into_iter()
                        .map(|path| format!("{host} {} {}", path.path_type, path.path.unwrap())),
                ),
            }
        }
        assert_eq!(
            paths,
            [
                "a.test Exact /a",
                "a.test Prefix /b",
                "b.test",
                " ImplementationSpecific /g",
            ]
        );
        assert!(all.hides_paths);
        assert_eq!(spec.tls.unwrap().len(), 1);
        assert!(spec.default_backend.is_some());
        assert_eq!(metadata.annotations.unwrap().len(), 1);
        assert_eq!(metadata.creation_timestamp, None);
        for odd in [json!(7), json!([]), json!({"rules": {}}), Value::Null] {
            assert_eq!(
                outline(odd).ingress.spec.clone().unwrap().rules.unwrap(),
                []
            );
        }
        assert_eq!(Outline::read(&json!([])), None);
    }

    #[test]
    fn a_path_that_cannot_be_read_may_be_any() {
        for (http, hides) in [
            (Value::Null, false),
            (json!({}), false),
            (json!({"paths": null}), false),
            (
                json!({"paths": [{}, {"path": ""}, {"path": "/a", "pathType": 7}]}),
                false,
            ),
            (json!({"paths": [{"path": ["/a"]}]}), true),
            (json!({"paths": ["/a"]}), true),
            (json!({"paths": "/a"}), true),
            (json!(["/a"]), true),
        ] {
            let found = outline(json!({"rules": [{"host": "a.test", "http": http}]}));
            assert_eq!(found.hides_paths, hides, "{http}");
        }
    }

    #[test]
    fn a_class_that_cannot_be_read_is_nobodys() {
        for (class, hides) in [
            (Value::Null, false),
            (json!(""), false),
            (json!("nginx"), false),
            (json!(7), true),
        ] {
            let found = outline(json!({"ingressClassName": class}));
            assert_eq!(found.hides_class, hides, "{class}");
            let annotated = json!({"annotations": {CLASS_ANNOTATION: 7}});
            let spec = json!({"ingressClassName": class});
            let found = Outline::read(&json!({"metadata": annotated, "spec": spec})).unwrap();
            assert_eq!(found.hides_class, class != json!("nginx"), "{class}");
        }
    }

    #[test]
    fn of_unknown_age_it_is_the_youngest() {
        for (created, seconds) in [
            (json!("2026-01-01T00:00:00Z"), 1_767_225_600),
            (json!("never"), Timestamp::MAX.as_second()),
            (json!(7), Timestamp::MAX.as_second()),
        ] {
            let metadata = json!({"creationTimestamp": created});
            let found = Outline::read(&json!({"metadata": metadata})).unwrap();
            let found = found.ingress.metadata.creation_timestamp.clone().unwrap();
            assert_eq!(found.0.as_second(), seconds, "{created}");
        }
    }
}
