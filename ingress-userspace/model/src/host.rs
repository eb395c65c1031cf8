//! The host of an Ingress rule: exact, one-label wildcard, or any.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

/// The request hosts that a rule matches.
///
/// Names are lower case, without a trailing dot. Source: Kubernetes Ingress, "Hostname wildcards".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// One name, such as `shop.example.com`.
    Exact(Box<str>),
    /// `*.example.com`, stored as `example.com`; matches exactly one more label.
    Wildcard(Box<str>),
    /// No host in the rule: matches requests that no other host matches.
    Any,
}

/// A host that cannot be valid in a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// Longer than 253 bytes (RFC 1035 section 2.3.4).
    #[error("host is longer than 253 bytes")]
    TooLong,
    /// A label is empty, longer than 63 bytes, or has a byte outside `[a-z0-9_-]`.
    #[error("label {0:?} is not a DNS label")]
    Label(String),
    /// `*` is not the whole first label, or no name follows it.
    #[error("a wildcard must be the whole first label")]
    Wildcard,
}

impl HostPattern {
    /// Returns whether this pattern matches `host` (lower case, no port, no trailing dot).
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => parent(host) == Some(suffix),
            Self::Any => true,
        }
    }

    /// The wildcard that an exact host falls under.
    pub fn wildcard_above(&self) -> Option<Self> {
        match self {
            Self::Exact(name) => parent(name).map(|parent| Self::Wildcard(parent.into())),
            Self::Wildcard(_) | Self::Any => None,
        }
    }
}

/// What follows the first label of `host`: the only suffix whose wildcard stands for it.
pub(super) fn parent(host: &str) -> Option<&str> {
    host.split_once('.')
        .filter(|(label, _)| !label.is_empty())
        .map(|(_, parent)| parent)
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let value = value
            .strip_suffix('.')
            .filter(|name| *name != "*")
            .unwrap_or(value);
        if value.is_empty() || value == "*" {
            return Ok(Self::Any);
        }
        if value.len() > 253 {
            return Err(HostPatternError::TooLong);
        }
        let (wildcard, name) = match value.strip_prefix("*.") {
            Some("") => return Err(HostPatternError::Wildcard),
            Some(name) => (true, name),
            None => (false, value),
        };
        if name.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        let fits = |label: &&str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if let Some(label) = name.split('.').find(|label| !fits(label)) {
            return Err(HostPatternError::Label(label.to_owned()));
        }
        let name = name.to_ascii_lowercase().into_boxed_str();
        Ok(if wildcard {
            Self::Wildcard(name)
        } else {
            Self::Exact(name)
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Serialize for HostPattern {
    /// As it is written in a rule.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostPatternError;

    fn try_from(text: String) -> Result<Self, HostPatternError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_stands_for_exactly_one_label() {
        let pattern: HostPattern = "*.Example.com.".parse().unwrap();
        for (host, matches) in [
            ("a.example.com", true),
            ("example.com", false),
            ("a.b.example.com", false),
            (".example.com", false),
        ] {
            assert_eq!(pattern.matches(host), matches, "{host}");
        }
    }

    #[test]
    fn an_exact_host_stands_for_itself_and_none_for_all() {
        for (pattern, host, matches) in [
            ("a.b", "a.b", true),
            ("a.b", "b.b", false),
            ("a.b", "x.a.b", false),
            ("", "a.b", true),
            ("", "", true),
        ] {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(host), matches, "{pattern} {host}");
        }
    }

    #[test]
    fn the_wildcard_above_a_host_stands_for_its_siblings() {
        for (host, above) in [
            ("a.example.com", Some("*.example.com")),
            ("com", None),
            ("*.example.com", None),
            ("", None),
        ] {
            let pattern: HostPattern = host.parse().unwrap();
            let above = above.map(|above| above.parse().unwrap());
            assert_eq!(pattern.wildcard_above(), above, "{host:?}");
        }
    }

    #[test]
    fn a_host_may_have_253_bytes_and_a_label_63() {
        let label = "a".repeat(63);
        let fits = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(fits.len(), 253);
        assert_eq!(fits.parse::<HostPattern>().unwrap().to_string(), fits);
        let long = format!("{fits}a");
        assert_eq!(long.parse::<HostPattern>(), Err(HostPatternError::TooLong));
    }

    #[test]
    fn a_label_may_have_hyphens_and_underscores() {
        for host in ["a-b.c", "_a.b_c", "*.a-b_c", "1.2.3.4"] {
            assert_eq!(host.parse::<HostPattern>().unwrap().to_string(), host);
        }
    }

    #[test]
    fn hosts_that_no_request_can_carry_are_refused() {
        for host in [
            "a..b",
            "foo bar",
            "*.*.a",
            "a.*.b",
            "*.",
            "é.fr",
            &"a".repeat(254),
            &"a".repeat(64),
        ] {
            assert!(host.parse::<HostPattern>().is_err(), "{host}");
        }
    }

    #[test]
    fn empty_host_and_bare_star_stand_for_any() {
        for host in ["", "*"] {
            assert_eq!(host.parse(), Ok(HostPattern::Any), "{host:?}");
        }
    }
}
