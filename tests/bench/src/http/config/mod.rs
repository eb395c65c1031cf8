//! Settings that make every proxy do the same work: the same routes by host and path, the same
//! fields added for the origin, kept connections both ways, no access log, one worker.
//!
//! One file per program.

mod envoy;
mod forebay;
mod haproxy;
mod nginx;

use std::{net::SocketAddr, path::Path};

pub(super) use self::{
    envoy::envoy,
    forebay::manifests,
    haproxy::{haproxy, host_map},
    nginx::{nginx, origin},
};

/// Where a proxy listens, and what it needs.
pub(super) struct Place<'a> {
    /// Its own.
    pub(super) folder: &'a Path,
    /// Holds `tls.crt`, `tls.key`, and `tls.pem` with both.
    pub(super) tls: &'a Path,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// What all paths but `/ws` lead to.
    pub(super) origin: SocketAddr,
    /// What `/ws` of the first host leads to.
    pub(super) echo: SocketAddr,
    /// Whether nginx buffers answers, as it does where it is not told otherwise.
    pub(super) nginx_buffering: bool,
    /// At least one.
    pub(super) hosts: &'a [String],
}

/// Fields that ingress-nginx adds and Forebay too, by nginx's variable and HAProxy's expression.
const FIELDS: [(&str, &str, &str); 8] = [
    (
        "X-Request-ID",
        "$request_id",
        "%[rand,hex]%[rand,hex]%[rand,hex]%[rand,hex]",
    ),
    ("X-Real-IP", "$remote_addr", "%[src]"),
    ("X-Forwarded-For", "$remote_addr", "%[src]"),
    ("X-Forwarded-Host", "$host", "%[req.hdr(host)]"),
    ("X-Forwarded-Port", "$server_port", "%[dst_port]"),
    ("X-Forwarded-Proto", "$scheme", "%[ssl_fc,iif(https,http)]"),
    ("X-Forwarded-Scheme", "$scheme", "%[ssl_fc,iif(https,http)]"),
    ("X-Scheme", "$scheme", "%[ssl_fc,iif(https,http)]"),
];
