//! Annotations of an Ingress → a typed policy, once, row by row of the `registry`.
//!
//! Two prefixes mean the same: that of `--annotations-prefix`, and our own `forebay.dev/`, which
//! wins.

mod annotations;
mod denial;
mod page;
mod reading;
mod registry;
mod restrictions;
mod row;
mod rows;
mod snippet;
mod value;

use std::collections::BTreeMap;

use self::{
    annotations::Annotations,
    reading::BadValue,
    row::{Otherwise, Row, Support},
    value::Switch,
};
use ingress_model::Policy;

pub use self::page::reference;
pub(super) use self::{
    annotations::Prefixes, denial::Denial, restrictions::leaves_someone_out, row::Scope,
};

/// A client certificate that `auth-tls-verify-client: off` does not ask for.
const CLIENT_CA: &str = "auth-tls-secret";
const VERIFY_CLIENT: &str = "auth-tls-verify-client";

/// What every Ingress starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) prefixes: Prefixes,
    /// What holds where an annotation says nothing.
    pub(super) policy: Policy,
    /// What denies every Ingress that does not opt out; keyed by the ConfigMap's key.
    pub(super) denials: Vec<Denial>,
}

/// The annotations by which an Ingress opts out of a key of the ConfigMap: it says itself who may
/// pass.
const OPTS_OUT: [(&str, &[&str]); 5] = [
    ("global-auth-url", &["enable-global-auth"]),
    (
        "whitelist-source-range",
        &["allowlist-source-range", "whitelist-source-range"],
    ),
    (
        "allowlist-source-range",
        &["allowlist-source-range", "whitelist-source-range"],
    ),
    ("denylist-source-range", &["denylist-source-range"]),
    ("block-cidrs", &[]),
];

/// Something that an owner should know of one annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// The whole key.
    pub(super) key: String,
    /// Lower case, no full stop.
    pub(super) message: String,
}

/// What the annotations of one Ingress say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) policy: Policy,
    /// The key that makes it a canary of another Ingress.
    pub(super) canary: Option<String>,
    /// Each denies the Ingress by itself.
    pub(super) denials: Vec<Denial>,
    /// Each has no effect, or another one than it says.
    pub(super) warnings: Vec<Remark>,
    /// Values without which the Ingress must not be served.
    pub(super) spoiled: Vec<Remark>,
}

/// Reads the annotations with our two prefixes and ignores others.
pub(super) fn read(annotations: &BTreeMap<String, String>, base: &Base) -> Reading {
    let mut reader = Reader {
        annotations: Annotations {
            all: annotations,
            prefixes: &base.prefixes,
        },
        reading: Reading {
            policy: base.policy.clone(),
            canary: None,
            denials: Vec::new(),
            warnings: Vec::new(),
            spoiled: Vec::new(),
        },
    };
    registry::rows().for_each(|row| reader.row(row));
    reader.deny_for_all(&base.denials);
    reader.warn_of_strangers();
    let by_key = |one: &Remark, other: &Remark| one.key.cmp(&other.key);
    reader.reading.warnings.sort_by(by_key);
    reader.reading
}

struct Reader<'a> {
    annotations: Annotations<'a>,
    reading: Reading,
}

