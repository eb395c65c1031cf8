//! PACKET: what happens to a connection that the kernel hands to a worker.
//!
//! `worker` accepts → [`tls`] → HTTP → [`table`] → `upstream` → pod; [`metrics`] counts.
//!
//! This package depends on no Kubernetes and no BPF library: the code that faces clients cannot
//! reach an API token or a BPF map.

#[cfg(fuzzing)]
pub mod fuzz;
pub mod metrics;
pub mod table;
pub mod tls;
pub mod upstream;
pub mod worker;

mod http1;
mod net;
