//! The objects of a site, as JSON.

use std::net::SocketAddr;

use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};

/// Where all objects live.
pub(super) const NAMESPACE: &str = "converge";

/// Endpoints of a Service.
const ENDPOINTS: usize = 50;

/// Ingresses for every Service and Secret.
pub(super) const SHARE: usize = 10;

/// The host of an Ingress.
pub(super) fn host(number: usize) -> String {
    format!("h{number}.bench.example")
}

/// An Ingress in its `version`, which its only path says.
pub(super) fn ingress(number: usize, services: usize, version: usize) -> Value {
    let service = number % services;
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": format!("i{number}"), "namespace": NAMESPACE,
            "labels": {"edited": (service == 0).to_string()},
            "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
        },
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [host(number)], "secretName": format!("t{service}")}],
            "rules": [{"host": host(number), "http": {"paths": [{
                "path": format!("/v{version}"), "pathType": "Prefix",
                "backend": {"service": {"name": format!("s{service}"), "port": {"number": 80}}},
            }]}}],
        },
    })
}

/// A Service.
pub(super) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": NAMESPACE},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
    })
}

/// The endpoints of a Service: those of the first one are pods that answer, the others nobody's.
pub(super) fn slice(number: usize, pod: SocketAddr) -> Value {
    let address = |at: usize| format!("198.19.{}.{}", number % 250, at + 1);
    let (addresses, port): (Vec<String>, u16) = if number == 0 {
        (vec![pod.ip().to_string()], pod.port())
    } else {
        ((0..ENDPOINTS).map(address).collect(), 8080)
    };
    let endpoints: Vec<Value> = addresses
        .into_iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("e{number}"), "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": format!("s{number}"),
                "edited": (number == 0).to_string(),
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A Secret whose certificate names every host.
pub(super) fn secret(number: usize) -> Value {
    let made = generate_simple_self_signed(vec!["*.bench.example".to_owned()]);
    let (chain, key) = made.map_or_else(
        |_| Default::default(),
        |made| (made.cert.pem(), made.signing_key.serialize_pem()),
    );
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": format!("t{number}"), "namespace": NAMESPACE},
        "stringData": {"tls.crt": chain, "tls.key": key},
    })
}

/// An object that Forebay does not read, in its `version`.
pub(super) fn unread(version: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "unread", "namespace": NAMESPACE},
        "data": {"version": version.to_string()},
    })
}
