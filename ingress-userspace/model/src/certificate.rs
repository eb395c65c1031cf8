//! A certificate chain and its key, from a Secret.

use std::fmt;

use zeroize::Zeroizing;

use super::ObjectName;

/// A private key in PEM; `Debug` prints `[redacted]`. Overwritten with zeros when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Wraps the bytes of `tls.key`.
    pub fn from_pem(pem: Vec<u8>) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The PEM bytes, for the TLS stack only.
    pub fn expose_pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A certificate that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret it came from.
    pub secret: ObjectName,
    /// `tls.crt`: the chain in PEM, leaf first.
    pub chain_pem: Vec<u8>,
    /// `tls.key`.
    pub key: PrivateKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_given_to_the_tls_stack_and_never_printed() {
        let key = PrivateKey::from_pem(b"secret".to_vec());
        assert_eq!(key.expose_pem(), b"secret");
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
