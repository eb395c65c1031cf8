//! Values of annotations, parsed as ingress-nginx parses them.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr, time::Duration};

use ingress_model::RetryCauses;
use thiserror::Error;

/// As much of a value as an error quotes. An annotation may have 256 KiB, and its error goes to the
/// log, to `/status`, and into every copy of the problems.
fn excerpt(text: &str) -> String {
    const LENGTH: usize = 64;
    let start = &text[..text.floor_char_boundary(LENGTH)];
    if start == text {
        start.to_owned()
    } else {
        format!("{start}…")
    }
}

/// A boolean, in the spellings that Go's `strconv.ParseBool` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch(pub(super) bool);

/// Not a boolean.
#[derive(Debug, Error)]
#[error("{0:?} is neither true nor false")]
pub(super) struct SwitchError(String);

impl FromStr for Switch {
    type Err = SwitchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err(SwitchError(excerpt(text))),
        }
    }
}

/// A time in whole seconds, from 1 to the longest that is taken; a longer one counts as that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) time: Duration,
    /// What the owner should know.
    pub(super) note: Option<String>,
}

/// For one endpoint to accept a connection: nobody waits longer for it.
pub(super) const LONGEST_CONNECT: u64 = 3600;

/// A day: what is quiet for longer is not alive.
pub(super) const LONGEST: u64 = 86_400;

/// Not a number of seconds that is accepted.
#[derive(Debug, Error)]
pub(super) enum SecondsError {
    /// Anything but digits; a unit, for one.
    #[error("{0:?} is not a whole number of seconds without a unit")]
    NotANumber(String),
    /// Zero.
    #[error("0 is not a time to wait")]
    Zero,
}

/// Reads a time of at most `longest` seconds.
pub(super) fn seconds(text: &str, longest: u64) -> Result<Time, SecondsError> {
    match text.parse() {
        Ok(0) => Err(SecondsError::Zero),
        Ok(value @ 1..) => Ok(Time {
            time: Duration::from_secs(longest.min(value)),
            note: (value > longest)
                .then(|| format!("{value} is more than {longest} seconds, which apply")),
        }),
        Err(_) => Err(SecondsError::NotANumber(excerpt(text))),
    }
}

/// Largest request body in bytes; nginx's units `k`, `m`, `g` (and `b`); 0 is without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyLimit(pub(super) Option<u64>);

/// Not a size.
#[derive(Debug, Error)]
#[error("{0:?} is not a size such as 8m, 512k or 0")]
pub(super) struct BodyLimitError(String);

impl FromStr for BodyLimit {
    type Err = BodyLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || BodyLimitError(excerpt(text));
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text
            .get(digits.len()..)
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "" | "b" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            _ => return Err(refuse()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        let bytes = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(1 << shift))
            .ok_or_else(refuse)?;
        Ok(Self((bytes > 0).then_some(bytes)))
    }
}

/// Endpoints that one request is sent to at most; 0 is without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tries(pub(super) u8);

/// Not a number.
#[derive(Debug, Error)]
#[error("{0:?} is not a whole number")]
pub(super) struct TriesError(String);

impl FromStr for Tries {
    type Err = TriesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<u32>() {
            Ok(0) => Ok(Self(u8::MAX)),
            Ok(tries) => Ok(Self(u8::try_from(tries).unwrap_or(u8::MAX))),
            Err(_) => Err(TriesError(excerpt(text))),
        }
    }
}

/// After what another endpoint is tried: the words of nginx's `proxy_next_upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Causes(pub(super) RetryCauses);

/// Not a list of such words.
#[derive(Debug, Error)]
pub(super) enum CausesError {
    /// A word that nginx does not know either.
    #[error(
        "{0:?} is not one of error, timeout, invalid_header, non_idempotent, off, http_403, http_404, http_429, \
         http_500, http_502, http_503, http_504"
    )]
    Word(String),
    /// No word.
    #[error("lists no cause; use off for none")]
    Empty,
}

