//! Annotations of an Ingress → a typed policy, once. A bad value causes a warning and the default
//! applies; an unsupported restriction denies the route.
//!
//! Two prefixes mean the same: `nginx.ingress.kubernetes.io/`, and our own `forebay.dev/`, which
//! wins.

mod annotations;
mod denial;
mod known;
mod snippet;
mod value;

use std::collections::BTreeMap;

use annotations::{Annotations, PREFIXES};
use value::{
    BodyLimit, Causes, ConnectTimeout, RetryTime, RewriteTarget, StreamTimeout, Switch, Tries,
};

use ingress_model::{Policy, RoutePolicy, TlsRedirect, UpstreamPolicy};

pub(super) use denial::{Denial, Scope};

/// Names that become part of a [`Policy`].
const SUPPORTED: [&str; 11] = [
    "rewrite-target",
    "use-regex",
    "ssl-redirect",
    "force-ssl-redirect",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "proxy-body-size",
    "proxy-next-upstream",
    "proxy-next-upstream-tries",
    "proxy-next-upstream-timeout",
];

/// Makes an Ingress an alternative to another one, with that one's host, path and access control.
const CANARY: &str = "canary";

/// An annotation that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
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
    pub(super) warnings: Vec<Warning>,
}

/// Reads the annotations with our two prefixes and ignores others.
pub(super) fn read(annotations: &BTreeMap<String, String>) -> Reading {
    let annotations = Annotations(annotations);
    let mut reader = Reader {
        annotations,
        warnings: Vec::new(),
    };
    let mut policy = Policy::default();
    reader.route(&mut policy.route);
    reader.upstream(&mut policy.upstream);
    let canary = annotations
        .find(CANARY)
        .filter(|(_, text)| matches!(text.parse(), Ok(Switch(true))))
        .map(|(key, _)| key.to_owned());
    let denials = denial::find(&annotations);
    reader.warn_of_the_rest(&denials, canary.as_deref());
    Reading {
        policy,
        canary,
        denials,
        warnings: reader.warnings,
    }
}

struct Reader<'a> {
    annotations: Annotations<'a>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn route(&mut self, policy: &mut RoutePolicy) {
        self.read("rewrite-target", |RewriteTarget(target)| {
            policy.rewrite_target = Some(target)
        });
        self.read("use-regex", |Switch(on)| policy.use_regex = on);
        self.read("ssl-redirect", |Switch(on)| {
            policy.tls_redirect = if on {
                TlsRedirect::WithTls
            } else {
                TlsRedirect::Never
            }
        });
        self.read("force-ssl-redirect", |Switch(on)| {
            if on {
                policy.tls_redirect = TlsRedirect::Always
            }
        });
        self.read("proxy-body-size", |BodyLimit(limit)| {
            policy.body_limit = limit
        });
    }

    fn upstream(&mut self, policy: &mut UpstreamPolicy) {
        self.read("proxy-connect-timeout", |ConnectTimeout(time)| {
            policy.connect_timeout = time
        });
        self.read("proxy-read-timeout", |StreamTimeout(time)| {
            policy.read_timeout = time
        });
        self.read("proxy-send-timeout", |StreamTimeout(time)| {
            policy.send_timeout = time
        });
        let retry = &mut policy.retry;
        self.read("proxy-next-upstream", |Causes(causes)| {
            retry.causes = causes
        });
        self.read("proxy-next-upstream-tries", |Tries(tries)| {
            retry.tries = tries
        });
        self.read("proxy-next-upstream-timeout", |RetryTime(time)| {
            retry.within = time
        });
    }

    fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
        set: impl FnOnce(T),
    ) {
        let Some((key, text)) = self.annotations.find(name) else {
            return;
        };
        match text.parse() {
            Ok(value) => set(value),
            Err(error) => {
                self.warnings.push(Warning {
                    key: key.to_owned(),
                    message: format!("{error}; the default applies"),
                });
            }
        }
    }

    /// Warns of what is neither read, nor a denial, nor the key of a canary.
    fn warn_of_the_rest(&mut self, denials: &[Denial], canary: Option<&str>) {
        for key in self.annotations.0.keys() {
            let Some((prefix, name)) = PREFIXES
                .iter()
                .find_map(|prefix| Some((prefix, key.strip_prefix(prefix)?)))
            else {
                continue;
            };
            let has_its_own_problem =
                canary == Some(key) || denials.iter().any(|denial| denial.key == *key);
            if SUPPORTED.contains(&name) || has_its_own_problem {
                continue;
            }
            let message = match known::find(name) {
                Some(known::Verdict::NoEffect) => continue,
                Some(known::Verdict::NotYet) => "not supported yet; ignored".to_owned(),
                Some(known::Verdict::Never(reason)) => {
                    format!("never supported: {reason}; ignored")
                }
                // It asks for nothing, or for what every route has.
                None if denial::knows(name) => continue,
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

    use ingress_model::{RetryCauses, RetryPolicy};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let annotations = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let Reading {
            policy, warnings, ..
        } = super::read(&annotations);
        (
            policy,
            warnings
                .into_iter()
                .map(|warning| format!("{}: {}", warning.key, warning.message))
                .collect(),
        )
    }

    /// The keys that deny, without their prefix.
    fn denied_by(pairs: &[(&str, &str)]) -> Vec<String> {
        let of = |prefix: &str| {
            let annotations = pairs
                .iter()
                .map(|(name, value)| (format!("{prefix}{name}"), value.to_string()))
                .collect();
            let reading = super::read(&annotations);
            assert_eq!(reading.policy, Policy::default(), "{pairs:?}");
            let name = |denial: &Denial| denial.key.strip_prefix(prefix).unwrap().to_owned();
            reading.denials.iter().map(name).collect::<Vec<_>>()
        };
        let [ours, nginx] = PREFIXES.map(of);
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
            let denials = super::read(&annotations.into()).denials;
            assert_eq!(!denials.is_empty(), denies, "{value}");
        }
    }

    #[test]
    fn what_a_server_has_once_denies_the_whole_host() {
        for (name, value, scope) in [
            ("auth-url", "https://a.b", Scope::Ingress),
            ("auth-tls-secret", "default/ca", Scope::Host),
            ("server-snippet", "deny all;", Scope::Host),
            ("configuration-snippet", "deny all;", Scope::Ingress),
        ] {
            let key = format!("nginx.ingress.kubernetes.io/{name}");
            let denials = super::read(&[(key, value.to_owned())].into()).denials;
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
        assert_eq!(pairs.len(), SUPPORTED.len());
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
            ("proxy-next-upstream", "error http_501"),
            ("proxy-next-upstream", ""),
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
        for name in SUPPORTED {
            let key = format!("nginx.ingress.kubernetes.io/{name}");
            for value in ["é".repeat(200), "\u{1}".repeat(200_000)] {
                let (_, warnings) = read(&[(&key, &value)]);
                assert_eq!(warnings.len(), 1, "{name}");
                assert!(warnings[0].len() < 600, "{}", warnings[0].len());
                assert!(warnings[0].contains("default applies"), "{warnings:?}");
            }
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
