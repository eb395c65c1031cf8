//! Installs and updates the kernel's half: programs, maps, links, routes, neighbours and the
//! workers' sockets.
//!
//! [`KernelPart::install`]: `settings` → `pins` → `load` → `maps` → `attach`; then `sockets`
//! registers the workers' listeners and [`KernelPart::follow`] keeps `neighbour`s fresh. Pins
//! outlive the process: after a crash, the next one runs the same steps. `detach` takes all of it
//! back.

mod detach;
mod kernel_part;

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

pub use detach::{Extent, Removed, detach, withdraw};
pub use error::KernelError;
pub use ingress_ebpf::verdict::Reason;
pub use kernel_part::KernelPart;
pub use load::object;
pub use mode::{Forward, UnknownName, XdpMode};
pub use settings::NodeSettings;
pub use sockets::{MOST_WORKERS, WorkerSockets};
