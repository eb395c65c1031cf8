//! Compiles the certificates of a snapshot into what an SNI name is looked up in.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::sign::CertifiedKey;

use super::{certificate::Loaded, provider::provider};
use ingress_model::{Certificate, HostMap, HostPattern, ObjectName, Problem, Snapshot, Subject};

/// The certificates in force, by host.
#[derive(Debug, Default)]
pub struct Certificates {
    hosts: HostMap<Arc<CertifiedKey>>,
    secrets: BTreeMap<ObjectName, Arc<Loaded>>,
}

impl Certificates {
    /// Reads every certificate of `snapshot`; a Secret with unusable new content keeps its
    /// certificate from `previous`. A bad Secret affects no other.
    ///
    /// A host is served only by a certificate that names it: the default one serves the others, as
    /// in ingress-nginx.
    pub fn compile(snapshot: &Snapshot, previous: Option<&Self>) -> (Self, Vec<Problem>) {
        let mut certificates = Self::default();
        let mut problems = Vec::new();
        let provider = provider();
        for certificate in &snapshot.certificates {
            let before = previous.and_then(|previous| previous.secrets.get(&certificate.secret));
            let unchanged = before.filter(|before| before.is_from(certificate)).cloned();
            let loaded = match unchanged
                .map_or_else(|| Loaded::read(certificate, &provider).map(Arc::new), Ok)
            {
                Ok(loaded) => loaded,
                Err(error) => {
                    let served = if before.is_some() {
                        "its last good content"
                    } else {
                        "the default certificate"
                    };
                    let message = format!("{error}; {served} is served");
                    problems.push(subject(certificate).error("data", message));
                    match before {
                        Some(before) => Arc::clone(before),
                        None => continue,
                    }
                }
            };
            certificates.insert(certificate, &loaded, &mut problems);
            certificates
                .secrets
                .insert(certificate.secret.clone(), loaded);
        }
        (certificates, problems)
    }

    /// The certificate for `name`, in lower case, without a trailing dot.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.hosts.find_named(name)
    }

    /// When each Secret's certificate expires, in seconds since the Unix epoch.
    pub fn expiries(&self) -> impl Iterator<Item = (&ObjectName, i64)> {
        self.secrets
            .iter()
            .map(|(secret, loaded)| (secret, loaded.not_after))
    }

    fn insert(&mut self, certificate: &Certificate, loaded: &Loaded, problems: &mut Vec<Problem>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if loaded.not_after < i64::try_from(now).unwrap_or(i64::MAX) {
            problems.push(subject(certificate).warning("data", "the certificate has expired"));
        }
        for host in &certificate.hosts {
            if *host == HostPattern::Any {
                loaded
                    .names
                    .iter()
                    .for_each(|name| self.offer(name, &loaded.key));
            } else if loaded.covers(host) {
                self.offer(host, &loaded.key);
            } else {
                let message = format!(
                    "the certificate does not name {host}; the default certificate is served"
                );
                problems.push(subject(certificate).warning("data", message));
            }
        }
    }

    /// The first to claim a host, from the oldest Ingress, keeps it.
    fn offer(&mut self, host: &HostPattern, key: &Arc<CertifiedKey>) {
        self.hosts.get_or_insert_with(host, || Arc::clone(key));
    }
}

fn subject(certificate: &Certificate) -> Subject {
    Subject::object("Secret", &certificate.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingress_model::{PrivateKey, Severity};

    fn pem(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn secret(name: &str, hosts: &[&str], (chain, key): (String, String)) -> Certificate {
        Certificate {
            secret: ObjectName::new("shop", name),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            chain_pem: chain.into_bytes(),
            key: PrivateKey::from_pem(key.into_bytes()),
        }
    }

    fn compile(
        certificates: Vec<Certificate>,
        previous: Option<&Certificates>,
    ) -> (Certificates, Vec<Problem>) {
        Certificates::compile(
            &Snapshot {
                certificates,
                ..Snapshot::default()
            },
            previous,
        )
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_of_one_label() {
        let (found, problems) = compile(
            vec![
                secret("wide", &["*.example.com"], pem(&["*.example.com"])),
                secret("own", &["a.example.com"], pem(&["a.example.com"])),
            ],
            None,
        );
        assert_eq!(problems, []);
        let own = found.find("a.example.com").unwrap();
        let wide = found.find("b.example.com").unwrap();
        assert!(!Arc::ptr_eq(own, wide));
        for name in ["example.com", "a.b.example.com", ".example.com"] {
            assert!(found.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_bad_secret_keeps_its_last_good_content_and_harms_no_other() {
        let good = pem(&["a.example.com"]);
        let (first, _) = compile(vec![secret("a", &["a.example.com"], good.clone())], None);
        let other = secret("b", &["b.example.com"], pem(&["b.example.com"]));
        for bad in [
            (good.0.clone(), pem(&["a.example.com"]).1),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(),
                good.1.clone(),
            ),
            (String::new(), good.1.clone()),
            (good.0.clone(), String::new()),
        ] {
            let (next, problems) = compile(
                vec![secret("a", &["a.example.com"], bad), other.clone()],
                Some(&first),
            );
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].severity, Severity::Error);
            assert!(Arc::ptr_eq(
                next.find("a.example.com").unwrap(),
                first.find("a.example.com").unwrap()
            ));
            assert!(next.find("b.example.com").is_some());
        }
    }

    #[test]
    fn a_certificate_serves_only_hosts_that_it_names() {
        let (found, problems) = compile(
            vec![secret(
                "a",
                &["a.example.com", "b.example.com"],
                pem(&["a.example.com"]),
            )],
            None,
        );
        assert!(found.find("a.example.com").is_some() && found.find("b.example.com").is_none());
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_certificate_without_alternative_names_is_known_by_its_common_name() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "kube-book.com");
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let pem = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        let (found, problems) = compile(vec![secret("book", &["kube-book.com"], pem)], None);
        assert!(
            found.find("kube-book.com").is_some(),
            "an expired certificate is still served"
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains("expired"));
    }

    #[test]
    fn debug_shows_no_key() {
        let (chain, key) = pem(&["a.example.com"]);
        let bytes = format!("{:?}", key.as_bytes());
        let (found, _) = compile(vec![secret("a", &["a.example.com"], (chain, key))], None);
        let debug = format!("{found:?}");
        assert!(!debug.contains(bytes.trim_matches(['[', ']'])), "{debug}");
    }

    #[test]
    fn unchanged_secrets_are_not_read_again() {
        let same = secret("a", &["a.example.com"], pem(&["a.example.com"]));
        let (first, _) = compile(vec![same.clone()], None);
        let (second, _) = compile(vec![same], Some(&first));
        assert!(Arc::ptr_eq(
            first.find("a.example.com").unwrap(),
            second.find("a.example.com").unwrap()
        ));
    }
}
