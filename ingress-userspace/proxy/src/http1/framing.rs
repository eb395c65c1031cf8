//! Where the body of a message ends (RFC 9112 section 6).

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes; 0 is no body.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; responses only.
    Close,
}

/// How the head of a message that we send announces its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// There is none.
    Nothing,
    /// By its length, or by the end of the connection.
    Length,
    /// In chunks.
    Chunks,
}

/// Fields that frame a message in a way on which two readers could disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// Content-Length fields that differ, or one that is no number.
    #[error("content-length is not one number")]
    ContentLength,
    /// A coding other than `chunked` alone, in one field.
    #[error("transfer coding is not chunked")]
    TransferEncoding,
    /// A length beside chunks.
    #[error("content-length beside transfer-encoding")]
    Both,
    /// Chunks in an HTTP/1.0 message, whose readers do not know them.
    #[error("transfer-encoding in HTTP/1.0")]
    OldVersion,
}

/// The fields that frame a message, collected while its head is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FramingFields {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
}

impl FramingFields {
    /// Takes the value of a Content-Length; equal ones count as one (RFC 9112 section 6.3, rule 5).
    ///
    /// # Errors
    /// It is no number, or not the one that came before.
    pub(crate) fn take_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        let length = length(value).ok_or(FramingError::ContentLength)?;
        match self.length.replace(length) {
            Some(first) if first != length => Err(FramingError::ContentLength),
            _ => Ok(()),
        }
    }

    /// Takes the value of a Transfer-Encoding: exactly one field, exactly `chunked`.
    ///
    /// # Errors
    /// It is another coding, or a second field.
    pub(crate) fn take_coding(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// The framing of a request. A length beside chunks is how requests are smuggled, so it is
    /// refused, as RFC 9112 section 6.3 rule 3 allows.
    ///
    /// # Errors
    /// Both fields, or chunks in HTTP/1.0.
    pub(crate) fn of_request(self, http10: bool) -> Result<Framing, FramingError> {
        match (self.chunked, self.length) {
            (true, _) if http10 => Err(FramingError::OldVersion),
            (true, Some(_)) => Err(FramingError::Both),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Digits only: `parse` would take a sign.
fn length(value: &[u8]) -> Option<u64> {
    value.first()?;
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = Some(byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)?;
        length.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_request(
        lengths: &[&str],
        codings: &[&str],
        http10: bool,
    ) -> Result<Framing, FramingError> {
        let mut fields = FramingFields::default();
        lengths
            .iter()
            .try_for_each(|length| fields.take_length(length.as_bytes()))?;
        codings
            .iter()
            .try_for_each(|coding| fields.take_coding(coding.as_bytes()))?;
        fields.of_request(http10)
    }

    #[test]
    fn a_request_is_framed_in_one_way_or_refused() {
        use FramingError::{Both, ContentLength, OldVersion, TransferEncoding};
        for (lengths, codings, http10, expected) in [
            (&[][..], &[][..], false, Ok(Framing::Length(0))),
            (&["5"], &[], false, Ok(Framing::Length(5))),
            (&["5"], &[], true, Ok(Framing::Length(5))),
            (&["5", "5"], &[], false, Ok(Framing::Length(5))),
            (&["05"], &[], false, Ok(Framing::Length(5))),
            (
                &["18446744073709551615"],
                &[],
                false,
                Ok(Framing::Length(u64::MAX)),
            ),
            (&["18446744073709551616"], &[], false, Err(ContentLength)),
            (&["5", "6"], &[], false, Err(ContentLength)),
            (&["5, 5"], &[], false, Err(ContentLength)),
            (&["+5"], &[], false, Err(ContentLength)),
            (&["-5"], &[], false, Err(ContentLength)),
            (&["0x5"], &[], false, Err(ContentLength)),
            (&["5 5"], &[], false, Err(ContentLength)),
            // The neighbours of the digits in ASCII.
            (&["5/"], &[], false, Err(ContentLength)),
            (&["5:"], &[], false, Err(ContentLength)),
            (&[""], &[], false, Err(ContentLength)),
            (&[], &["chunked"], false, Ok(Framing::Chunked)),
            (&[], &["CHUNKED"], false, Ok(Framing::Chunked)),
            (&[], &["chunked"], true, Err(OldVersion)),
            (&[], &["chunked", "chunked"], false, Err(TransferEncoding)),
            (&[], &["gzip, chunked"], false, Err(TransferEncoding)),
            (&[], &["chunked;q=1"], false, Err(TransferEncoding)),
            (&[], &["identity"], false, Err(TransferEncoding)),
            (&["5"], &["chunked"], false, Err(Both)),
            (&["0"], &["chunked"], false, Err(Both)),
        ] {
            assert_eq!(
                of_request(lengths, codings, http10),
                expected,
                "{lengths:?} {codings:?} 1.0: {http10}"
            );
        }
    }
}
