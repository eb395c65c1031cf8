//! Every annotation that is known, in one table: what it is for, how it reads, and what happens where
//! it cannot be honoured. The reader, the reference page and its tests follow it.
//!
//! A new annotation is a row of `rows`, a field of a policy and code in one phase of a request.

use super::{
    row::Row,
    rows::{
        access, affinity, auth, backend, canary, cors, limits, observe, proxy, redirect, routing,
        tls,
    },
};

/// Every row by topic, in the order in which they are read: of two that set the same, the later
/// wins.
pub(super) const TOPICS: [(&str, &[Row]); 12] = [
    ("Paths and hosts", routing::ROWS),
    ("Redirects", redirect::ROWS),
    ("TLS", tls::ROWS),
    ("Authentication", auth::ROWS),
    ("Access by address", access::ROWS),
    ("CORS", cors::ROWS),
    ("Limits", limits::ROWS),
    ("Canaries", canary::ROWS),
    ("Session affinity", affinity::ROWS),
    ("Bodies, times and retries", proxy::ROWS),
    ("Backends", backend::ROWS),
    ("Responses, mirrors, logs and snippets", observe::ROWS),
];

/// Every row.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    TOPICS.into_iter().flat_map(|(_, rows)| rows)
}

/// The row of a name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::row::{Otherwise, Risk, Support},
        *,
    };

    /// The names in ingress-nginx's "Annotations" and "Annotations Risks", and the aliases of them that
    /// its parsers accept.
    #[rustfmt::skip]
    const NAMES: &[&str] = &[
        "affinity", "affinity-canary-behavior", "affinity-mode", "allowlist-source-range", "app-root",
        "auth-always-set-cookie", "auth-cache-duration", "auth-cache-key", "auth-keepalive",
        "auth-keepalive-requests", "auth-keepalive-share-vars", "auth-keepalive-timeout", "auth-method",
        "auth-proxy-set-headers", "auth-realm", "auth-request-redirect", "auth-response-headers", "auth-secret",
        "auth-secret-type", "auth-signin", "auth-signin-redirect-param", "auth-snippet", "auth-tls-error-page",
        "auth-tls-match-cn", "auth-tls-pass-certificate-to-upstream", "auth-tls-secret", "auth-tls-verify-client",
        "auth-tls-verify-depth", "auth-type", "auth-url", "backend-protocol", "canary", "canary-by-cookie",
        "canary-by-header", "canary-by-header-pattern", "canary-by-header-value", "canary-weight",
        "canary-weight-total", "client-body-buffer-size", "configuration-snippet", "connection-proxy-header",
        "cors-allow-credentials", "cors-allow-headers", "cors-allow-methods", "cors-allow-origin",
        "cors-expose-headers", "cors-max-age", "custom-headers", "custom-http-errors", "default-backend",
        "denylist-source-range", "disable-proxy-intercept-errors", "enable-access-log", "enable-cors",
        "enable-global-auth", "enable-modsecurity", "enable-opentelemetry", "enable-owasp-core-rules",
        "enable-rewrite-log", "fastcgi-index", "fastcgi-params-configmap", "force-ssl-redirect",
        "from-to-www-redirect", "http2-push-preload", "limit-allowlist", "limit-burst-multiplier",
        "limit-connections", "limit-rate", "limit-rate-after", "limit-rpm", "limit-rps", "limit-whitelist",
        "load-balance", "mirror-host", "mirror-request-body", "mirror-target", "modsecurity-snippet",
        "modsecurity-transaction-id", "opentelemetry-operation-name", "opentelemetry-trust-incoming-span",
        "permanent-redirect", "permanent-redirect-code", "preserve-trailing-slash", "proxy-body-size",
        "proxy-buffer-size", "proxy-buffering", "proxy-buffers-number", "proxy-busy-buffers-size",
        "proxy-connect-timeout", "proxy-cookie-domain", "proxy-cookie-path", "proxy-http-version",
        "proxy-max-temp-file-size", "proxy-next-upstream", "proxy-next-upstream-timeout", "proxy-next-upstream-tries",
        "proxy-read-timeout", "proxy-redirect-from", "proxy-redirect-to", "proxy-request-buffering",
        "proxy-send-timeout", "proxy-ssl-ciphers", "proxy-ssl-name", "proxy-ssl-protocols", "proxy-ssl-secret",
        "proxy-ssl-server-name", "proxy-ssl-verify", "proxy-ssl-verify-depth", "relative-redirects", "rewrite-target",
        "satisfy", "server-alias", "server-snippet", "service-upstream", "session-cookie-change-on-failure",
        "session-cookie-conditional-samesite-none", "session-cookie-domain", "session-cookie-expires",
        "session-cookie-max-age", "session-cookie-name", "session-cookie-path", "session-cookie-samesite",
        "session-cookie-secure", "ssl-ciphers", "ssl-passthrough", "ssl-prefer-server-ciphers", "ssl-redirect",
        "stream-snippet", "temporal-redirect", "temporal-redirect-code", "upstream-hash-by",
        "upstream-hash-by-subset", "upstream-hash-by-subset-size", "upstream-vhost", "use-port-in-redirects",
        "use-regex", "whitelist-source-range", "x-forwarded-prefix",
    ];

    #[test]
    fn every_annotation_of_ingress_nginx_has_one_row() {
        let mut seen = BTreeSet::new();
        for name in rows().flat_map(|row| row.names) {
            assert!(seen.insert(*name), "{name} has two rows");
        }
        let expected: BTreeSet<_> = NAMES.iter().copied().collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_critical_is_never_served() {
        for row in rows().filter(|row| row.risk == Risk::Critical) {
            let refused = matches!(
                row.support,
                Support::Never(_)
                    | Support::Denies {
                        otherwise: Otherwise::Never(_),
                        ..
                    }
            );
            assert!(refused, "{}", row.names[0]);
        }
    }
}
