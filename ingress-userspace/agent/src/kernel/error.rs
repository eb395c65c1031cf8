//! Why the data plane could not be installed, by what an operator does next.

use std::{io, net::IpAddr, path::PathBuf};

/// Why the data plane could not be installed or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the kernel object.
    #[error(
        "this binary has no kernel programs; build them (cargo xtask build-ebpf), then rebuild it"
    )]
    NoObject,
    /// `bpf(2)` or netlink returned EPERM.
    #[error("not permitted to {action}; the process needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Privilege {
        /// The attempted action.
        action: &'static str,
        /// The kernel's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pin directory is not on a bpffs.
    #[error("{} is not on a bpffs; mount one (mount -t bpf bpf /sys/fs/bpf) or name another directory", .0.display())]
    NotBpffs(PathBuf),
    /// The pin directory cannot be made or opened.
    #[error("open the pin directory {}", path.display())]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pin cannot be removed.
    #[error("remove the pin {}", path.display())]
    Remove {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has been changing the same pins for too long.
    #[error("another process is changing the pins in {}", .0.display())]
    Busy(PathBuf),
    /// A pin of the same name has another layout.
    #[error(
        "the pinned map {} has {field} {found}; this version needs {expected}; remove the directory to start over",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        field: &'static str,
        /// What the kernel has.
        found: u64,
        /// What the programs need.
        expected: u64,
    },
    /// The maps were written by a version that this one cannot read.
    #[error("the pinned maps have schema {found}; this version needs {expected}")]
    Schema {
        /// What `META` says.
        found: u16,
        /// What this version writes.
        expected: u16,
    },
    /// The maps that this process serves by are pinned no more.
    #[error("what served the virtual IPs was detached; restart Forebay for them")]
    Detached,
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
    /// A virtual IP is an address of this host.
    #[error(
        "the virtual IP {vip} is an address of {interface}, whose other ports would be closed, SSH's too; choose another, or remove it from {interface}"
    )]
    OwnAddress {
        /// The virtual IP.
        vip: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// The interface does not exist.
    #[error("no interface {0}")]
    NoInterface(String),
    /// Another XDP program is on the interface.
    #[error(
        "another XDP program is attached to {0} (bpftool net show dev {0}); choose another interface, or detach it: what Forebay left by `forebay detach`, one that a link holds by `bpftool link detach id ID` (ID from bpftool link show), any other by `ip link set dev {0} xdp off`"
    )]
    OtherXdp(String),
    /// The driver has no native XDP, or not with the interface's settings.
    #[error(
        "{interface} cannot run XDP in {mode} mode; --xdp-mode generic needs nothing of a driver. Many drivers run native XDP once LRO and hardware GRO are off (ethtool -K {interface} lro off rx-gro-hw off), the MTU is 1500, or there are fewer queues (ethtool -L {interface})"
    )]
    Mode {
        /// The interface.
        interface: String,
        /// The requested mode.
        mode: &'static str,
        /// The kernel's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object could not be loaded, or the verifier refused a program.
    #[error("load {what}")]
    Load {
        /// The object or the program.
        what: &'static str,
        /// Why, with the verifier's log where there is one.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A link could not be made, updated or pinned.
    #[error("attach {what}")]
    Attach {
        /// The program and where.
        what: String,
        /// The kernel's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or written.
    #[error("access the map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// The kernel's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Routes, links or neighbours could not be read or changed.
    #[error("{action} over netlink")]
    Netlink {
        /// The attempted action.
        action: &'static str,
        /// The kernel's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A cause, whatever its type.
type Cause = Box<dyn std::error::Error + Send + Sync>;

impl KernelError {
    pub(super) fn map(name: &'static str, error: impl Into<Cause>) -> Self {
        Self::Map {
            name,
            source: error.into(),
        }
    }

    pub(super) fn load(what: &'static str, error: impl Into<Cause>) -> Self {
        let source = error.into();
        match os_error(&*source) {
            Some(libc::EPERM) => Self::Privilege {
                action: "load BPF programs",
                source,
            },
            _ => Self::Load { what, source },
        }
    }

    pub(super) fn attach(what: impl Into<String>, error: impl Into<Cause>) -> Self {
        let source = error.into();
        match os_error(&*source) {
            Some(libc::EPERM) => Self::Privilege {
                action: "attach BPF programs",
                source,
            },
            _ => Self::Attach {
                what: what.into(),
                source,
            },
        }
    }

    pub(super) fn netlink(action: &'static str, error: rtnetlink::Error) -> Self {
        match netlink_code(&error) {
            Some(libc::EPERM) => Self::Privilege {
                action,
                source: error.into(),
            },
            _ => Self::Netlink {
                action,
                source: error.into(),
            },
        }
    }
}

impl KernelError {
    /// Whether the kernel's answer to a question of netlink is of what was asked for alone. Another
    /// question may still be answered.
    pub(super) fn is_of_one_question(&self) -> bool {
        let Self::Netlink { source, .. } = self else {
            return false;
        };
        let source = source.downcast_ref::<rtnetlink::Error>();
        source.and_then(netlink_code).is_some()
    }
}

/// An error and what caused it, for people.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let said: Vec<_> = causes.map(ToString::to_string).collect();
    said.join(": ")
}

/// The error number behind a netlink error, if the kernel sent one.
pub(super) fn netlink_code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// The error number at the end of a chain of causes, if there is one.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}
