//! The types of both flows: what the agent produces and the table compiles. No I/O, no runtime.
//!
//! `host`, `path` → `policy` → `route` → `backend` → `endpoint`; `certificate`; `snapshot` holds
//! them all.

mod backend;
mod certificate;
mod endpoint;
mod host;
mod host_map;
mod object;
mod path;
mod policy;
mod problem;
mod route;
mod snapshot;

pub use backend::{Backend, BackendKey, ServicePort};
pub use certificate::{Certificate, PrivateKey};
pub use endpoint::Endpoint;
pub use host::{HostPattern, HostPatternError};
pub use host_map::HostMap;
pub use object::ObjectName;
pub use path::{PathKind, PathPattern, PathPatternError};
pub use policy::{Policy, RetryCauses, RetryPolicy, RoutePolicy, TlsRedirect, UpstreamPolicy};
pub use problem::{Problem, Severity, Subject};
pub use route::{Action, Origin, Route, Seniority};
pub use snapshot::Snapshot;
