//! Secrets → certificates that can be served, and which of them serves a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::core::v1::Secret;
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::{
    super::{
        index::{CERTIFICATE, CERTIFICATE_LIMIT, TOO_LARGE},
        kept::{Item, Unread},
    },
    claim::{Claim, Tls},
    named::{LIMIT, READS},
    room::CERTIFICATES,
};
use ingress_model::{Certificate, HostPattern, ObjectName, PrivateKey, Problem, Subject};

/// Why a Secret's content cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    /// There is no such Secret, or it may not be read.
    #[error("does not exist")]
    Absent,
    /// It may exist: nobody looks.
    #[error("is not of type kubernetes.io/tls, and Forebay already follows {LIMIT} such Secrets")]
    Unfollowed,
    /// It exists: nobody looks yet.
    #[error("is not read yet: Forebay already reads {READS} Secrets by name")]
    Waiting,
    /// It can be read.
    #[error("the certificates of its namespace have {CERTIFICATES} bytes together")]
    Crowded,
    /// It may exist: there is no answer yet.
    #[error("has not been read yet")]
    Unread,
    /// It exists and cannot be read.
    #[error("{0}")]
    Unreadable(Box<str>),
    /// A part is missing.
    #[error("has no {0}")]
    Part(&'static str),
    #[error("{TOO_LARGE}")]
    TooLarge,
    #[error("tls.crt has no PEM certificate")]
    NoCertificate,
    #[error("tls.crt is not valid PEM")]
    ChainPem,
    #[error("tls.key has no PEM private key")]
    Key,
    #[error("the leaf in tls.crt is not an X.509 certificate")]
    Leaf,
    #[error("tls.key does not match tls.crt, or its key type is not supported")]
    Mismatch,
}

impl CertificateError {
    /// Whether it is about to be read.
    fn is_unread(&self) -> bool {
        matches!(self, Self::Unread | Self::Waiting)
    }
}

/// A certificate that can be served, and what it says about itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Readable {
    pub(super) certificate: Arc<Certificate>,
    /// Its DNS names; the common name where it has none.
    pub(super) names: BTreeSet<HostPattern>,
    /// End of its validity, in seconds since the Unix epoch.
    pub(super) not_after: i64,
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readable({})", self.certificate.secret)
    }
}

impl Readable {
    /// Reads and checks what a Secret holds, whatever its type: ingress-nginx takes any that has
    /// both parts.
    pub(super) fn read(name: &ObjectName, secret: &Secret) -> Result<Self, CertificateError> {
        let part = |key: &'static str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            let bytes = data.map(|bytes| bytes.0.as_slice());
            bytes
                .filter(|bytes| !bytes.is_empty())
                .ok_or(CertificateError::Part(key))
        };
        let [chain_pem, key_pem] = CERTIFICATE.map(part);
        let (chain_pem, key_pem) = (chain_pem?, key_pem?);
        if chain_pem.len() + key_pem.len() > CERTIFICATE_LIMIT {
            return Err(CertificateError::TooLarge);
        }
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::ChainPem)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (names, not_after) = describe(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| CertificateError::Key)?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|_| CertificateError::Mismatch)?;
        Ok(Self {
            certificate: Arc::new(Certificate {
                secret: name.clone(),
                chain_pem: chain_pem.to_vec(),
                key: PrivateKey::from_pem(key_pem.to_vec()),
            }),
            names,
            not_after,
        })
    }

    /// Whether a client that asks for `host` would take this certificate's names.
    pub(super) fn covers(&self, host: &HostPattern) -> bool {
        match host {
            HostPattern::Exact(_) => {
                let above = || host.wildcard_above();
                self.names.contains(host)
                    || above().is_some_and(|above| self.names.contains(&above))
            }
            HostPattern::Wildcard(_) => self.names.contains(host),
            HostPattern::Any => false,
        }
    }
}

fn describe(leaf: &CertificateDer<'_>) -> Result<(BTreeSet<HostPattern>, i64), CertificateError> {
    let (_, leaf) = parse_x509_certificate(leaf).map_err(|_| CertificateError::Leaf)?;
    let alternatives = leaf
        .subject_alternative_name()
        .map_err(|_| CertificateError::Leaf)?;
    let mut names: BTreeSet<HostPattern> = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => name.parse().ok(),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = leaf
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        names.extend(common.filter_map(|name| name.parse::<HostPattern>().ok()));
    }
    names.retain(|name| *name != HostPattern::Any);
    Ok((names, leaf.validity().not_after.timestamp()))
}

/// What is known of a Secret that somebody names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Which object it is; empty in a folder.
    uid: Box<str>,
    /// Its last good content.
    pub(super) good: Option<Readable>,
    /// What is wrong with it now.
    pub(super) error: Option<CertificateError>,
}

