//! Certificates by SNI, and the one TLS policy of the listeners.
//!
//! `certificate` reads one Secret → `certificates` compiles a snapshot → `resolver` serves it,
//! hot-swapped.

mod certificate;
mod certificates;
mod resolver;

use std::sync::Arc;

pub use certificates::Certificates;
pub use resolver::Resolver;
// What the workers accept connections with; they name no TLS library.
pub use rustls::ServerConfig;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
pub use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// TLS cannot be set up at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The default certificate could not be made.
    #[error("make the default certificate")]
    Default(#[from] rcgen::Error),
    /// The default certificate's key is of no use to the TLS stack, or the policy is not.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// The cryptography that all of TLS uses; never the process-wide default, which a library could
/// set.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, certificates from `resolver`, no client certificates.
///
/// Sessions resume by tickets alone: stateless, so nothing is shared between workers but the
/// ticket keys, which rotate by themselves. Early data is off (RFC 8470 tells why).
///
/// # Errors
/// The random number generator fails.
pub fn server_config(resolver: Arc<Resolver>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
