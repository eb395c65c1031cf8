//! Forebay's userspace: a map of the two flows.
//!
//! EVENT: `controller` (watch, translate) → [`model`] → [`table`] → `worker`, and → `kernel`'s
//! maps. PACKET: `kernel` hands a connection to a `worker`: `tls` → HTTP → [`table`] → `upstream` →
//! pod. `admin` and [`telemetry`] show what happens; `run` is the only file that sees every module.

pub mod admin;
pub mod config;
pub mod controller;
pub mod kernel;
pub mod model;
pub mod run;
pub mod table;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
