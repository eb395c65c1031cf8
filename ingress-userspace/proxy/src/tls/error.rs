//! Why TLS cannot be set up.

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
