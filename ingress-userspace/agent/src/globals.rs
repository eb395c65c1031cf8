//! The controller's ConfigMap (`--configmap`): what every Ingress starts from.
//!
//! Its keys are those of ingress-nginx. One that restricts access and cannot be honoured denies every
//! rule that does not opt out: access control never fails open.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{
    annotation::{Base, Denial, Prefixes, set_by_name},
    kept::Item,
};
use ingress_model::{ObjectName, Policy, Problem, Subject};

/// Keys that mean what the annotation of the same name means.
const LIKE_ANNOTATIONS: [&str; 9] = [
    "ssl-redirect",
    "force-ssl-redirect",
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "proxy-next-upstream",
    "proxy-next-upstream-tries",
    "proxy-next-upstream-timeout",
];

/// Keys that say who may pass.
const RESTRICTING: [&str; 7] = [
    "global-auth-url",
    "whitelist-source-range",
    "allowlist-source-range",
    "denylist-source-range",
    "block-cidrs",
    "block-user-agents",
    "block-referers",
];

/// Keys that ask for nothing that a proxy without nginx could lack.
#[rustfmt::skip]
const HARMLESS: [&str; 17] = [
    "allow-snippet-annotations", "annotations-risk-level", "annotation-value-word-blocklist", "bind-address",
    "disable-ipv6", "disable-ipv6-dns", "enable-multi-accept", "generate-request-id", "max-worker-connections",
    "max-worker-open-files", "nginx-status-ipv4-whitelist", "nginx-status-ipv6-whitelist", "plugins", "reuse-port",
    "strict-validate-path-type", "use-http2", "worker-shutdown-timeout",
];

/// Beginnings of such keys.
const HARMLESS_PREFIXES: [&str; 6] = [
    "lua-",
    "map-hash-",
    "proxy-headers-hash-",
    "server-name-hash-",
    "variables-hash-",
    "worker-",
];

/// Keys that ingress-nginx has and Forebay does not read yet.
#[rustfmt::skip]
const NOT_YET: &[&str] = &[
    "access-log-params", "access-log-path", "add-headers", "allow-backend-server-header",
    "allow-cross-namespace-resources", "client-body-buffer-size", "client-body-timeout", "client-header-buffer-size",
    "client-header-timeout", "compute-full-forwarded-for", "custom-http-errors", "debug-connections",
    "disable-access-log", "enable-access-log-for-default-backend", "enable-brotli", "enable-modsecurity",
    "enable-ocsp", "enable-opentelemetry", "enable-owasp-modsecurity-crs", "enable-real-ip", "enable-syslog",
    "enable-underscores-in-headers", "error-log-level", "error-log-path", "forwarded-for-header",
    "global-allowed-response-headers", "gzip-level", "gzip-min-length", "gzip-types", "hide-headers", "hsts",
    "hsts-include-subdomains", "hsts-max-age", "hsts-preload", "http-access-log-path", "http-redirect-code",
    "http2-max-concurrent-streams", "http2-max-field-size", "http2-max-header-size", "http2-max-requests",
    "ignore-invalid-headers", "keep-alive", "keep-alive-requests", "large-client-header-buffers", "limit-conn-status-code",
    "limit-conn-zone-variable", "limit-rate", "limit-rate-after", "limit-req-status-code", "load-balance",
    "log-format-escape-json", "log-format-escape-none", "log-format-stream", "log-format-upstream",
    "no-auth-locations", "no-tls-redirect-locations", "proxy-add-original-uri-header", "proxy-buffer-size",
    "proxy-buffering", "proxy-buffers-number", "proxy-busy-buffers-size", "proxy-cookie-domain", "proxy-cookie-path",
    "proxy-http-version", "proxy-max-temp-file-size", "proxy-protocol-header-timeout", "proxy-real-ip-cidr",
    "proxy-redirect-from", "proxy-redirect-to", "proxy-request-buffering", "proxy-set-headers",
    "proxy-ssl-location-only", "proxy-stream-next-upstream", "proxy-stream-next-upstream-timeout",
    "proxy-stream-next-upstream-tries", "proxy-stream-responses", "proxy-stream-timeout", "relative-redirects",
    "retry-non-idempotent", "server-tokens", "service-upstream", "skip-access-log-urls", "ssl-buffer-size",
    "ssl-ciphers", "ssl-dh-param", "ssl-early-data", "ssl-ecdh-curve", "ssl-protocols", "ssl-reject-handshake",
    "ssl-session-cache", "ssl-session-cache-size", "ssl-session-ticket-key", "ssl-session-tickets",
    "ssl-session-timeout", "stream-access-log-path", "syslog-host", "syslog-port", "upstream-keepalive-connections",
    "upstream-keepalive-requests", "upstream-keepalive-time", "upstream-keepalive-timeout", "use-forwarded-headers",
    "use-geoip", "use-geoip2", "use-gzip", "use-port-in-redirects", "use-proxy-protocol",
];