impl<'a> Reader<'a> {
    fn row(&mut self, row: &Row) {
        let Reading {
            policy,
            canary,
            denials,
            warnings,
            spoiled,
        } = &mut self.reading;
        let remark = |key: &str, message: String| Remark {
            key: key.to_owned(),
            message,
        };
        let annotations = self.annotations;
        let mut found = row.names.iter().filter_map(|name| annotations.find(name));
        match row.support {
            Support::Read { read, bad } => {
                // An empty value asks for nothing.
                let Some((key, text)) = found.find(|(_, text)| !text.is_empty()) else {
                    return;
                };
                match (read(text, policy), bad) {
                    (Ok(None), _) => {}
                    (Ok(Some(note)), _) => warnings.push(remark(key, note)),
                    (Err(error), BadValue::Default) => {
                        warnings.push(remark(key, format!("{error}; the default applies")));
                    }
                    (Err(error), BadValue::KeepLastGood) => spoiled.push(remark(key, error)),
                }
            }
            Support::Denies {
                restricts,
                reason,
                ref otherwise,
            } => {
                // Each of its names restricts by itself.
                for (key, text) in found {
                    let asks = !text.is_empty() && restricts(text);
                    if asks && !(row.names.contains(&CLIENT_CA) && asks_no_client(annotations)) {
                        denials.push(Denial {
                            key: key.to_owned(),
                            scope: row.scope,
                            reason,
                        });
                    } else if let (Otherwise::Never(why), false) = (otherwise, asks) {
                        warnings.push(remark(key, format!("never supported: {why}; ignored")));
                    }
                }
            }
            Support::Canary => {
                *canary = found
                    .next()
                    .filter(|(_, text)| matches!(text.parse(), Ok(Switch(true))))
                    .map(|(key, _)| key.to_owned());
            }
            Support::NotYet => {
                warnings.extend(found.map(|(key, _)| {
                    let canary = row
                        .names
                        .first()
                        .is_some_and(|name| name.starts_with("canary"));
                    let message = if canary && canary_is_off(annotations) {
                        "without effect unless canary is on; ignored"
                    } else {
                        "not supported yet; ignored"
                    };
                    remark(key, message.to_owned())
                }));
            }
            Support::NoEffect(_) => {}
            Support::Never(why) => warnings.extend(
                found.map(|(key, _)| remark(key, format!("never supported: {why}; ignored"))),
            ),
        }
    }

    /// Denies for what the ConfigMap asks of all, unless the Ingress has its own say. What that says
    /// was held against its own row.
    fn deny_for_all(&mut self, denials: &[Denial]) {
        for denial in denials {
            let opts = OPTS_OUT.iter().find(|(key, _)| *key == denial.key);
            let names = opts.map_or(&[][..], |(_, names)| names);
            let says = |name: &&str| {
                let found = self.annotations.find(name);
                found.is_some_and(|(_, text)| !text.is_empty())
            };
            if !names.iter().any(says) {
                self.reading.denials.push(denial.clone());
            }
        }
    }

    /// Warns of names that no row has.
    fn warn_of_strangers(&mut self) {
        for key in self.annotations.all.keys() {
            let Some((prefix, name)) = self.annotations.prefixes.split(key) else {
                continue;
            };
            if registry::find(name).is_none() {
                self.reading.warnings.push(Remark {
                    key: key.clone(),
                    message: format!("no such annotation of {prefix}; ignored"),
                });
            }
        }
    }
}

/// Sets the field of a policy that an annotation sets.
///
/// # Errors
/// The value cannot be read, or no policy has such a field; nothing is set.
pub(super) fn set_by_name(
    name: &str,
    text: &str,
    policy: &mut Policy,
) -> Result<Option<String>, String> {
    match registry::find(name).map(|row| &row.support) {
        Some(Support::Read { read, .. }) => read(text, policy),
        _ => Err(format!("{name} is part of no policy")),
    }
}

fn asks_no_client(annotations: Annotations<'_>) -> bool {
    annotations
        .find(VERIFY_CLIENT)
        .is_some_and(|(_, value)| value == "off")
}

