//! The TLS client of the loads: one version, one suite, one group, so that every proxy does the
//! same cryptography.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite::TLS13_AES_128_GCM_SHA256, kx_group::X25519},
    },
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Connects by TLS 1.3 to whoever holds one certificate; keeps the tickets it is given.
pub(super) struct Client {
    connector: TlsConnector,
}

impl Client {
    /// Trusts the certificate in that PEM file and no other.
    ///
    /// # Errors
    /// The file is not a certificate.
    pub(super) fn new(certificate: &Path, resume: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate)?)?;
        let provider = CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resume {
            config.resumption = rustls::client::Resumption::disabled();
        }
        Ok(Self {
            connector: Arc::new(config).into(),
        })
    }

    /// Shakes hands over a connection.
    ///
    /// # Errors
    /// The other side fails to, or shows another certificate.
    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(crate::HOST)?;
        Ok(self.connector.connect(name, stream).await?)
    }
}
