//! Annotations of ingress-nginx that are read by name only, so that nobody wonders why one does
//! nothing. Those that must not be ignored are in `denial`.

/// What becomes of an annotation that is known and not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It asks for nothing that a proxy without nginx could lack.
    NoEffect,
    /// Later.
    NotYet,
    /// Not at all, and why.
    Never(&'static str),
}

/// What becomes of `name`, which has no prefix; `None` where ingress-nginx has no such annotation.
pub(super) fn find(name: &str) -> Option<Verdict> {
    if NO_EFFECT.contains(&name) {
        return Some(Verdict::NoEffect);
    }
    if SNIPPETS.contains(&name) {
        return Some(Verdict::Never("templates are an attack vector"));
    }
    NOT_YET.contains(&name).then_some(Verdict::NotYet)
}

const NO_EFFECT: [&str; 6] = [
    "enable-rewrite-log",
    "http2-push-preload",
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
];

const SNIPPETS: [&str; 5] = [
    "auth-snippet",
    "configuration-snippet",
    "modsecurity-snippet",
    "server-snippet",
    "stream-snippet",
];

#[rustfmt::skip]
const NOT_YET: &[&str] = &[
    // Routing and redirects.
    "app-root", "from-to-www-redirect", "permanent-redirect", "permanent-redirect-code", "preserve-trailing-slash",
    "relative-redirects", "server-alias", "temporal-redirect", "temporal-redirect-code", "upstream-vhost",
    "use-port-in-redirects", "x-forwarded-prefix",
    // TLS in front and to the backend.
    "proxy-ssl-ciphers", "proxy-ssl-name", "proxy-ssl-protocols", "proxy-ssl-secret", "proxy-ssl-server-name",
    "proxy-ssl-verify", "proxy-ssl-verify-depth", "ssl-ciphers", "ssl-prefer-server-ciphers",
    // Who may pass: these only tune what an annotation of `denial` turns on.
    "auth-always-set-cookie", "auth-cache-duration", "auth-cache-key", "auth-method", "auth-proxy-set-headers",
    "auth-realm", "auth-request-redirect", "auth-response-headers", "auth-secret-type", "auth-signin",
    "auth-signin-redirect-param", "auth-tls-error-page", "auth-tls-pass-certificate-to-upstream",
    "auth-tls-verify-depth", "satisfy",
    // Canary and affinity.
    "affinity", "affinity-canary-behavior", "affinity-mode", "canary", "canary-by-cookie", "canary-by-header",
    "canary-by-header-pattern", "canary-by-header-value", "canary-weight", "canary-weight-total",
    "session-cookie-change-on-failure", "session-cookie-conditional-samesite-none", "session-cookie-domain",
    "session-cookie-expires", "session-cookie-max-age", "session-cookie-name", "session-cookie-path",
    "session-cookie-samesite", "session-cookie-secure",
    // Limits, buffers, retries.
    "client-body-buffer-size", "connection-proxy-header", "limit-allowlist", "limit-burst-multiplier",
    "limit-connections", "limit-rate", "limit-rate-after", "limit-rpm", "limit-rps", "limit-whitelist",
    "proxy-buffer-size", "proxy-buffering", "proxy-buffers-number", "proxy-busy-buffers-size", "proxy-cookie-domain",
    "proxy-cookie-path", "proxy-http-version", "proxy-max-temp-file-size",
    "proxy-redirect-from", "proxy-redirect-to",
    "proxy-request-buffering",
    // Backends.
    "fastcgi-index", "fastcgi-params-configmap", "load-balance", "service-upstream",
    "upstream-hash-by", "upstream-hash-by-subset", "upstream-hash-by-subset-size",
    // Responses, mirrors, CORS, logs.
    "cors-allow-credentials", "cors-allow-headers", "cors-allow-methods", "cors-allow-origin", "cors-expose-headers",
    "cors-max-age", "custom-headers", "custom-http-errors", "default-backend", "disable-proxy-intercept-errors",
    "enable-access-log", "enable-cors", "enable-modsecurity", "enable-opentelemetry", "enable-owasp-core-rules",
    "mirror-host", "mirror-request-body", "mirror-target", "modsecurity-transaction-id",
    "opentelemetry-operation-name", "opentelemetry-trust-incoming-span",
];
