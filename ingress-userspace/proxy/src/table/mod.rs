//! What a worker looks up: compiled once from a snapshot, then immutable.
//!
//! `compile` builds; a request goes `host` → `path` → `lookup`.

mod compile;
mod host;
mod lookup;
mod path;

pub use host::{CanonicalHost, HostError};
pub use lookup::{Entry, RouteTable};
pub use path::{CanonicalPath, PathError};
