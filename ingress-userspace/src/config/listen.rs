//! Flags: where clients and Prometheus connect.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use clap::Args;

/// Where Prometheus asks in a cluster; ingress-nginx's.
pub(crate) const METRICS_PORT: u16 = 10254;

/// Where it asks an agent that is a process of its own, beside the proxy's port.
pub(crate) const AGENT_METRICS_PORT: u16 = 10255;

/// Ordinary sockets for clients.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListenArgs {
    /// Listen for HTTP on ADDR:PORT; repeatable [default: 0.0.0.0:80 as root, else 127.0.0.1:8080]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_HTTP",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub(crate) http: Vec<SocketAddr>,

    /// Listen for HTTPS on ADDR:PORT; repeatable [default: 0.0.0.0:443 as root, else
    /// 127.0.0.1:8443]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_HTTPS",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub(crate) https: Vec<SocketAddr>,
}

impl ListenArgs {
    /// Every address at which clients find Forebay, as far as flags say: without a port that the
    /// kernel picks.
    pub(crate) fn of_clients(&self, vips: &[IpAddr]) -> Vec<SocketAddr> {
        let root = rustix::process::geteuid().is_root();
        let mut addresses = [self.http.clone(), self.https.clone()].concat();
        if vips.is_empty() {
            addresses = [self.http_addresses(root), self.https_addresses(root)].concat();
        }
        let ports = |vip: &IpAddr| [80, 443].map(|port| SocketAddr::from((*vip, port)));
        addresses.extend(vips.iter().flat_map(ports));
        addresses.retain(|address| address.port() != 0);
        addresses
    }

    /// Addresses for plain HTTP.
    pub(crate) fn http_addresses(&self, root: bool) -> Vec<SocketAddr> {
        listeners(&self.http, root, 80, 8080)
    }

    /// Addresses for HTTPS.
    pub(crate) fn https_addresses(&self, root: bool) -> Vec<SocketAddr> {
        listeners(&self.https, root, 443, 8443)
    }
}

fn listeners(
    given: &[SocketAddr],
    root: bool,
    privileged: u16,
    unprivileged: u16,
) -> Vec<SocketAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let (address, port) = if root {
        (Ipv4Addr::UNSPECIFIED, privileged)
    } else {
        (Ipv4Addr::LOCALHOST, unprivileged)
    };
    vec![SocketAddr::new(IpAddr::V4(address), port)]
}

/// Where Prometheus asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct MetricsArgs {
    /// Answer /metrics and /healthz on ADDR:PORT, or nowhere: off [default: 0.0.0.0:10254, and 10255
    /// for `forebay agent`; off for a folder]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_METRICS",
        help_heading = "Listeners"
    )]
    pub(crate) metrics: Option<MetricsAddress>,
}

/// Where Prometheus asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsAddress {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value == "off" {
            return Ok(Self::Off);
        }
        let address = value.parse().map(Self::At);
        address.map_err(|_| "expected ADDR:PORT or off".to_owned())
    }
}

impl MetricsArgs {
    /// Where Prometheus asks. A cluster has one that looks for the `port`; who serves a folder asks
    /// the admin socket, and a second process shall not stumble over a port nobody asked for.
    pub(crate) fn address(&self, is_folder: bool, port: u16) -> Option<SocketAddr> {
        match self.metrics {
            Some(MetricsAddress::At(address)) => Some(address),
            Some(MetricsAddress::Off) => None,
            None => (!is_folder).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        }
    }
}
