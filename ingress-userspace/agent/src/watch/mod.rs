//! Two sources of events behind one index: a folder of manifests, and an API server.
//!
//! `manifest` (with `legacy`) → `files` → `folder`; `cluster`. `names`, in the order of
//! `turns`, asks DNS for both.

mod files;
mod legacy;
mod manifest;
mod turns;

pub(super) mod cluster;
pub(super) mod folder;
pub(super) mod names;

pub(super) use cluster::client;

#[cfg(any(test, fuzzing))]
pub(super) use files::index_of;
