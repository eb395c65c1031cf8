//! Reads one certificate chain and its key from PEM.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::parse_x509_certificate;

use ingress_model::Certificate;

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

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
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
        let not_after = expiry(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.expose_pem())
            .map_err(|_| CertificateError::Key)?;
        let key =
            CertifiedKey::from_der(chain, key, provider).map_err(|_| CertificateError::Mismatch)?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }
}

fn expiry(leaf: &CertificateDer<'_>) -> Result<i64, CertificateError> {
    let (_, leaf) = parse_x509_certificate(leaf).map_err(|_| CertificateError::Leaf)?;
    Ok(leaf.validity().not_after.timestamp())
}
