//! Reads one certificate chain and its key from PEM.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use ingress_model::{Certificate, HostPattern, PrivateKey};

/// Largest chain, in bytes of PEM: a Secret may be 1 MiB, a sensible chain is a few KiB.
const CHAIN_LIMIT: usize = 256 * 1024;

/// Why a Secret's content cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("tls.crt is larger than 256 KiB")]
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

/// A certificate that can be served, and what it says about itself.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What it was read from, to see whether a later snapshot has the same.
    source: (Vec<u8>, PrivateKey),
    pub(super) key: Arc<CertifiedKey>,
    /// Its DNS names; the common name where it has none.
    pub(super) names: Vec<HostPattern>,
    /// End of its validity, in seconds since the Unix epoch.
    pub(super) not_after: i64,
}

impl Loaded {
    /// Reads and checks what the Secret holds.
    pub(super) fn read(
        certificate: &Certificate,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        if certificate.chain_pem.len() > CHAIN_LIMIT {
            return Err(CertificateError::TooLarge);
        }
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&certificate.chain_pem)
                .collect::<Result<_, _>>()
                .map_err(|_| CertificateError::ChainPem)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (names, not_after) = describe(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.expose_pem())
            .map_err(|_| CertificateError::Key)?;
        let key =
            CertifiedKey::from_der(chain, key, provider).map_err(|_| CertificateError::Mismatch)?;
        let source = (certificate.chain_pem.clone(), certificate.key.clone());
        Ok(Self {
            source,
            key: Arc::new(key),
            names,
            not_after,
        })
    }

    /// Whether `certificate` holds the bytes that this one was read from.
    pub(super) fn is_from(&self, certificate: &Certificate) -> bool {
        self.source.0 == certificate.chain_pem && self.source.1 == certificate.key
    }

    /// Whether a client that asks for `host` would take this certificate's names.
    pub(super) fn covers(&self, host: &HostPattern) -> bool {
        match host {
            HostPattern::Exact(name) => self.names.iter().any(|own| own.matches(name)),
            HostPattern::Wildcard(_) => self.names.contains(host),
            HostPattern::Any => false,
        }
    }
}

fn describe(leaf: &CertificateDer<'_>) -> Result<(Vec<HostPattern>, i64), CertificateError> {
    let (_, leaf) = parse_x509_certificate(leaf).map_err(|_| CertificateError::Leaf)?;
    let alternatives = leaf
        .subject_alternative_name()
        .map_err(|_| CertificateError::Leaf)?;
    let mut names: Vec<HostPattern> = alternatives
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
