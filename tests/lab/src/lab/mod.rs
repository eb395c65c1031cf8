//! Networks made of namespaces, for tests that need packets. Needs root.
//!
//! ```text
//! client 198.18.0.2 ── router 198.18.0.1, br0 198.18.1.1 ─┬─ n1 198.18.1.11 ── pods 198.18.11.0/24
//!                      route: VIP 198.51.100.10 by n1,    ├─ n2 198.18.1.12 ── pods 198.18.12.0/24
//!                      or by all three                    └─ n3 198.18.1.13 ── pods 198.18.13.0/24
//! ```
//! Or the client is on br0, too, where it looks for the VIP by ARP.
//! `sys` → `namespace` → `network` → `topology` (`ipv6`) → `manifests` → `cluster` → `clients`; `relay`.

mod clients;
mod cluster;
mod ipv6;
mod manifests;
mod namespace;
mod network;
mod relay;
mod sys;
mod topology;

pub use clients::Clients;
pub use cluster::{Cluster, Steering};
pub use ipv6::{CLIENT6, VIP6};
pub use manifests::{PLAIN_HOST, TLS_HOST, secret_yaml, write_manifests, write_services};
pub use namespace::Namespace;
pub use network::ip;
pub use relay::Relay;
pub use topology::{CLIENT, FLAT_CLIENT, HASH_SEED, Lab, NextHop, Node, Pod, ROUTER, VIP};

/// Tells why this process cannot make a lab, if so.
///
/// # Errors
/// The reason, for a person.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    Namespace::new("probe")
        .map(drop)
        .map_err(|error| format!("no network namespaces here: {error:#}"))
}
