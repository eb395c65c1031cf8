//! Which certificate serves which host: adopted from updates, published to the handshakes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rustls::sign::CertifiedKey;

use super::{certificate::Loaded, provider::provider};
use ingress_model::{HostMap, HostPattern, ObjectName, Update};

/// The certificates in force, by host; that of [`HostPattern::Any`] is the default, which a host
/// with `None` has whatever is above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served(HostMap<Option<Arc<CertifiedKey>>>);

impl Served {
    /// The certificate for a handshake that names `host`.
    pub(super) fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let own = self.0.find(host)?.as_ref();
        own.or_else(|| self.0.get(&HostPattern::Any)?.as_ref())
    }
}

/// What updates have said of certificates.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    secrets: BTreeMap<ObjectName, Loaded>,
    /// The Secret of each host that has one.
    wanted: BTreeMap<HostPattern, ObjectName>,
    /// Hosts that never have the certificate of the wildcard above.
    alone: BTreeSet<HostPattern>,
    served: Served,
}

impl Certificates {
    /// Reads the certificates of an update, and notes which host has which.
    ///
    /// The agent sends none that cannot be read; if one comes all the same, the last good one of
    /// its Secret stays.
    ///
    /// Gives whether handshakes have anything else to look up.
    pub(crate) fn apply(&mut self, update: &Update) -> bool {
        let is_whole = update.base.is_none();
        if update.certificates.is_empty() && update.hosts.is_empty() && !is_whole {
            return false;
        }
        let provider = provider();
        let mut changed = BTreeSet::new();
        if is_whole {
            let said: BTreeSet<_> = update.certificates.iter().map(|(name, _)| name).collect();
            self.secrets.retain(|name, _| said.contains(name));
            self.wanted.clear();
            self.alone.clear();
            self.served = Served::default();
        }
        for (name, certificate) in &update.certificates {
            match certificate
                .as_ref()
                .map(|found| Loaded::read(found, &provider))
            {
                None => drop(self.secrets.remove(name)),
                Some(Ok(loaded)) => drop(self.secrets.insert(name.clone(), loaded)),
                Some(Err(error)) => tracing::error!(secret = %name, %error, "certificate refused"),
            }
            changed.insert(name);
        }
        let mut hosts: BTreeSet<HostPattern> = BTreeSet::new();
        if !changed.is_empty() {
            let wanted = self.wanted.iter();
            let theirs = wanted.filter(|(_, name)| changed.contains(name));
            hosts.extend(theirs.map(|(host, _)| host.clone()));
        }
        for (host, rules) in &update.hosts {
            let policy = rules.as_ref().map(|rules| &rules.policy);
            let before = match policy.and_then(|policy| policy.certificate.clone()) {
                Some(name) => self.wanted.insert(host.clone(), name),
                None => self.wanted.remove(host),
            };
            let differs = match policy.is_some_and(|policy| policy.ignores_wildcard) {
                true => self.alone.insert(host.clone()),
                false => self.alone.remove(host),
            };
            if differs || before.as_ref() != self.wanted.get(host) {
                hosts.insert(host.clone());
            }
        }
        let differs = is_whole || !hosts.is_empty();
        for host in hosts {
            let loaded = self
                .wanted
                .get(&host)
                .and_then(|name| self.secrets.get(name));
            let key = loaded.map(|loaded| Arc::clone(&loaded.key));
            let is_said = key.is_some() || self.alone.contains(&host);
            self.served.0.set(&host, is_said.then_some(key));
        }
        differs
    }

