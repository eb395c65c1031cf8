//! The cryptography that all of TLS uses.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Never the process-wide default, which a library could set.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
