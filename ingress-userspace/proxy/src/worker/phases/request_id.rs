//! What identifies a request towards the endpoint, in error pages and in logs.

use super::sanitize::Sanitized;

/// The client's own identity for the request, or one made here.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// As the client gave it.
    Given(Box<[u8]>),
    /// 32 hexadecimal digits.
    Made([u8; 32]),
}

impl RequestId {
    pub(super) fn of(request: &Sanitized<'_>) -> Self {
        request
            .request_id
            .map_or_else(Self::random, |given| Self::Given(given.into()))
    }

    pub(super) fn random() -> Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let random = fastrand::u128(..).to_le_bytes();
        let mut text = [0; 32];
        for (digits, byte) in text.chunks_exact_mut(2).zip(random) {
            digits.copy_from_slice(&[
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]);
        }
        Self::Made(text)
    }

    /// The text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(value) => value,
            Self::Made(text) => text,
        }
    }
}
