//! Two sources of events behind one index: a folder of manifests, and an API server.
//!
//! `manifest` (with `legacy`) → `files` → `folder`; `cluster`.

mod files;
mod legacy;
mod manifest;

pub(super) mod cluster;
pub(super) mod folder;

use k8s_openapi::api::{
    core::v1::{Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

#[cfg(any(test, fuzzing))]
pub(super) use files::index_of;

use super::index::Index;
use ingress_model::ObjectName;

/// One change of one kind of objects.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// A complete list; replaces all that is known of the kind. Never sent for a partial list.
    Listed(Vec<(ObjectName, T)>),
    /// An object was created or changed.
    Applied(ObjectName, Box<T>),
    /// An object was deleted.
    Deleted(ObjectName),
}

/// What a source says.
#[derive(Debug)]
pub(super) enum Event {
    /// An Ingress changed.
    Ingress(Change<Ingress>),
    /// An IngressClass changed.
    IngressClass(Change<IngressClass>),
    /// A Service changed.
    Service(Change<Service>),
    /// An EndpointSlice changed.
    EndpointSlice(Change<EndpointSlice>),
    /// A Secret changed.
    Secret(Change<Secret>),
    /// A folder was read: everything at once.
    Whole(Box<Index>),
}
