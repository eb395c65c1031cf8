//! What a field's name means to a proxy: decided once per field, by its length first.

/// A field's name, as far as it is more than text to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Keep-Alive`.
    KeepAlive,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `Cookie`.
    Cookie,
    /// `X-Request-ID`.
    RequestId,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `Sec-WebSocket-Version`.
    WebSocketVersion,
    /// `Date`.
    Date,
    /// `Server`.
    Server,
    /// `Strict-Transport-Security`.
    TransportSecurity,
    /// What only we say of a client, such as `X-Real-IP`: forged when a client sends it.
    Ours,
    /// `X-Forebay-Hops`: how many Forebays a request has passed.
    Hops,
    /// Of one hop (RFC 9110 section 7.6.1) or dangerous (`Proxy`, CVE-2016-5385): goes no further.
    OneHop,
    /// Has a `_`, which CGI-like endpoints confuse with `-`: goes no further.
    Underscore,
    /// Any other; passed on as it is.
    Other,
}

impl Name {
    /// Classifies a name, whatever its case.
    pub(crate) fn of(name: &[u8]) -> Self {
        match name.len() {
            2 if is(name, b"te") => Self::Te,
            4 if is(name, b"host") => Self::Host,
            4 if is(name, b"date") => Self::Date,
            5 if is(name, b"proxy") => Self::OneHop,
            6 if is(name, b"cookie") => Self::Cookie,
            6 if is(name, b"expect") => Self::Expect,
            6 if is(name, b"server") => Self::Server,
            7 if is(name, b"upgrade") => Self::Upgrade,
            7 if is(name, b"trailer") => Self::Trailer,
            8 if is(name, b"x-scheme") => Self::Ours,
            9 if is(name, b"x-real-ip") || is(name, b"forwarded") => Self::Ours,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::KeepAlive,
            12 if is(name, b"x-request-id") => Self::RequestId,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"x-forebay-hops") => Self::Hops,
            14 if is(name, b"http2-settings") => Self::OneHop,
            15 if is(name, b"x-forwarded-for") => Self::ForwardedFor,
            16 if is(name, b"x-forwarded-host") => Self::ForwardedHost,
            16 if is(name, b"x-forwarded-port") => Self::Ours,
            16 if is(name, b"proxy-connection") => Self::OneHop,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(name, b"x-forwarded-proto") => Self::Ours,
            18 if is(name, b"x-forwarded-scheme") => Self::Ours,
            21 if is(name, b"sec-websocket-version") => Self::WebSocketVersion,
            25 if is(name, b"strict-transport-security") => Self::TransportSecurity,
            24.. if starts_with(name, b"x-original-forwarded-") => Self::Ours,
            _ if has_underscore(name) => Self::Underscore,
            _ => Self::Other,
        }
    }
}

/// Whether `name` is `known`, which has nothing but lower case, digits and hyphens, whatever the case
/// of `name`. A few operations for eight bytes, where a comparison that works for any text does
/// several for each.
#[inline(always)]
fn is<const LENGTH: usize>(name: &[u8], known: &[u8; LENGTH]) -> bool {
    let Ok(name) = <&[u8; LENGTH]>::try_from(name) else {
        return false;
    };
    let (Some(end), Some(known_end)) = (name.last_chunk(), known.last_chunk()) else {
        return are_same(padded(name), padded(known));
    };
    let starts = name.as_chunks().0.iter().zip(known.as_chunks().0);
    // The last word covers what is left of the one before.
    starts.fold(are_same(*end, *known_end), |same, (own, known)| {
        same & are_same(*own, *known)
    })
}

/// The same for one word.
#[inline(always)]
fn are_same(name: [u8; 8], known: [u8; 8]) -> bool {
    let (name, known) = (u64::from_le_bytes(name), u64::from_le_bytes(known));
    // Letters, which have the one bit here and the others not, may differ in the bit of the case.
    let case = (known & u64::from_le_bytes([0x40; 8])) >> 1;
    (name ^ known) & !case == 0
}

