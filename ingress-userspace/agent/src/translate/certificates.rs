//! `spec.tls` → which Secret's certificate serves which host, and which hosts have TLS at all.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{IngressSpec, IngressTLS};

use super::{super::index::Index, claim::Claim};
use ingress_model::{Certificate, HostPattern, ObjectName, PrivateKey, Problem};

/// The only type of Secret that is read, so that the ClusterRole's watch can be narrowed to it.
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// The certificates, and all hosts that have a TLS entry, also where no certificate could be had.
///
/// Of the Ingresses that name a host the oldest whose Secret can be used wins it.
pub(super) fn collect(
    index: &Index,
    oldest_first: &[Claim<'_>],
    problems: &mut Vec<Problem>,
) -> (Vec<Certificate>, Vec<HostPattern>) {
    let mut tls_hosts = BTreeSet::new();
    let mut won = BTreeSet::new();
    let mut certificates = Vec::<Certificate>::new();
    let mut place = BTreeMap::<ObjectName, usize>::new();
    for claim in oldest_first {
        let Some(spec) = &claim.item.object.spec else {
            continue;
        };
        for (number, entry) in spec.tls.iter().flatten().enumerate() {
            let hosts = hosts(claim, spec, entry, number, problems);
            tls_hosts.extend(hosts.iter().cloned());
            let Some(secret) = entry.secret_name.as_ref().filter(|name| !name.is_empty()) else {
                continue;
            };
            // Its own namespace only: a name is never looked up elsewhere.
            let secret = ObjectName::new(claim.name.namespace.clone(), secret.clone());
            let certificate = match certificate(index, &secret) {
                Ok(certificate) => certificate,
                Err(message) => {
                    let field = format!("spec.tls[{number}].secretName");
                    problems.push(
                        claim
                            .subject()
                            .warning(field, format!("{message}; the default certificate is used")),
                    );
                    continue;
                }
            };
            let hosts: Vec<_> = hosts
                .into_iter()
                .filter(|host| won.insert(host.clone()))
                .collect();
            let at = *place.entry(secret).or_insert_with(|| {
                certificates.push(certificate);
                certificates.len() - 1
            });
            if let Some(certificate) = certificates.get_mut(at) {
                certificate.hosts.extend(hosts);
            }
        }
    }
    certificates.retain(|certificate| !certificate.hosts.is_empty());
    (certificates, tls_hosts.into_iter().collect())
}

/// The entry's hosts; an entry without any is for those of the Ingress's rules.
fn hosts(
    claim: &Claim<'_>,
    spec: &IngressSpec,
    entry: &IngressTLS,
    number: usize,
    problems: &mut Vec<Problem>,
) -> BTreeSet<HostPattern> {
    let named = entry.hosts.as_deref().unwrap_or_default();
    if named.is_empty() {
        let rules = spec.rules.iter().flatten();
        let mut hosts: BTreeSet<_> = rules
            .filter_map(|rule| rule.host.as_deref().unwrap_or_default().parse().ok())
            .collect();
        if hosts.is_empty() {
            hosts.insert(HostPattern::Any);
        }
        return hosts;
    }
    let mut hosts = BTreeSet::new();
    for (at, host) in named.iter().enumerate() {
        match host.parse() {
            Ok(host) => {
                hosts.insert(host);
            }
            Err(error) => {
                let field = format!("spec.tls[{number}].hosts[{at}]");
                problems.push(claim.subject().error(field, format!("{error}; ignored")));
            }
        }
    }
    hosts
}

fn certificate(index: &Index, name: &ObjectName) -> Result<Certificate, String> {
    let Some(item) = index.objects.secrets.find(name) else {
        return Err(format!(
            "Secret {name} of type {SECRET_TYPE} does not exist"
        ));
    };
    let type_ = item.object.type_.as_deref().unwrap_or("Opaque");
    if type_ != SECRET_TYPE {
        return Err(format!(
            "Secret {name} is of type {type_}, not {SECRET_TYPE}"
        ));
    }
    let part = |key: &str| {
        let bytes = item
            .object
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|bytes| bytes.0.clone());
        bytes
            .filter(|bytes| !bytes.is_empty())
            .ok_or_else(|| format!("Secret {name} has no {key}"))
    };
    Ok(Certificate {
        secret: name.clone(),
        hosts: Vec::new(),
        chain_pem: part("tls.crt")?,
        key: PrivateKey::from_pem(part("tls.key")?),
    })
}