impl Known {
    /// Reads a Secret; one with unusable new content keeps its certificate from `before`, one that
    /// is gone does not, even if another one has its name.
    pub(super) fn read(
        name: &ObjectName,
        item: Option<&Item<Secret>>,
        before: Option<Self>,
    ) -> Self {
        let Some(item) = item else {
            return Self::without(CertificateError::Absent);
        };
        let uid = uid(item);
        let (good, error) = match Readable::read(name, &item.object) {
            Ok(good) => (Some(good), None),
            Err(error) => {
                let same = before.filter(|before| before.uid == uid);
                (same.and_then(|before| before.good), Some(error))
            }
        };
        Self { uid, good, error }
    }

    /// One that nothing was said of yet. One that was followed a moment ago has what it had.
    pub(super) fn unread(before: Option<Self>) -> Self {
        let error = Some(CertificateError::Unread);
        let known = before.unwrap_or_else(|| Self::without(CertificateError::Unread));
        Self { error, ..known }
    }

    /// One of which only the name is kept, until it was read by name. What `before` had stays, unless that
    /// was another object.
    pub(super) fn waiting(bare: &Item<Secret>, lacks_room: bool, before: Option<Self>) -> Self {
        let uid = uid(bare);
        let same = before.filter(|before| before.uid == uid);
        Self {
            uid,
            good: same.and_then(|before| before.good),
            error: Some(if lacks_room {
                CertificateError::Waiting
            } else {
                CertificateError::Unread
            }),
        }
    }

    /// One for which there is no room. What `before` had stays, unless that was another object.
    pub(super) fn crowded(self, before: Option<Self>) -> Self {
        let same = before.filter(|before| before.uid == self.uid);
        Self {
            good: same.and_then(|before| before.good),
            error: Some(CertificateError::Crowded),
            ..self
        }
    }

    /// Bytes of its certificate.
    pub(super) fn size(&self) -> usize {
        let certificate = self.good.as_ref().map(|good| &good.certificate);
        certificate.map_or(0, |it| it.chain_pem.len() + it.key.expose_pem().len())
    }

    /// Whether its present content is what is served.
    pub(super) fn is_served(&self) -> bool {
        self.error.is_none()
    }

    fn is_unread(&self) -> bool {
        self.error.as_ref().is_some_and(CertificateError::is_unread)
    }

    /// One that exists and cannot be read. What `before` had stays, unless that was another object.
    pub(super) fn unreadable(unread: &Unread, before: Option<Self>) -> Self {
        let uid: Box<str> = unread.uid.clone().unwrap_or_default();
        let same = before.filter(|before| before.uid == uid);
        Self {
            uid,
            good: same.and_then(|before| before.good),
            error: Some(CertificateError::Unreadable(unread.error.clone())),
        }
    }

    /// One that there was no room to follow.
    pub(super) fn unfollowed() -> Self {
        Self::without(CertificateError::Unfollowed)
    }

    fn without(error: CertificateError) -> Self {
        Self {
            uid: Box::default(),
            good: None,
            error: Some(error),
        }
    }

    /// What the owner of the Secret should know.
    pub(super) fn problems(&self, item: &Item<Secret>, name: &ObjectName) -> Vec<Problem> {
        let subject = Subject::object(&item.reference(name)).read_from(item.file.as_deref());
        let mut problems = Vec::new();
        if let Some(error) = &self.error {
            let served = if self.good.is_some() {
                "its last good content"
            } else {
                "the default certificate"
            };
            problems.push(subject.error("data", format!("{error}; {served} is served")));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let has_expired = |good: &Readable| good.not_after < i64::try_from(now).unwrap_or(i64::MAX);
        if self.good.as_ref().is_some_and(has_expired) {
            problems.push(subject.warning("data", "the certificate has expired"));
        }
        problems
    }
}

/// What TLS a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Whether it has any, with or without a usable Secret.
    pub(super) tls: bool,
    /// The Secret of its certificate.
    pub(super) secret: Option<ObjectName>,
    /// It is the one of before, until the one that is to follow was read.
    pub(super) is_held: bool,
}

/// What the Secrets of one Ingress are good for, so that each of its hosts is found in them without a
/// look at all: an Ingress may have ten thousand of both.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// The first Secret that has a certificate of that name, as a place in [`Tls::distinct`].
    by_name: BTreeMap<HostPattern, usize>,
    /// The first that was not read yet.
    unread: Option<usize>,
}

/// Those that were asked for, by Ingress. They hold as long as nothing else is known of any Secret.
pub(super) type Offers = BTreeMap<ObjectName, Offer>;

impl Offer {
    fn of<'k>(tls: &Tls, known: impl Fn(&ObjectName) -> Option<&'k Known>) -> Self {
        let mut offer = Self::default();
        for (place, entry) in tls.distinct().enumerate() {
            let Some(known) = entry.secret.as_ref().and_then(&known) else {
                continue;
            };
            if known.is_unread() {
                offer.unread.get_or_insert(place);
            }
            for name in known.good.iter().flat_map(|good| &good.names) {
                offer.by_name.entry(name.clone()).or_insert(place);
            }
        }
        offer
    }

    /// The first whose certificate [covers](Readable::covers) `host`.
    fn covering(&self, host: &HostPattern) -> Option<usize> {
        let above = host.wildcard_above();
        let names = std::iter::once(host).chain(&above);
        names
            .filter_map(|name| self.by_name.get(name))
            .min()
            .copied()
    }
}