#[inline(always)]
fn padded<const LENGTH: usize>(short: &[u8; LENGTH]) -> [u8; 8] {
    let mut word = [0; 8];
    word.iter_mut()
        .zip(short)
        .for_each(|(to, from)| *to = *from);
    word
}

/// Most names are not known, and each of them is looked through.
fn has_underscore(name: &[u8]) -> bool {
    let in_word = |word: &[u8; 8]| {
        let zero_where = u64::from_le_bytes(*word) ^ u64::from_le_bytes([b'_'; 8]);
        // The highest bit of a byte is set where the byte is zero, or above one that is.
        let borrowed = zero_where.wrapping_sub(u64::from_le_bytes([0x01; 8]));
        borrowed & !zero_where & u64::from_le_bytes([0x80; 8]) != 0
    };
    match name.last_chunk() {
        None => name.contains(&b'_'),
        // The last word covers what is left of the one before.
        Some(end) => name.as_chunks().0.iter().any(in_word) || in_word(end),
    }
}

/// Whether a trailer section may not carry the field: what frames, routes, authenticates or
/// describes a message is decided before its body (RFC 9110 section 6.5.1).
pub(crate) fn is_barred_from_trailers(name: &[u8]) -> bool {
    const BARRED: [&[u8]; 14] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"www-authenticate",
    ];
    let is = |barred: &&[u8]| name.eq_ignore_ascii_case(barred);
    !matches!(Name::of(name), Name::Other | Name::Date | Name::Server)
        || BARRED.iter().any(is)
        || starts_with(name, b"content-")
        || starts_with(name, b"if-")
}

fn starts_with(name: &[u8], start: &[u8]) -> bool {
    name.get(..start.len())
        .is_some_and(|own| own.eq_ignore_ascii_case(start))
}

/// Whether a `Connection` says no more than that it stays open, as so many do that it is worth a
/// question before its options are taken apart.
pub(crate) fn is_keep_alive(value: &[u8]) -> bool {
    is(value, b"keep-alive")
}

/// The options of a list such as `Connection`, without the space around them.
pub(crate) fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// The fields that `Connection` names besides the usual options: they go no further (RFC 9110
/// section 7.6.1).
///
/// Sorted at the first question, so that a head of many names and many fields costs no more than
/// its length times a logarithm.
#[derive(Debug, Default)]
pub(crate) struct Named<'h> {
    names: Vec<&'h [u8]>,
    sorted: bool,
}

impl<'h> Named<'h> {
    /// Adds a name.
    pub(crate) fn add(&mut self, name: &'h [u8]) {
        self.names.push(name);
        self.sorted = false;
    }

    /// Whether none was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name` was added, whatever its case.
    pub(crate) fn contains(&mut self, name: &[u8]) -> bool {
        if !self.sorted {
            self.names.sort_unstable_by(|a, b| compare(a, b));
            self.sorted = true;
        }
        self.names
            .binary_search_by(|own| compare(own, name))
            .is_ok()
    }
}

