//! Keeps the kernel's half in step: programs, maps, links, routes, neighbours and the workers'
//! sockets.
//!
//! [`Dataplane::install`]: `settings` → `pins` → `load` → `maps` → `attach`; then `sockets` hand
//! the workers' listeners over and [`Dataplane::follow`] keeps `neighbour`s fresh. What was pinned
//! outlives the process: a killed one is replaced by running the same steps again.

mod dataplane;

mod settings;

mod attach;
mod load;
mod maps;
mod neighbour;
mod netlink;
mod packet_log;
mod pins;
mod sockets;

mod error;
mod mode;
mod sys;

pub use dataplane::Dataplane;
pub use error::KernelError;
pub use ingress_ebpf::verdict::Reason;
pub use load::object;
pub use mode::{Forward, UnknownName, XdpMode};
pub use settings::Settings;
pub use sockets::WorkerSockets;
