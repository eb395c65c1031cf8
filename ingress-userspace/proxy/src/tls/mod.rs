//! Certificates by SNI, and the one TLS policy of the listeners.
//!
//! `certificate` reads one Secret → `certificates` follows the updates → `resolver` serves them,
//! hot-swapped. `stream` is a client's connection.

mod certificate;
mod certificates;
mod resolver;

mod stream;

mod error;
mod provider;

use std::sync::Arc;

use rustls::{
    crypto::aws_lc_rs,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use self::provider::provider;
pub(crate) use certificates::Certificates;
pub use error::TlsError;
pub use resolver::Resolver;
// What the workers accept connections with; they name no TLS library.
pub use rustls::ServerConfig;
pub(crate) use stream::TlsStream;

/// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, certificates from `resolver`, no client certificates.
///
/// Sessions resume by stateless tickets only: workers share just the ticket keys, which rotate
/// automatically. Early data is off (see RFC 8470).
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
