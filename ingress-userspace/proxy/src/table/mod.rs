//! What a worker looks up: rules by host, compiled host by host, then immutable.
//!
//! `site` adopts updates: it compiles the hosts that changed into `routes` and swaps the table
//! whole; a request goes `host` → `path` → `lookup` → `entry`.

mod entry;
mod host;
mod lookup;
mod path;
mod routes;
mod site;

pub use entry::Entry;
pub(crate) use entry::Request;
pub use host::{CanonicalHost, HostError};
pub use lookup::RouteTable;
pub use path::{CanonicalPath, PathError};
pub use site::{Gap, Site};
