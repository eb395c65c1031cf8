//! Why TLS cannot be set up.

/// TLS cannot be set up at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The default certificate could not be made.
    #[error("make the default certificate")]
    Default(#[from] rcgen::Error),
    /// The TLS stack rejects the default certificate's key or the policy.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
}
