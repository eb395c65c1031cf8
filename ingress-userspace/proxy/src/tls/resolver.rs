//! Answers rustls: which certificate for this handshake.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::PrivateKeyDer;

use super::{certificates::Served, error::TlsError, provider::provider};

/// Serves the latest certificates; a handshake takes no lock.
#[derive(Debug)]
pub struct Resolver {
    /// Written on each update, read by every handshake.
    current: ArcSwap<Served>,
    /// Self-signed; for names that no certificate serves, and for clients without SNI.
    fallback: Arc<CertifiedKey>,
}

impl Resolver {
    /// Creates the default certificate; serves no other yet.
    ///
    /// # Errors
    /// The key cannot be generated.
    pub fn new() -> Result<Arc<Self>, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["forebay.invalid".to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Forebay default certificate");
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let fallback = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
        Ok(Arc::new(Self {
            current: ArcSwap::default(),
            fallback,
        }))
    }

    /// Serves `certificates` in all handshakes from now on.
    pub(crate) fn publish(&self, certificates: Arc<Served>) {
        self.current.store(certificates);
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let found = self.current.load().find(name).cloned();
        Some(found.unwrap_or_else(|| Arc::clone(&self.fallback)))
    }
}
