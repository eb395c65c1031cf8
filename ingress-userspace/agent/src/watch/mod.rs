//! Two sources of events behind one index: a folder of manifests, and an API server.
//!
//! `manifest` (with `legacy`) → `files` → `folder`; `cluster`.

mod files;
mod legacy;
mod manifest;

pub(super) mod cluster;
pub(super) mod folder;

#[cfg(any(test, fuzzing))]
pub(super) use files::index_of;
