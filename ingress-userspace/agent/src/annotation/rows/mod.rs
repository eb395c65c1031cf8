//! Every annotation of ingress-nginx, by topic.

pub(super) mod access;
pub(super) mod affinity;
pub(super) mod auth;
pub(super) mod backend;
pub(super) mod canary;
pub(super) mod cors;
pub(super) mod limits;
pub(super) mod observe;
pub(super) mod proxy;
pub(super) mod redirect;
pub(super) mod routing;
pub(super) mod tls;
