//! Forebay's manifests: an Ingress per host, two Services with one endpoint each, a certificate.

use std::{fmt::Write as _, net::SocketAddr};

use ingress_lab::lab::secret_yaml;

use super::Place;

/// The text of one file; `chain` and `key` are in PEM.
pub(in super::super) fn manifests(place: &Place<'_>, chain: &str, key: &str) -> String {
    let mut text = secret_yaml("bench", chain, key);
    service(&mut text, "pods", place.origin);
    service(&mut text, "echo", place.echo);
    for (number, host) in place.hosts.iter().enumerate() {
        ingress(&mut text, number, host);
    }
    text
}

/// The first host has the certificate and the WebSocket. Plain HTTP is served, too: other proxies
/// would not redirect it unasked.
fn ingress(text: &mut String, number: usize, host: &str) {
    let (tls, echo) = if number == 0 {
        (
            format!("  tls: [{{hosts: [{host}], secretName: bench}}]\n"),
            "{path: /ws, pathType: Prefix, backend: {service: {name: echo, port: {number: 80}}}}, ",
        )
    } else {
        (String::new(), "")
    };
    // Writing to memory cannot fail, here and below.
    let _ = write!(
        text,
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: bench-{number}
  namespace: default
  annotations: {{nginx.ingress.kubernetes.io/ssl-redirect: 'false'}}
spec:
{tls}  rules:
  - host: {host}
    http:
      paths: [{echo}{{path: /, pathType: Prefix, backend: {{service: {{name: pods, port: {{number: 80}}}}}}}}]
"
    );
}

fn service(text: &mut String, name: &str, address: SocketAddr) {
    let (ip, port) = (address.ip(), address.port());
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  ports: [{{name: http, port: 80, targetPort: {port}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints:
- {{addresses: [{ip}], conditions: {{ready: true}}}}
"
    );
}