fn canary_is_off(annotations: Annotations<'_>) -> bool {
    let canary = annotations.find("canary");
    !canary.is_some_and(|(_, text)| matches!(text.parse(), Ok(Switch(true))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ingress_model::{RetryCauses, RetryPolicy, RoutePolicy, TlsRedirect, UpstreamPolicy};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let annotations = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let Reading {
            policy, warnings, ..
        } = super::read(&annotations, &base());
        (
            policy,
            warnings
                .into_iter()
                .map(|warning| format!("{}: {}", warning.key, warning.message))
                .collect(),
        )
    }

    fn base() -> Base {
        Base {
            prefixes: Prefixes::with(NGINX),
            policy: Policy::default(),
            denials: Vec::new(),
        }
    }

    const NGINX: &str = "nginx.ingress.kubernetes.io";

    /// The keys that deny, without their prefix.
    fn denied_by(pairs: &[(&str, &str)]) -> Vec<String> {
        let of = |prefix: &str| {
            let annotations = pairs
                .iter()
                .map(|(name, value)| (format!("{prefix}{name}"), value.to_string()))
                .collect();
            let reading = super::read(&annotations, &base());
            assert_eq!(reading.policy, Policy::default(), "{pairs:?}");
            let name = |denial: &Denial| denial.key.strip_prefix(prefix).unwrap().to_owned();
            reading.denials.iter().map(name).collect::<Vec<_>>()
        };
        let [ours, nginx] = ["forebay.dev/", "nginx.ingress.kubernetes.io/"].map(of);
        assert_eq!(ours, nginx, "{pairs:?}");
        ours
    }

    #[test]
    fn an_annotation_that_restricts_access_denies() {
        for (name, value) in [
            ("auth-type", "basic"),
            ("auth-type", "nonsense"),
            ("auth-secret", "users"),
            ("auth-url", "https://auth.example.com/verify"),
            // ingress-nginx cannot read these either, and denies.
            ("auth-type", "false"),
            ("auth-secret", "false"),
            ("auth-url", "false"),
            ("auth-tls-secret", "false"),
            ("whitelist-source-range", "false"),
            ("whitelist-source-range", " , "),
            ("denylist-source-range", " ,"),
            ("enable-global-auth", "true"),
            ("enable-global-auth", "yes"),
            ("auth-tls-secret", "default/ca"),
            ("auth-tls-verify-client", "on"),
            ("auth-tls-verify-client", "optional"),
            ("auth-tls-verify-client", "OFF"),
            ("auth-tls-match-cn", "CN=a"),
            ("whitelist-source-range", "192.0.2.0/24"),
            ("allowlist-source-range", "192.0.2.1, 2001:db8::/32"),
            ("whitelist-source-range", "0.0.0.0/0"),
            ("whitelist-source-range", "0.0.0.0/0,::/0,nonsense"),
            ("whitelist-source-range", "0.0.0.0/33,::/0"),
            ("denylist-source-range", "192.0.2.0/24"),
            ("denylist-source-range", "nonsense"),
            ("configuration-snippet", "deny all;"),
            ("server-snippet", "location /admin { return 403; }"),
            ("modsecurity-snippet", "SecRuleEngine On"),
            ("backend-protocol", "HTTPS"),
            ("backend-protocol", "grpc"),
            ("backend-protocol", "AUTO_HTTP"),
            ("ssl-passthrough", "true"),
        ] {
            assert_eq!(denied_by(&[(name, value)]), [name], "{name}: {value}");
        }
    }

    #[test]
    fn an_annotation_that_restricts_nobody_does_not_deny() {
        for pairs in [
            &[("whitelist-source-range", "0.0.0.0/0,::/0")][..],
            &[("allowlist-source-range", " ::/0 , 10.0.0.0/8, 0.0.0.0/0")],
            &[("whitelist-source-range", "192.0.2.1/0,2001:db8::/0")],
            &[("whitelist-source-range", "")],
            &[("denylist-source-range", " ")],
            &[("auth-type", "")],
            &[("enable-global-auth", "false")],
            &[("enable-global-auth", "F")],
            &[("auth-tls-verify-client", "off")],
            &[
                ("auth-tls-secret", "default/ca"),
                ("auth-tls-verify-client", "off"),
            ],
            &[("backend-protocol", "http")],
            &[("ssl-passthrough", "false")],
            &[("configuration-snippet", "more_set_headers \"X-A: b\";")],
            &[("modsecurity-snippet", "SecRuleEngine DetectionOnly")],
            // These tune what another one turns on.
            &[
                ("auth-realm", "x"),
                ("auth-secret-type", "auth-map"),
                ("auth-signin", "https://a.b"),
                ("auth-response-headers", "X-User"),
                ("auth-tls-verify-depth", "2"),
                ("auth-tls-pass-certificate-to-upstream", "true"),
                ("satisfy", "any"),
            ],
        ] {
            assert_eq!(denied_by(pairs), [] as [&str; 0], "{pairs:?}");
        }
    }

    #[test]
    fn our_own_prefix_can_lift_a_denial() {
        let (own, nginx) = (
            "forebay.dev/auth-url",
            "nginx.ingress.kubernetes.io/auth-url",
        );
        for (value, denies) in [("", false), ("https://b.c", true)] {
            let annotations = [(own, value), (nginx, "https://a.b")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            let denials = super::read(&annotations.into(), &base()).denials;
            assert_eq!(!denials.is_empty(), denies, "{value}");
        }
    }

    #[test]
    fn what_a_server_has_once_denies_the_whole_host() {
        for (name, value, scope) in [
            ("auth-url", "https://a.b", Scope::Route),
            ("auth-tls-secret", "default/ca", Scope::Host),
            ("server-snippet", "deny all;", Scope::Host),
            ("configuration-snippet", "deny all;", Scope::Route),
        ] {
            let key = format!("nginx.ingress.kubernetes.io/{name}");
            let denials = super::read(&[(key, value.to_owned())].into(), &base()).denials;
            assert_eq!(denials[0].scope, scope, "{name}");
        }
    }

    #[test]
    fn an_annotation_that_is_honoured_by_doing_nothing_is_no_warning() {
        let (_, warnings) = read(&[
            ("nginx.ingress.kubernetes.io/backend-protocol", "HTTP"),
            (
                "nginx.ingress.kubernetes.io/whitelist-source-range",
                "0.0.0.0/0,::/0",
            ),
            ("nginx.ingress.kubernetes.io/auth-url", "https://a.b"),
        ]);
        assert_eq!(warnings, [] as [&str; 0]);
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
            ("proxy-next-upstream", "http_502 timeout"),
            ("proxy-next-upstream-tries", "2"),
            ("proxy-next-upstream-timeout", "9"),
        ]
        .map(|(name, value)| (nginx(name), value));
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect();
        let expected = Policy {
            route: RoutePolicy {
                rewrite_target: Some("/$2".into()),
                use_regex: true,
                tls_redirect: TlsRedirect::Always,
                body_limit: Some(8 << 20),
            },
            upstream: UpstreamPolicy {
                connect_timeout: Duration::from_secs(7),
                read_timeout: Duration::from_secs(3600),
                send_timeout: Duration::from_secs(30),
                retry: RetryPolicy {
                    tries: 2,
                    within: Some(Duration::from_secs(9)),
                    causes: RetryCauses {
                        timeout: true,
                        statuses: [502].into(),
                        ..RetryCauses::none()
                    },
                },
            },
        };
        assert_eq!(read(&pairs), (expected, vec![]));
        let read = registry::rows().filter(|row| matches!(row.support, Support::Read { .. }));
        assert_eq!(pairs.len(), read.count());
    }

    #[test]
    fn a_body_may_have_one_mebibyte_unless_an_annotation_says_otherwise() {
        let key = "nginx.ingress.kubernetes.io/proxy-body-size";
        for (pairs, limit) in [
            (&[][..], Some(1 << 20)),
            (&[(key, "8m")], Some(8 << 20)),
            (&[(key, "0")], None),
        ] {
            assert_eq!(read(pairs).0.route.body_limit, limit, "{pairs:?}");
        }
    }

    #[test]
    fn our_own_prefix_wins() {
        let (policy, warnings) = read(&[
            ("forebay.dev/proxy-read-timeout", "1"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "2"),
        ]);
        assert_eq!(
            (policy.upstream.read_timeout, warnings),
            (Duration::from_secs(1), vec![])
        );
    }

    #[test]
    fn bad_values_keep_the_default_and_name_the_key() {
        for (name, value) in [
            ("ssl-redirect", "yes"),
            ("proxy-connect-timeout", "5s"),
            ("proxy-connect-timeout", "0"),
            ("proxy-read-timeout", "-1"),
            ("proxy-send-timeout", "99999999999999999999"),
            ("proxy-body-size", "1 m"),
            ("proxy-body-size", "99999999999g"),
            ("proxy-next-upstream", "error http_501"),
            ("proxy-next-upstream-tries", "-1"),
            ("proxy-next-upstream-timeout", "5s"),
        ] {
            let key = format!("nginx.ingress.kubernetes.io/{name}");
            let (policy, warnings) = read(&[(&key, value)]);
            assert_eq!(policy, Policy::default(), "{name}: {value}");
            assert_eq!(warnings.len(), 1, "{name}: {value}");
            assert!(warnings[0].starts_with(&key), "{warnings:?}");
        }
    }

    #[test]
    fn a_problem_quotes_no_more_of_a_value_than_a_line_holds() {
        for row in registry::rows() {
            let Support::Read { bad, .. } = row.support else {
                continue;
            };
            let key = format!("{NGINX}/{}", row.names[0]);
            for value in ["é".repeat(200), "\u{1}".repeat(200_000)] {
                let annotations = [(key.clone(), value)].into();
                let Reading {
                    warnings, spoiled, ..
                } = super::read(&annotations, &base());
                let remarks = match bad {
                    BadValue::Default => warnings,
                    BadValue::KeepLastGood => spoiled,
                };
                assert_eq!(remarks.len(), 1, "{key}");
                let message = &remarks[0].message;
                assert!(message.len() < 600, "{}", message.len());
            }
        }
    }

    #[test]
    fn what_a_default_would_send_to_a_wrong_place_spoils_the_ingress() {
        for (name, value) in [
            ("rewrite-target", "/a b"),
            ("rewrite-target", "/$2?x=1"),
            ("use-regex", "yes"),
        ] {
            let key = format!("{NGINX}/{name}");
            let reading = super::read(&[(key.clone(), value.to_owned())].into(), &base());
            assert_eq!(reading.spoiled.len(), 1, "{name}: {value}");
            assert_eq!(reading.spoiled[0].key, key);
        }
    }

    #[test]
    fn a_time_longer_than_a_day_is_a_day_and_said() {
        let key = "nginx.ingress.kubernetes.io/proxy-read-timeout";
        let (policy, warnings) = read(&[(key, "604800")]);
        assert_eq!(policy.upstream.read_timeout, Duration::from_secs(86_400));
        assert_eq!(
            warnings,
            [format!(
                "{key}: 604800 is more than 86400 seconds, which apply"
            )]
        );
    }

    #[test]
    fn another_prefix_takes_the_place_of_nginx() {
        let base = Base {
            prefixes: Prefixes::with("example.com/"),
            ..base()
        };
        for (key, seconds) in [
            ("example.com/proxy-read-timeout", 1),
            ("forebay.dev/proxy-read-timeout", 1),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", 60),
        ] {
            let reading = super::read(&[(key.to_owned(), "1".to_owned())].into(), &base);
            let time = reading.policy.upstream.read_timeout;
            assert_eq!(time, Duration::from_secs(seconds), "{key}");
            assert_eq!(reading.warnings, [], "{key}");
        }
    }

    #[test]
    fn annotations_without_effect_are_said_and_those_of_others_are_not() {
        let (policy, warnings) = read(&[
            ("cert-manager.io/cluster-issuer", "x"),
            ("forebay.dev/nonsense", "x"),
            ("kubernetes.io/tls-acme", "true"),
            ("nginx.ingress.kubernetes.io/affinity", "cookie"),
            ("nginx.ingress.kubernetes.io/enable-rewrite-log", "true"),
            (
                "nginx.ingress.kubernetes.io/server-snippet",
                "add_header A b;",
            ),
        ]);
        assert_eq!(policy, Policy::default());
        assert_eq!(
            warnings,
            [
                "forebay.dev/nonsense: no such annotation of forebay.dev; ignored",
                "nginx.ingress.kubernetes.io/affinity: not supported yet; ignored",
                "nginx.ingress.kubernetes.io/server-snippet: never supported: templates are an attack vector; ignored",
            ]
        );
    }
}