impl FromStr for Causes {
    type Err = CausesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut causes = RetryCauses::none();
        let (mut statuses, mut off, mut words) = (BTreeSet::new(), false, 0);
        for word in text.split_ascii_whitespace() {
            words += 1;
            match word {
                "error" => causes.error = true,
                "timeout" => causes.timeout = true,
                "invalid_header" => causes.invalid_header = true,
                "non_idempotent" => causes.non_idempotent = true,
                "off" => off = true,
                word => {
                    let status = word
                        .strip_prefix("http_")
                        .and_then(|code| code.parse().ok());
                    match status {
                        Some(code @ (403 | 404 | 429 | 500 | 502 | 503 | 504)) => {
                            statuses.insert(code);
                        }
                        _ => return Err(CausesError::Word(excerpt(word))),
                    }
                }
            }
        }
        if words == 0 {
            return Err(CausesError::Empty);
        }
        causes.statuses = statuses.into_iter().collect();
        Ok(Self(if off { RetryCauses::none() } else { causes }))
    }
}

/// A path, maybe with `$1` to `$9` in it; the characters that ingress-nginx lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RewriteTarget(pub(super) Box<str>);

/// Not a target.
#[derive(Debug, Error)]
pub(super) enum RewriteTargetError {
    /// A query, a space, or anything else that no path needs.
    #[error("{0:?} has a character that is not allowed in a rewrite target")]
    Character(String),
    /// It leads to another place: a redirect, which a rewrite is not.
    #[error("{0:?} is a URL; a rewrite target is a path")]
    Url(String),
    /// Longer than 4 KiB.
    #[error("rewrite target is longer than 4096 bytes")]
    TooLong,
}

impl FromStr for RewriteTarget {
    type Err = RewriteTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 4096 {
            return Err(RewriteTargetError::TooLong);
        }
        let passes = |c: char| c.is_ascii_alphanumeric() || "-._~:/$".contains(c);
        if !text.chars().all(passes) {
            return Err(RewriteTargetError::Character(excerpt(text)));
        }
        if text.contains("://") {
            return Err(RewriteTargetError::Url(excerpt(text)));
        }
        Ok(Self(text.into()))
    }
}

/// Addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    /// Leading bits that count: 0 is everyone of the family.
    pub(super) prefix: u8,
}

/// Reads `192.0.2.0/24`, or one address.
pub(super) fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
    (prefix <= bits).then_some(Network { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_nginx() {
        for (text, limit) in [
            ("0", None),
            ("0m", None),
            ("1", Some(1)),
            ("10b", Some(10)),
            ("8K", Some(8 << 10)),
            ("1m", Some(1 << 20)),
            ("2G", Some(2 << 30)),
        ] {
            assert_eq!(
                text.parse::<BodyLimit>().unwrap(),
                BodyLimit(limit),
                "{text}"
            );
        }
        for text in [
            "",
            "m",
            "1mb",
            "-1",
            "1.5m",
            "1 m",
            "+1",
            "18446744073709551615k",
        ] {
            assert!(text.parse::<BodyLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn causes_of_another_try_are_the_words_of_nginx() {
        for (text, causes) in [
            (
                "error  timeout",
                RetryCauses {
                    invalid_header: false,
                    ..RetryCauses::default()
                },
            ),
            (
                "http_504 non_idempotent http_403 http_504",
                RetryCauses {
                    non_idempotent: true,
                    statuses: [403, 504].into(),
                    ..RetryCauses::none()
                },
            ),
            (
                "invalid_header",
                RetryCauses {
                    invalid_header: true,
                    ..RetryCauses::none()
                },
            ),
            ("error off http_500", RetryCauses::none()),
        ] {
            assert_eq!(text.parse::<Causes>().unwrap(), Causes(causes), "{text}");
        }
        for text in ["", " ", "http_501", "http_", "Error", "error,timeout"] {
            assert!(text.parse::<Causes>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_tries_are_without_a_limit() {
        for (text, tries) in [("0", 255), ("1", 1), ("255", 255), ("70000", 255)] {
            assert_eq!(text.parse::<Tries>().unwrap(), Tries(tries), "{text}");
        }
        for text in ["", "-1", "1.5", "3s"] {
            assert!(text.parse::<Tries>().is_err(), "{text}");
            assert!(seconds(text, LONGEST).is_err(), "{text}");
        }
    }

    #[test]
    fn rewrite_targets_are_paths_with_captures() {
        for text in ["/", "/$1", "/a/$2/b", "$1", "/a.b~c:d", "a"] {
            assert!(text.parse::<RewriteTarget>().is_ok(), "{text}");
        }
        for text in ["/a?b=c", "/a\nb", "/{x}", "https://a/b", &"/".repeat(4097)] {
            assert!(text.parse::<RewriteTarget>().is_err(), "{text}");
        }
    }
}
