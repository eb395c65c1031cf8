//! When an annotation asks for protection that Forebay cannot give, and what that is.
//!
//! Routes that ask for it are denied, so that access control never fails open. Source: ingress-nginx,
//! "Annotations"; which names only tune another one was read from its templates.

use super::value;

pub(super) const BASIC_AUTH: &str = "basic and digest authentication are not supported";
pub(super) const EXTERNAL_AUTH: &str = "external authentication is not supported";
pub(super) const CLIENT_CERTIFICATES: &str = "client certificates are not supported";
pub(super) const ADDRESSES: &str = "restricting access by address is not supported";
pub(super) const SNIPPET: &str = "snippets are not supported, and this one may restrict access";

pub(super) const PASSTHROUGH: &str = "TLS passthrough is not supported";
pub(super) const BACKEND_PROTOCOL: &str = "only plain HTTP to backends is supported";
pub(super) const MODSECURITY: &str = "ModSecurity is not supported";
pub(super) const TEMPLATES: &str = "templates are an attack vector";

pub(super) fn always(_: &str) -> bool {
    true
}

/// ingress-nginx takes what is no boolean for the default; here doubt denies.
pub(super) fn unless_off(value: &str) -> bool {
    !matches!(value.parse(), Ok(value::Switch(false)))
}

/// An allow list that does not hold all of both families, or cannot be read.
///
/// `0.0.0.0/0,::/0` is what cert-manager writes on the Ingresses of its challenges.
pub(crate) fn leaves_someone_out(list: &str) -> bool {
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

pub(super) fn verifies_clients(value: &str) -> bool {
    value != "off"
}

pub(super) fn is_not_plain_http(protocol: &str) -> bool {
    !protocol.eq_ignore_ascii_case("HTTP")
}