/// Which object a Secret is: another one of its name has another.
fn uid(secret: &Item<Secret>) -> Box<str> {
    let uid = secret.object.metadata.uid.as_deref();
    uid.unwrap_or_default().into()
}

/// Which certificate serves `host`; `claims` are all that name it, the oldest first.
///
/// As in ingress-nginx, the oldest Ingress that has a TLS section and a rule for the host decides:
/// by the entry that lists the host, else by the first whose certificate names it. Younger ones
/// have a say only while its Secret cannot be used.
///
/// Stricter than ingress-nginx: only the namespace that had the host first has a say. Else anyone
/// could change the certificate of a host, and turn on its redirect, by a rule that is ignored.
///
/// While the deciding Secret was not read yet, the host keeps that of `before`.
pub(super) fn serve<'k>(
    host: &HostPattern,
    claims: &[&Claim],
    before: Option<&ObjectName>,
    known: impl Fn(&ObjectName) -> Option<&'k Known>,
    offers: &mut Offers,
    problems: &mut Vec<Problem>,
) -> Served {
    let mut served = Served::default();
    if *host == HostPattern::Any {
        // No name for a certificate, and no reason to send everybody to https.
        return served;
    }
    let names = |claim: &&&Claim| claim.content.hosts.contains_key(host);
    let Some(owner) = claims.iter().find(names) else {
        return served;
    };
    for claim in claims.iter().filter(names) {
        if claim.content.tls.is_empty() {
            continue;
        }
        let (theirs, own) = (&claim.source.name, &owner.source.name);
        if theirs.namespace != own.namespace {
            let message = format!(
                "host {host} belongs to Ingress {own}, which is older and in another namespace; ignored for it"
            );
            problems.push(claim.subject().warning("spec.tls", message));
            continue;
        }
        served.tls = true;
        let good = |name: &ObjectName| known(name).and_then(|known| known.good.as_ref());
        let tls = &claim.content.tls;
        let is_own = |before: &&ObjectName| before.namespace == own.namespace;
        let covers = |before: &&ObjectName| good(before).is_some_and(|good| good.covers(host));
        let kept = before.filter(is_own).filter(covers);
        let mut offered = || {
            let offer = match offers.get(theirs) {
                Some(offer) => offer,
                None => offers
                    .entry(theirs.clone())
                    .or_insert_with(|| Offer::of(tls, &known)),
            };
            // Of one that was not read yet the names may be those that decide.
            let unread = || offer.unread.filter(|_| kept.is_some());
            tls.distinct_at(offer.covering(host).or_else(unread)?)
        };
        let entry = tls.listing(host).or_else(&mut offered);
        let Some(entry) = entry.or_else(|| tls.for_all()) else {
            return served;
        };
        let Some(secret) = &entry.secret else {
            return served;
        };
        let message = match good(secret) {
            Some(good) if good.covers(host) => {
                served.secret = Some(secret.clone());
                return served;
            }
            Some(_) => format!(
                "the certificate of Secret {secret} does not name {host}; the default certificate is used"
            ),
            None => match known(secret).and_then(|known| known.error.as_ref()) {
                Some(error) => {
                    let held = kept.filter(|_| error.is_unread());
                    served.secret = held.cloned();
                    served.is_held = held.is_some();
                    let used = if served.is_held {
                        "the certificate that was served before stays"
                    } else {
                        "the default certificate is used"
                    };
                    format!("Secret {secret}: {error}; {used}")
                }
                None => return served,
            },
        };
        let field = format!("{}.secretName", entry.field);
        problems.push(claim.subject().warning(field, message));
        if served.is_held {
            return served;
        }
    }
    served
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use k8s_openapi::api::networking::v1::Ingress;

    use super::{super::claim::TlsEntry, *};

    #[test]
    fn each_secret_of_an_ingress_is_looked_at_once_however_many_hosts_it_has() {
        const MANY: usize = 500;
        let name = |number: usize| ObjectName::new("default", format!("s{number}"));
        let entry = |number| {
            let entry = TlsEntry {
                secret: Some(name(number)),
                field: String::new(),
            };
            (BTreeSet::new(), true, entry)
        };
        let hosts = (0..MANY).map(|number| format!("h{number}.test").parse().unwrap());
        let hosts: BTreeMap<HostPattern, _> = hosts.map(|host| (host, Vec::new())).collect();
        let item = Item {
            object: Arc::new(Ingress::default()),
            file: None,
        };
        let mut claim = Claim::empty(&ObjectName::new("default", "web"), &item);
        claim.content.hosts = hosts.clone().into();
        claim.content.tls = Tls::of((0..MANY).map(entry).collect());
        let absent = Known::without(CertificateError::Absent);
        let (looks, mut offers) = (Cell::new(0), Offers::new());
        let known = |_: &ObjectName| {
            looks.set(looks.get() + 1);
            Some(&absent)
        };
        for host in hosts.keys() {
            serve(host, &[&claim], None, known, &mut offers, &mut Vec::new());
        }
        assert!(looks.get() <= 5 * MANY, "{}", looks.get());
    }
}
