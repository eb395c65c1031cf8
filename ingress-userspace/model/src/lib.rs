//! The types of both flows: what the agent produces and the table compiles. No I/O, no runtime.
//!
//! `host`, `path` (`regex`), `policy` → `rule` → `upstream` → `backend` → `endpoint`; `host_rules`
//! and `certificate`; an `update` carries them all, and `wire` between processes. `object`,
//! `seniority` and `problem` are the agent's.

mod backend;
mod certificate;
mod endpoint;
mod host;
mod host_map;
mod host_rules;
mod object;
mod path;
mod policy;
mod problem;
mod regex;
mod rule;
mod seniority;
mod transport;
mod update;
mod upstream;
pub mod wire;

pub use backend::{BackendKey, ServicePort};
pub use certificate::{Certificate, PrivateKey};
pub use endpoint::Endpoint;
pub use host::{HostPattern, HostPatternError};
pub use host_map::HostMap;
pub use host_rules::{HostPolicy, HostRules};
pub use object::{ObjectName, ObjectRef};
pub use path::{PathKind, PathPattern, PathPatternError};
pub use policy::{Policy, RetryCauses, RetryPolicy, RoutePolicy, TlsRedirect, UpstreamPolicy};
pub use problem::{Problem, Severity, Subject};
pub use regex::{PathRegex, PathRegexError, literal_start};
pub use rule::{
    Action, Condition, Conditions, Redirect, RedirectError, Rule, Split, SplitError, Target,
};
pub use seniority::Seniority;
pub use transport::Transport;
pub use update::Update;
pub use upstream::UpstreamKey;
