//! Installs and updates the kernel's half: programs, maps, links, routes, neighbours and the
//! workers' sockets.
//!
//! [`KernelPart::prepare`]: `settings` → `pins` → `load` → `maps`, and an interface for each program;
//! no packet notices. [`KernelPart::go_live`]: `sockets` registers the workers' listeners, the VIPs
//! become local, and `attach` puts the programs into their `links`; `announce` tells neighbours. [`KernelPart::follow`] keeps
//! `neighbour`s and interfaces fresh. Pins outlive the process: after a crash, the next one runs the
//! same steps. `detach` takes all of it back, `explain`
//! reads it.

mod detach;
mod explain;
mod kernel_part;

mod settings;

mod announce;
mod attach;
mod links;
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

pub use detach::{Extent, Removed, detach, withdraw};
pub use error::KernelError;
pub use explain::{Hop, Reach, Steered, Way, explain};
pub use ingress_ebpf::{
    abi::{NodeCounters, VipCounters},
    reason::Reason,
};
pub use kernel_part::{Announced, KernelPart};
pub use load::object;
pub use mode::{Announce, Forward, UnknownName, XdpMode};
pub use settings::NodeSettings;
pub use sockets::{IpVersion, MOST_WORKERS, Sockets, WorkerSockets};
