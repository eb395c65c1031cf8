//! Annotations that Forebay cannot honour and must not ignore: they say who may pass, or how a
//! backend must be spoken to.
//!
//! Their routes are denied, so that access control never fails open. Source: ingress-nginx,
//! "Annotations"; which names only tune another one was read from its templates.

use super::{annotations::Annotations, snippet, value};

/// Which routes a denial reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the Ingress itself.
    Ingress,
    /// All of its hosts: nginx has the setting once per server.
    Host,
}

/// Why an Ingress cannot be served as it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The whole key.
    pub(crate) key: String,
    /// Which routes are denied.
    pub(crate) scope: Scope,
    /// Lower case, no full stop.
    pub(crate) reason: &'static str,
}

/// One annotation, and when it restricts.
struct Rule {
    name: &'static str,
    restricts: fn(&str) -> bool,
    scope: Scope,
    reason: &'static str,
}

const fn rule(
    name: &'static str,
    restricts: fn(&str) -> bool,
    scope: Scope,
    reason: &'static str,
) -> Rule {
    Rule {
        name,
        restricts,
        scope,
        reason,
    }
}

const BASIC_AUTH: &str = "basic and digest authentication are not supported";
const EXTERNAL_AUTH: &str = "external authentication is not supported";
const CLIENT_CERTIFICATES: &str = "client certificates are not supported";
const ADDRESSES: &str = "restricting access by address is not supported";
const SNIPPET: &str = "snippets are not supported, and this one may restrict access";

/// The client certificate that `auth-tls-verify-client: off` does not ask for.
const CLIENT_CA: &str = "auth-tls-secret";
const VERIFY_CLIENT: &str = "auth-tls-verify-client";

/// Every annotation whose loss would let someone pass, or would send in plain text what was to be
/// encrypted. No row needs to say that an empty value asks for nothing.
const RULES: [Rule; 15] = [
    rule("auth-type", always, Scope::Ingress, BASIC_AUTH),
    rule("auth-secret", always, Scope::Ingress, BASIC_AUTH),
    rule("auth-url", always, Scope::Ingress, EXTERNAL_AUTH),
    rule(
        "enable-global-auth",
        unless_off,
        Scope::Ingress,
        EXTERNAL_AUTH,
    ),
    rule(CLIENT_CA, always, Scope::Host, CLIENT_CERTIFICATES),
    rule(
        VERIFY_CLIENT,
        |value| value != "off",
        Scope::Host,
        CLIENT_CERTIFICATES,
    ),
    rule(
        "auth-tls-match-cn",
        always,
        Scope::Host,
        CLIENT_CERTIFICATES,
    ),
    rule(
        "allowlist-source-range",
        leaves_someone_out,
        Scope::Ingress,
        ADDRESSES,
    ),
    rule(
        "whitelist-source-range",
        leaves_someone_out,
        Scope::Ingress,
        ADDRESSES,
    ),
    rule("denylist-source-range", always, Scope::Ingress, ADDRESSES),
    rule(
        "configuration-snippet",
        snippet::may_restrict,
        Scope::Ingress,
        SNIPPET,
    ),
    rule(
        "server-snippet",
        snippet::may_restrict,
        Scope::Host,
        SNIPPET,
    ),
    rule(
        "modsecurity-snippet",
        snippet::turns_modsecurity_on,
        Scope::Ingress,
        "ModSecurity is not supported",
    ),
    rule(
        "backend-protocol",
        |value| !value.eq_ignore_ascii_case("HTTP"),
        Scope::Ingress,
        "only plain HTTP to backends is supported",
    ),
    rule(
        "ssl-passthrough",
        unless_off,
        Scope::Ingress,
        "TLS passthrough is not supported",
    ),
];

/// What denies the routes of an Ingress.
pub(super) fn find(annotations: &Annotations<'_>) -> Vec<Denial> {
    let no_client_certificate = annotations
        .find(VERIFY_CLIENT)
        .is_some_and(|(_, value)| value == "off");
    RULES
        .iter()
        .filter(|rule| !(rule.name == CLIENT_CA && no_client_certificate))
        .filter_map(|rule| {
            let (key, value) = annotations.find(rule.name)?;
            (!value.is_empty() && (rule.restricts)(value)).then(|| Denial {
                key: key.to_owned(),
                scope: rule.scope,
                reason: rule.reason,
            })
        })
        .collect()
}

/// Whether `name` is one of these; one that does not restrict asks for nothing else.
pub(super) fn knows(name: &str) -> bool {
    RULES.iter().any(|rule| rule.name == name)
}

fn always(_: &str) -> bool {
    true
}

/// ingress-nginx takes what is no boolean for the default; here doubt denies.
fn unless_off(value: &str) -> bool {
    !matches!(value.parse(), Ok(value::Switch(false)))
}

/// An allow list that does not hold all of both families, or cannot be read.
///
/// `0.0.0.0/0,::/0` is what cert-manager writes on the Ingresses of its challenges.
fn leaves_someone_out(list: &str) -> bool {
    let items = list
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let networks: Option<Vec<_>> = items.map(value::network).collect();
    let everyone = |networks: &[value::Network], v4: bool| {
        networks
            .iter()
            .any(|network| network.prefix == 0 && network.address.is_ipv4() == v4)
    };
    !networks.is_some_and(|networks| everyone(&networks, true) && everyone(&networks, false))
}