/// Orders names without their case.
fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.iter()
        .map(u8::to_ascii_lowercase)
        .cmp(b.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_whatever_their_case() {
        for (name, known) in [
            ("te", Name::Te),
            ("HOST", Name::Host),
            ("Date", Name::Date),
            ("pRoxy", Name::OneHop),
            ("Cookie", Name::Cookie),
            ("expect", Name::Expect),
            ("Server", Name::Server),
            ("Upgrade", Name::Upgrade),
            ("Trailer", Name::Trailer),
            ("X-Scheme", Name::Ours),
            ("X-Forebay-Hops", Name::Hops),
            ("X-Real-IP", Name::Ours),
            ("Forwarded", Name::Ours),
            ("Connection", Name::Connection),
            ("Keep-Alive", Name::KeepAlive),
            ("X-Request-ID", Name::RequestId),
            ("Content-Length", Name::ContentLength),
            ("HTTP2-Settings", Name::OneHop),
            ("X-Forwarded-For", Name::ForwardedFor),
            ("X-Forwarded-Host", Name::ForwardedHost),
            ("X-Forwarded-Port", Name::Ours),
            ("Proxy-Connection", Name::OneHop),
            ("Transfer-Encoding", Name::TransferEncoding),
            ("X-Forwarded-Proto", Name::Ours),
            ("X-Forwarded-Scheme", Name::Ours),
            ("Sec-WebSocket-Version", Name::WebSocketVersion),
            ("X-Original-Forwarded-For", Name::Ours),
            ("X-Original-Forwarded-Host", Name::Ours),
            ("Strict-Transport-Security", Name::TransportSecurity),
            ("X_Real_IP", Name::Underscore),
            ("Accept", Name::Other),
            ("Authorization", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn one_bit_other_than_the_case_of_a_letter_makes_another_name() {
        fn check<const LENGTH: usize>(known: &[u8; LENGTH]) {
            for (at, bit) in (0..LENGTH).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut name = *known;
                name[at] ^= 1 << bit;
                let text = String::from_utf8_lossy(&name);
                assert_eq!(is(&name, known), name.eq_ignore_ascii_case(known), "{text}");
            }
            assert!(is(known, known));
            assert!(!is(&known[1..], known));
        }
        check(b"te");
        check(b"proxy");
        check(b"trailer");
        check(b"x-scheme");
        check(b"x-real-ip");
        check(b"http2-settings");
        check(b"x-forwarded-host");
        check(b"x-forwarded-proto");
        check(b"strict-transport-security");
    }

    #[test]
    fn an_underscore_is_found_wherever_it_is() {
        for length in 1..=40 {
            for at in 0..length {
                // Its neighbours in the table of characters, and itself.
                for byte in [b'^', b'_', b'`', b'_' ^ 0x80] {
                    let mut name = vec![b'z'; length];
                    name[at] = byte;
                    let found = has_underscore(&name);
                    assert_eq!(found, byte == b'_', "{byte:#x} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn a_length_alone_makes_no_name_known() {
        for length in 0..=64 {
            let (name, underscores) = ("z".repeat(length), "_".repeat(length));
            assert_eq!(Name::of(name.as_bytes()), Name::Other, "{name}");
            if length > 0 {
                assert_eq!(
                    Name::of(underscores.as_bytes()),
                    Name::Underscore,
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn a_trailer_carries_only_what_does_not_matter_before_the_body() {
        for (name, barred) in [
            ("Grpc-Status", false),
            ("ETag", false),
            ("Date", false),
            ("Server", false),
            ("Contents", false),
            ("Iffy", false),
            ("", false),
            ("Host", true),
            ("content-length", true),
            ("Content-Type", true),
            ("Authorization", true),
            ("If-Match", true),
            ("SET-COOKIE", true),
            ("www-authenticate", true),
            ("Age", true),
            ("X-Forwarded-For", true),
            ("X_A", true),
        ] {
            assert_eq!(is_barred_from_trailers(name.as_bytes()), barred, "{name}");
        }
    }

    #[test]
    fn a_connection_that_says_more_than_keep_alive_is_taken_apart() {
        for (value, alone) in [
            ("keep-alive", true),
            ("Keep-Alive", true),
            ("keep-alive, x", false),
            ("keep_alive", false),
            ("close", false),
            ("", false),
        ] {
            assert_eq!(is_keep_alive(value.as_bytes()), alone, "{value:?}");
        }
    }

    #[test]
    fn named_fields_are_found_whatever_their_case() {
        let mut named = Named::default();
        assert!(named.is_empty() && !named.contains(b"x"));
        options(b"X-b, x-A ,,x-c").for_each(|name| named.add(name));
        assert!(!named.is_empty());
        for (name, found) in [
            ("x-a", true),
            ("X-B", true),
            ("x-C", true),
            ("x", false),
            ("x-aa", false),
        ] {
            assert_eq!(named.contains(name.as_bytes()), found, "{name}");
        }
    }
}