    /// What handshakes look up. Costs little: it shares what has not changed.
    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::new(self.served.clone())
    }

    /// When each Secret's certificate expires, in seconds since the Unix epoch.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (&ObjectName, i64)> {
        self.secrets
            .iter()
            .map(|(secret, loaded)| (secret, loaded.not_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingress_model::{Certificate, HostPolicy, HostRules, PrivateKey};

    /// A Secret whose certificate names `name`, and the bytes of that certificate.
    fn secret(name: &str) -> (ObjectName, Arc<Certificate>) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let secret = ObjectName::new("shop", name);
        let certificate = Certificate {
            secret: secret.clone(),
            chain_pem: made.cert.pem().into_bytes(),
            key: PrivateKey::from_pem(made.signing_key.serialize_pem().into_bytes()),
        };
        (secret, Arc::new(certificate))
    }

    fn host(host: &str, certificate: Option<&ObjectName>) -> (HostPattern, Option<Arc<HostRules>>) {
        let rules = HostRules {
            policy: HostPolicy {
                tls: true,
                certificate: certificate.cloned(),
                ignores_wildcard: false,
            },
            ..HostRules::default()
        };
        (host.parse().unwrap(), Some(Arc::new(rules)))
    }

    /// Which of `secrets` serves `name`.
    fn of<'s>(certificates: &Certificates, name: &str, secrets: &[&'s str]) -> Option<&'s str> {
        let served = certificates.served();
        let key = served.find(name)?;
        let is = |secret: &&&str| {
            let loaded = certificates.secrets.get(&ObjectName::new("shop", **secret));
            loaded.is_some_and(|loaded| Arc::ptr_eq(&loaded.key, key))
        };
        secrets.iter().find(is).copied()
    }

    #[test]
    fn a_host_has_its_own_certificate_else_that_of_its_wildcard_else_the_default() {
        let all = ["a.test", "wild.test", "default.test"];
        let [a, wild, default] = all.map(secret);
        let mut certificates = Certificates::default();
        certificates.apply(&Update {
            epoch: 1,
            hosts: vec![
                host("a.test", Some(&a.0)),
                host("b.test", None),
                host("*.test", Some(&wild.0)),
                host("", Some(&default.0)),
            ],
            certificates: [a, wild, default].map(|(name, of)| (name, Some(of))).into(),
            ..Update::default()
        });
        for (name, expected) in [
            ("a.test", "a.test"),
            ("b.test", "wild.test"),
            ("c.test", "wild.test"),
            ("a.b.test", "default.test"),
            ("", "default.test"),
        ] {
            assert_eq!(of(&certificates, name, &all), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_host_that_ignores_its_wildcard_has_the_default_until_it_has_its_own() {
        let all = ["a.test", "wild.test", "default.test"];
        let [a, wild, default] = all.map(secret);
        let mut certificates = Certificates::default();
        let mut alone = host("a.test", None);
        Arc::make_mut(alone.1.as_mut().unwrap())
            .policy
            .ignores_wildcard = true;
        let names = [&a, &wild, &default].map(|(name, _)| name.clone());
        certificates.apply(&Update {
            epoch: 1,
            hosts: vec![alone, host("*.test", Some(&names[1]))],
            certificates: [a, wild, default].map(|(name, of)| (name, Some(of))).into(),
            ..Update::default()
        });
        assert_eq!(of(&certificates, "a.test", &all), None);
        assert_eq!(of(&certificates, "b.test", &all), Some("wild.test"));
        for (epoch, now, expected) in [
            (2, host("", Some(&names[2])), "default.test"),
            (3, host("a.test", Some(&names[0])), "a.test"),
            (4, host("a.test", None), "wild.test"),
        ] {
            let differs = certificates.apply(&Update {
                epoch,
                base: Some(epoch - 1),
                hosts: vec![now],
                ..Update::default()
            });
            assert!(differs);
            assert_eq!(of(&certificates, "a.test", &all), Some(expected));
        }
    }

    #[test]
    fn a_change_reaches_the_hosts_that_have_the_secret_and_no_other() {
        let (name, first) = secret("a.test");
        let (_, second) = secret("a.test");
        let (other, unrelated) = secret("b.test");
        let mut certificates = Certificates::default();
        certificates.apply(&Update {
            epoch: 1,
            hosts: vec![host("a.test", Some(&name)), host("b.test", Some(&other))],
            certificates: vec![
                (name.clone(), Some(first)),
                (other.clone(), Some(unrelated)),
            ],
            ..Update::default()
        });
        let before = certificates.served();
        let step = |certificates: &mut Certificates, of| {
            certificates.apply(&Update {
                epoch: 2,
                base: Some(1),
                certificates: vec![(name.clone(), of)],
                ..Update::default()
            });
            certificates.served()
        };
        let after = step(&mut certificates, Some(second));
        let differs =
            |host: &str| !Arc::ptr_eq(before.find(host).unwrap(), after.find(host).unwrap());
        assert!(differs("a.test") && !differs("b.test"));
        // What cannot be read changes nothing.
        let nonsense = Certificate {
            secret: name.clone(),
            chain_pem: b"nonsense".to_vec(),
            key: PrivateKey::from_pem(Vec::new()),
        };
        let kept = step(&mut certificates, Some(Arc::new(nonsense)));
        assert!(Arc::ptr_eq(
            after.find("a.test").unwrap(),
            kept.find("a.test").unwrap()
        ));
        let gone = step(&mut certificates, None);
        assert!(gone.find("a.test").is_none() && gone.find("b.test").is_some());
    }

    #[test]
    fn a_whole_state_forgets_what_it_does_not_name() {
        let (name, certificate) = secret("a.test");
        let mut certificates = Certificates::default();
        certificates.apply(&Update {
            epoch: 1,
            hosts: vec![host("a.test", Some(&name))],
            certificates: vec![(name, Some(certificate))],
            ..Update::default()
        });
        assert!(certificates.served().find("a.test").is_some());
        certificates.apply(&Update::default());
        assert!(certificates.served().find("a.test").is_none());
        assert_eq!(certificates.expiries().count(), 0);
    }
}