/// Beginnings of such keys.
const NOT_YET_PREFIXES: [&str; 6] = [
    "brotli-",
    "global-auth-",
    "grpc-buffer-",
    "modsecurity-",
    "opentelemetry-",
    "otel-",
];

/// The last value of each key that could be read, as long as the ConfigMap has the key.
#[derive(Debug, Default)]
pub(super) struct LastGood(BTreeMap<String, String>);

/// What the ConfigMap called `name` says; the defaults of ingress-nginx where there is none. A value
/// that cannot be read leaves the key as it was.
pub(super) fn read(
    prefixes: Prefixes,
    found: Option<(&ObjectName, &Item<ConfigMap>)>,
    last_good: &mut LastGood,
) -> (Base, Vec<Problem>) {
    let mut base = Base {
        prefixes,
        policy: Policy::default(),
        denials: Vec::new(),
    };
    let mut problems = Vec::new();
    let Some((name, item)) = found else {
        last_good.0.clear();
        return (base, problems);
    };
    let subject = Subject::object(&item.reference(name)).read_from(item.file.as_deref());
    let none = BTreeMap::new();
    let data = item.object.data.as_ref().unwrap_or(&none);
    last_good.0.retain(|key, _| data.contains_key(key));
    for (key, text) in data {
        let field = format!("data.{key}");
        let (key, text) = (key.as_str(), text.trim());
        if text.is_empty() {
            continue;
        }
        if LIKE_ANNOTATIONS.contains(&key) {
            match set_by_name(key, text, &mut base.policy) {
                Ok(note) => {
                    last_good.0.insert(key.to_owned(), text.to_owned());
                    problems.extend(note.map(|note| subject.warning(field, note)));
                }
                Err(error) => {
                    let good = last_good.0.get(key);
                    let good = good.filter(|good| set_by_name(key, good, &mut base.policy).is_ok());
                    let instead = match good {
                        Some(good) => format!("its last good value {good:?} stays in force"),
                        None => "the default applies".to_owned(),
                    };
                    problems.push(subject.warning(field, format!("{error}; {instead}")));
                }
            }
        } else if let Some(denial) = denial(key, text) {
            let message = format!("{}; rules that do not opt out get 503", denial.reason);
            problems.push(subject.error(field, message));
            base.denials.push(denial);
        } else if let Some(message) = ignored(key) {
            problems.push(subject.warning(field, message));
        }
    }
    (base, problems)
}

/// What denies every rule for a key that restricts.
fn denial(key: &str, text: &str) -> Option<Denial> {
    if !RESTRICTING.contains(&key) {
        return None;
    }
    let allows = matches!(key, "whitelist-source-range" | "allowlist-source-range");
    let asks = !allows || super::annotation::leaves_someone_out(text);
    asks.then(|| Denial::of_all(key))
}

