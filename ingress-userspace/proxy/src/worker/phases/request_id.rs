//! What identifies a request towards the endpoint, in error pages and in logs.

use super::sanitize::Sanitized;

/// The two digits of each byte: one look-up instead of two.
const HEXADECIMAL: [[u8; 2]; 256] = {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

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
        let random = fastrand::u128(..).to_le_bytes();
        let mut text = [0; 32];
        for (digits, byte) in text.as_chunks_mut().0.iter_mut().zip(random) {
            *digits = HEXADECIMAL[usize::from(byte)];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_made_here_is_32_lower_case_digits_and_never_the_same() {
        let (one, other) = (RequestId::random(), RequestId::random());
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        assert_eq!(one.as_bytes().len(), 32);
        assert!(one.as_bytes().iter().all(is_digit), "{one:?}");
        assert_ne!(one.as_bytes(), other.as_bytes());
    }

    #[test]
    fn a_byte_has_the_digits_that_the_language_prints() {
        for byte in 0..=u8::MAX {
            assert_eq!(
                HEXADECIMAL[usize::from(byte)],
                *format!("{byte:02x}").as_bytes(),
                "{byte}"
            );
        }
    }
}
