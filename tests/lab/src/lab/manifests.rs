//! The manifests that the lab's nodes serve: two hosts, one of them with TLS, and the pods.
//!
//! | host and path | Service |
//! |---|---|
//! | [`PLAIN_HOST`] `/` | `s1` |
//! | [`PLAIN_HOST`] `/cart` | `s2` |
//! | [`TLS_HOST`] `/` | `s1` |
//! | [`TLS_HOST`] `/account` | `s2`, as `/` |

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};

use super::Lab;

/// Answers over HTTP.
pub const PLAIN_HOST: &str = "shop.example.com";
/// Answers over HTTPS; HTTP is sent there.
pub const TLS_HOST: &str = "secure.example.com";

impl Lab {
    /// Writes the Ingresses, Services, EndpointSlices and the Secret into `folder`, and the
    /// certificate that signs the Secret's into `ca.crt` beside them.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write_manifests(&self, folder: &Path) -> Result<()> {
        let pods: Vec<_> = (self.nodes.iter())
            .flat_map(|node| &node.pods)
            .map(|pod| (pod.service.as_str(), pod.origin.pod(), pod.origin.address()))
            .collect();
        write_manifests(folder, &pods)
    }
}

/// Writes the manifests for pods given by Service, name and address.
///
/// # Errors
/// The folder cannot be written to.
pub fn write_manifests(folder: &Path, pods: &[(&str, &str, SocketAddr)]) -> Result<()> {
    write_services(folder, pods)?;
    let certified = rcgen::generate_simple_self_signed([TLS_HOST.to_owned()])?;
    let secret = secret_yaml(
        "secure-tls",
        &certified.cert.pem(),
        &certified.signing_key.serialize_pem(),
    );
    for (name, text) in [
        ("ingresses.yaml", INGRESSES),
        ("secret.yaml", &secret),
        ("ca.crt", &certified.cert.pem()),
    ] {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// Writes `services.yaml`: the Services `s1` and `s2` with an EndpointSlice a pod, given by
/// Service, name and address.
///
/// # Errors
/// The folder cannot be written to.
pub fn write_services(folder: &Path, pods: &[(&str, &str, SocketAddr)]) -> Result<()> {
    let mut services = String::new();
    for service in ["s1", "s2"] {
        service_yaml(
            &mut services,
            service,
            pods.iter().filter(|(of, ..)| *of == service),
        )?;
    }
    fs::write(folder.join("services.yaml"), services).context("write services.yaml")
}

const INGRESSES: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: default}
spec:
  ingressClassName: forebay
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: s1, port: {number: 80}}}}
      - {path: /cart, pathType: Prefix, backend: {service: {name: s2, port: {name: http}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secure, namespace: default}
spec:
  ingressClassName: forebay
  tls:
  - {hosts: [secure.example.com], secretName: secure-tls}
  rules:
  - host: secure.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: s1, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: account
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /}
spec:
  ingressClassName: forebay
  tls:
  - {hosts: [secure.example.com], secretName: secure-tls}
  rules:
  - host: secure.example.com
    http:
      paths:
      - {path: /account, pathType: ImplementationSpecific, backend: {service: {name: s2, port: {number: 80}}}}
";

fn service_yaml<'a>(
    text: &mut String,
    service: &str,
    pods: impl Iterator<Item = &'a (&'a str, &'a str, SocketAddr)>,
) -> Result<()> {
    let mut slices = String::new();
    for (_, pod, address) in pods {
        write!(
            slices,
            "\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {pod}, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, protocol: TCP, port: {}}}]
endpoints:
- addresses: [{}]
  conditions: {{ready: true}}
  targetRef: {{kind: Pod, name: {pod}, namespace: default}}
",
            address.port(),
            address.ip()
        )?;
    }
    write!(
        text,
        "\
---
apiVersion: v1
kind: Service
metadata: {{name: {service}, namespace: default}}
spec:
  ports: [{{name: http, protocol: TCP, port: 80, targetPort: http}}]
{slices}"
    )?;
    Ok(())
}

/// A Secret of type `kubernetes.io/tls` in the namespace `default`, as `kubectl create secret tls`
/// prints it.
pub fn secret_yaml(name: &str, certificate_pem: &str, key_pem: &str) -> String {
    let (certificate, key) = (
        base64(certificate_pem.as_bytes()),
        base64(key_pem.as_bytes()),
    );
    format!(
        "\
apiVersion: v1
data:
  tls.crt: {certificate}
  tls.key: {key}
kind: Secret
metadata:
  name: {name}
  namespace: default
type: kubernetes.io/tls
"
    )
}

/// Standard base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0, |group, &byte| group << 8 | usize::from(byte));
        for position in 0..4 {
            let digit = ALPHABET[group >> (18 - 6 * position) & 63];
            text.push(if position <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 4648 section 10.
    #[test]
    fn base64_pads_to_groups_of_four() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded, "{plain:?}");
        }
    }
}