/// Why a key is ignored; `None` where there is nothing to say.
fn ignored(key: &str) -> Option<&'static str> {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    if RESTRICTING.contains(&key) || HARMLESS.contains(&key) || begins(&HARMLESS_PREFIXES) {
        None
    } else if key.ends_with("-snippet") {
        Some("never supported: templates are an attack vector; ignored")
    } else if NOT_YET.contains(&key) || begins(&NOT_YET_PREFIXES) {
        Some("not supported yet; ignored")
    } else {
        Some("no such key of ingress-nginx; ignored")
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Base, Vec<String>) {
        read_after(pairs, &mut LastGood::default())
    }

    fn read_after(pairs: &[(&str, &str)], last_good: &mut LastGood) -> (Base, Vec<String>) {
        let pair = |(key, text): &(&str, &str)| (key.to_string(), text.to_string());
        let object = ConfigMap {
            data: Some(pairs.iter().map(pair).collect()),
            ..ConfigMap::default()
        };
        let item = Item {
            object: Arc::new(object),
            file: None,
        };
        let name = ObjectName::new("forebay", "config");
        let prefixes = Prefixes::with("nginx.ingress.kubernetes.io");
        let (base, problems) = super::read(prefixes, Some((&name, &item)), last_good);
        (base, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_like_annotations_are_the_base_of_every_policy() {
        let (base, problems) = read(&[("proxy-read-timeout", "7"), ("proxy-body-size", "2m")]);
        assert_eq!(base.policy.upstream.read_timeout, Duration::from_secs(7));
        assert_eq!(base.policy.route.body_limit, Some(2 << 20));
        assert_eq!((base.denials.len(), problems), (0, vec![]));
    }

    #[test]
    fn a_bad_value_leaves_the_default_and_names_the_key() {
        let (base, problems) = read(&[("proxy-read-timeout", "7s"), ("nonsense", "1")]);
        assert_eq!(base.policy, Policy::default());
        assert_eq!(
            problems,
            [
                "ConfigMap forebay/config: data.nonsense: no such key of ingress-nginx; ignored",
                "ConfigMap forebay/config: data.proxy-read-timeout: \"7s\" is not a whole number of seconds without a \
                 unit; the default applies",
            ]
        );
    }

    #[test]
    fn a_bad_value_leaves_the_last_good_one_until_its_key_is_gone() {
        let key = "proxy-read-timeout";
        let mut last_good = LastGood::default();
        for (pairs, seconds, stays) in [
            (&[(key, "7")][..], 7, false),
            (&[(key, "7s")], 7, true),
            (&[(key, "8s")], 7, true),
            (&[(key, "9")], 9, false),
            (&[(key, "x")], 9, true),
            (&[], 60, false),
            (&[(key, "x")], 60, false),
        ] {
            let (base, problems) = read_after(pairs, &mut last_good);
            let timeout = base.policy.upstream.read_timeout;
            assert_eq!(timeout, Duration::from_secs(seconds), "{pairs:?}");
            let says = problems.concat().contains("stays in force");
            assert_eq!(says, stays, "{pairs:?}: {problems:?}");
        }
    }

    #[test]
    fn what_restricts_and_cannot_be_honoured_denies() {
        for (key, text, denies) in [
            ("global-auth-url", "https://auth.test", true),
            ("global-auth-url", " ", false),
            ("whitelist-source-range", "192.0.2.0/24", true),
            ("whitelist-source-range", "0.0.0.0/0,::/0", false),
            ("denylist-source-range", "192.0.2.0/24", true),
            ("block-user-agents", "bot", true),
            ("use-http2", "true", false),
        ] {
            let (base, problems) = read(&[(key, text)]);
            assert_eq!(base.denials.len(), usize::from(denies), "{key}: {text}");
            assert_eq!(!problems.is_empty(), denies, "{key}: {problems:?}");
        }
    }

    #[test]
    fn every_key_is_in_one_list() {
        let lists = [&LIKE_ANNOTATIONS[..], &RESTRICTING, &HARMLESS, NOT_YET];
        let mut seen = std::collections::BTreeSet::new();
        for key in lists.into_iter().flatten() {
            assert!(seen.insert(key), "{key}");
        }
    }
}
