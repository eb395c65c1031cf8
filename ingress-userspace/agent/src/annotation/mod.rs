//! Annotations of an Ingress → a typed policy, once. A bad value is a warning and the default
//! stays.
//!
//! Two prefixes say the same: `nginx.ingress.kubernetes.io/`, and our own `forebay.dev/`, which
//! wins.

mod known;
mod value;

use std::collections::BTreeMap;

use value::{BodyLimit, ConnectTimeout, RewriteTarget, StreamTimeout, Switch};

use ingress_model::Policy;

/// Prefixes, the one that wins first.
const PREFIXES: [&str; 2] = ["forebay.dev/", "nginx.ingress.kubernetes.io/"];

/// Names that become part of a [`Policy`].
const SUPPORTED: [&str; 8] = [
    "rewrite-target",
    "use-regex",
    "ssl-redirect",
    "force-ssl-redirect",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "proxy-body-size",
];

/// An annotation that does not do what its author wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// The whole key.
    pub(super) key: String,
    /// Lower case, no full stop.
    pub(super) message: String,
}

/// Reads every annotation of our two prefixes; others are no business of ours.
pub(super) fn policy(annotations: &BTreeMap<String, String>) -> (Policy, Vec<Warning>) {
    let mut reader = Reader {
        annotations,
        warnings: Vec::new(),
    };
    let mut policy = Policy::default();
    reader.read("rewrite-target", |RewriteTarget(target)| {
        policy.rewrite_target = Some(target)
    });
    reader.read("use-regex", |Switch(on)| policy.use_regex = on);
    reader.read("ssl-redirect", |Switch(on)| policy.ssl_redirect = on);
    reader.read("force-ssl-redirect", |Switch(on)| {
        policy.force_ssl_redirect = on
    });
    reader.read("proxy-connect-timeout", |ConnectTimeout(time)| {
        policy.connect_timeout = time
    });
    reader.read("proxy-read-timeout", |StreamTimeout(time)| {
        policy.read_timeout = time
    });
    reader.read("proxy-send-timeout", |StreamTimeout(time)| {
        policy.send_timeout = time
    });
    reader.read("proxy-body-size", |BodyLimit(limit)| {
        policy.body_limit = limit
    });
    reader.warn_of_the_rest();
    (policy, reader.warnings)
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
        set: impl FnOnce(T),
    ) {
        let found = PREFIXES
            .iter()
            .find_map(|prefix| self.annotations.get_key_value(&format!("{prefix}{name}")));
        let Some((key, text)) = found else { return };
        match text.trim().parse() {
            Ok(value) => set(value),
            Err(error) => {
                self.warnings.push(Warning {
                    key: key.clone(),
                    message: format!("{error}; the default stays"),
                });
            }
        }
    }

    fn warn_of_the_rest(&mut self) {
        for key in self.annotations.keys() {
            let Some((prefix, name)) = PREFIXES
                .iter()
                .find_map(|prefix| Some((prefix, key.strip_prefix(prefix)?)))
            else {
                continue;
            };
            if SUPPORTED.contains(&name) {
                continue;
            }
            let message = match known::find(name) {
                Some(known::Verdict::NoEffect) => continue,
                Some(known::Verdict::NotYet) => "not supported yet; ignored".to_owned(),
                Some(known::Verdict::Never(reason)) => {
                    format!("never supported: {reason}; ignored")
                }
                None => format!(
                    "no such annotation of {}; ignored",
                    prefix.trim_end_matches('/')
                ),
            };
            self.warnings.push(Warning {
                key: key.clone(),
                message,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let annotations = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let (policy, warnings) = policy(&annotations);
        (
            policy,
            warnings
                .into_iter()
                .map(|warning| format!("{}: {}", warning.key, warning.message))
                .collect(),
        )
    }

    #[test]
    fn every_supported_annotation_sets_its_part_of_the_policy() {
        let nginx = |name: &str| format!("nginx.ingress.kubernetes.io/{name}");
        let pairs = [
            ("rewrite-target", "/$2"),
            ("use-regex", "true"),
            ("ssl-redirect", "false"),
            ("force-ssl-redirect", "true"),
            ("proxy-connect-timeout", "7"),
            ("proxy-read-timeout", "3600"),
            ("proxy-send-timeout", "30"),
            ("proxy-body-size", "8m"),
        ]
        .map(|(name, value)| (nginx(name), value));
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect();
        let expected = Policy {
            rewrite_target: Some("/$2".into()),
            use_regex: true,
            ssl_redirect: false,
            force_ssl_redirect: true,
            connect_timeout: Duration::from_secs(7),
            read_timeout: Duration::from_secs(3600),
            send_timeout: Duration::from_secs(30),
            body_limit: Some(8 << 20),
        };
        assert_eq!(read(&pairs), (expected, vec![]));
        assert_eq!(pairs.len(), SUPPORTED.len());
    }

    #[test]
    fn our_own_prefix_wins() {
        let (policy, warnings) = read(&[
            ("forebay.dev/proxy-read-timeout", "1"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "2"),
        ]);
        assert_eq!(
            (policy.read_timeout, warnings),
            (Duration::from_secs(1), vec![])
        );
    }

    #[test]
    fn bad_values_keep_the_default_and_name_the_key() {
        for (name, value) in [
            ("rewrite-target", "/a b"),
            ("rewrite-target", "/?a=b"),
            ("use-regex", "yes"),
            ("ssl-redirect", ""),
            ("proxy-connect-timeout", "5s"),
            ("proxy-connect-timeout", "0"),
            ("proxy-read-timeout", "-1"),
            ("proxy-send-timeout", "99999999999999999999"),
            ("proxy-body-size", "1 m"),
            ("proxy-body-size", "99999999999g"),
        ] {
            let key = format!("nginx.ingress.kubernetes.io/{name}");
            let (policy, warnings) = read(&[(&key, value)]);
            assert_eq!(policy, Policy::default(), "{name}: {value}");
            assert_eq!(warnings.len(), 1, "{name}: {value}");
            assert!(warnings[0].starts_with(&key), "{warnings:?}");
        }
    }

    #[test]
    fn annotations_without_effect_are_said_and_those_of_others_are_not() {
        let (policy, warnings) = read(&[
            ("cert-manager.io/cluster-issuer", "x"),
            ("forebay.dev/nonsense", "x"),
            ("kubernetes.io/tls-acme", "true"),
            ("nginx.ingress.kubernetes.io/canary", "true"),
            ("nginx.ingress.kubernetes.io/enable-rewrite-log", "true"),
            ("nginx.ingress.kubernetes.io/server-snippet", "return 200;"),
        ]);
        assert_eq!(policy, Policy::default());
        assert_eq!(
            warnings,
            [
                "forebay.dev/nonsense: no such annotation of forebay.dev; ignored",
                "nginx.ingress.kubernetes.io/canary: not supported yet; ignored",
                "nginx.ingress.kubernetes.io/server-snippet: never supported: a template language is a way in for \
                 attackers; ignored",
            ]
        );
    }
}
