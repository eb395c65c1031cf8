//! Flags: virtual IPs through XDP and sk_lookup.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use ingress_agent::{
    kernel::{Announce, Forward, XdpMode},
    membership::{Membership, is_of_a_host},
};

/// The virtual IPs and how they are served.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataPlaneArgs {
    /// Serve this virtual address, IPv4 or IPv6, on ports 80 and 443 through XDP and sk_lookup;
    /// repeatable
    #[arg(
        long,
        value_name = "ADDR",
        env = "FOREBAY_VIP",
        value_delimiter = ',',
        requires_all = ["xdp_interface", "node_name"],
        help_heading = "Data plane"
    )]
    pub(crate) vip: Vec<IpAddr>,

    /// Attach the XDP program to this interface; repeatable. Nodes may name theirs differently: each
    /// takes those that it has, and must have one
    #[arg(
        long,
        value_name = "IF",
        env = "FOREBAY_XDP_INTERFACE",
        value_delimiter = ',',
        requires = "vip",
        help_heading = "Data plane"
    )]
    pub(crate) xdp_interface: Vec<String>,

    /// Run XDP in the driver (native) or in the kernel's slower generic hook
    #[arg(
        long,
        value_name = "MODE",
        env = "FOREBAY_XDP_MODE",
        default_value_t,
        value_parser = PossibleValuesParser::new(XdpMode::NAMES).try_map(|mode| mode.parse::<XdpMode>()),
        help_heading = "Data plane"
    )]
    pub(crate) xdp_mode: XdpMode,

    /// Forward packets to other nodes in UDP, or by rewriting the MAC (l2; one segment only)
    #[arg(
        long,
        value_name = "WAY",
        env = "FOREBAY_FORWARD",
        default_value_t,
        value_parser = PossibleValuesParser::new(Forward::NAMES).try_map(|way| way.parse::<Forward>()),
        help_heading = "Data plane"
    )]
    pub(crate) forward: Forward,

    /// Say where the virtual IPs are: not at all, since a router knows, or by ARP and neighbour discovery to
    /// the segments of the interfaces (l2; one node for each virtual IP). The same on all nodes
    #[arg(
        long,
        value_name = "WAY",
        env = "FOREBAY_ANNOUNCE",
        default_value_t,
        value_parser = PossibleValuesParser::new(Announce::NAMES).try_map(|way| way.parse::<Announce>()),
        help_heading = "Data plane"
    )]
    pub(crate) announce: Announce,

    /// A node that shares the virtual IPs, including this one, and its IPv4 address; repeatable
    #[arg(
        long,
        value_name = "NAME=ADDR",
        env = "FOREBAY_NODE",
        value_delimiter = ',',
        requires = "vip",
        help_heading = "Data plane"
    )]
    pub(crate) node: Vec<NodeAddress>,

    /// Read the nodes that share the virtual IPs from this YAML file, and again when it changes:
    /// then nodes join and leave without losing a connection (docs/nodes.md)
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_NODES_FILE",
        requires = "vip",
        conflicts_with = "node",
        help_heading = "Data plane"
    )]
    pub(crate) nodes_file: Option<PathBuf>,

    /// Share the virtual IPs with all nodes whose Forebay says so in this namespace; `forebay
    /// operator` sees to it that nodes come and go without losing a connection (docs/nodes.md)
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "FOREBAY_NODES_NAMESPACE",
        requires_all = ["vip", "node_address"],
        conflicts_with_all = ["node", "nodes_file", "manifests"],
        help_heading = "Data plane"
    )]
    pub(crate) nodes_namespace: Option<String>,

    /// IPv4 address at which the other nodes of --nodes-namespace reach this one
    #[arg(
        long,
        value_name = "ADDR",
        env = "FOREBAY_NODE_ADDRESS",
        help_heading = "Data plane"
    )]
    pub(crate) node_address: Option<Ipv4Addr>,

    /// Secret number, the same on all nodes, of the hash that picks a connection's node: who knows
    /// it can aim connections at one node. Required if several nodes share the virtual IPs
    #[arg(
        long,
        value_name = "N",
        env = "FOREBAY_HASH_SEED",
        hide_env_values = true,
        help_heading = "Data plane"
    )]
    pub(crate) hash_seed: Option<u64>,

    #[command(flatten)]
    pub(crate) pins: PinArgs,
}

/// Where the kernel's half is.
#[derive(Args, Clone, Debug)]
pub(crate) struct PinArgs {
    /// Folder in a BPF file system where programs, maps and links outlive the process
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_PIN_DIR",
        default_value = "/sys/fs/bpf/forebay",
        help_heading = "Data plane"
    )]
    pub(crate) pin_dir: PathBuf,
}

/// `NAME=ADDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// Name of the node.
    pub(crate) name: String,
    /// Its IPv4 address.
    pub(crate) address: Ipv4Addr,
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let (name, address) = value.split_once('=').ok_or("expected NAME=ADDR")?;
        if name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not an IPv4 address"))?;
        if !is_of_a_host(address) {
            return Err(format!(
                "{address} is no address that other nodes can send to"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            address,
        })
    }
}

/// A combination of flags that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Two `--node` flags share a name or an address.
    #[error("--node {0} repeats a name or an address; each may appear only once")]
    DuplicateNode(String),
    /// Nodes that share virtual IPs must agree on a seed that nobody else knows.
    #[error(
        "nodes that share virtual IPs need --hash-seed, a secret number that is the same on all \
         nodes; make one with: od -An -N8 -tu8 /dev/urandom"
    )]
    NoSeed,
    /// The other nodes would refuse every set with it.
    #[error("--node-address {0} is none at which the other nodes reach this one: {1}")]
    NodeAddress(Ipv4Addr, &'static str),
}

/// Where it is said which nodes share the virtual IPs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nodes<'a> {
    /// Flags, once and for all.
    Fixed,
    /// A file that may change.
    File(&'a Path),
    /// Objects of a namespace; this node has the address.
    Cluster {
        /// Which namespace.
        namespace: &'a str,
        /// Of this node.
        address: Ipv4Addr,
    },
}

impl DataPlaneArgs {
    /// Where it is said which nodes there are.
    pub(crate) fn nodes(&self) -> Nodes<'_> {
        match (&self.nodes_file, &self.nodes_namespace, self.node_address) {
            (Some(path), _, _) => Nodes::File(path),
            (None, Some(namespace), Some(address)) if !self.vip.is_empty() => {
                Nodes::Cluster { namespace, address }
            }
            _ => Nodes::Fixed,
        }
    }

    /// Checks the address at which others are to reach this node.
    ///
    /// # Errors
    /// It is none of a host, or one that all of them have.
    pub(crate) fn check_address(&self, address: Ipv4Addr) -> Result<(), ConfigError> {
        let refuse = |why| Err(ConfigError::NodeAddress(address, why));
        if !is_of_a_host(address) {
            return refuse("no host has it");
        }
        if self.vip.contains(&IpAddr::V4(address)) {
            return refuse("it is a virtual IP");
        }
        Ok(())
    }

    /// The fixed set of nodes by name. A lone node needs no `--node`: then the set is empty.
    ///
    /// # Errors
    /// A name or an address is given twice.
    fn fixed_nodes(&self) -> Result<BTreeMap<String, Ipv4Addr>, ConfigError> {
        let mut nodes = BTreeMap::new();
        for node in &self.node {
            let address_taken = nodes.values().any(|address| *address == node.address);
            if address_taken || nodes.insert(node.name.clone(), node.address).is_some() {
                return Err(ConfigError::DuplicateNode(format!(
                    "{}={}",
                    node.name, node.address
                )));
            }
        }
        Ok(nodes)
    }

    /// The nodes that the flags name: a set that never changes.
    ///
    /// # Errors
    /// A name or an address is given twice.
    pub(crate) fn membership(&self, node_name: &str) -> Result<Membership, ConfigError> {
        let nodes = self.fixed_nodes()?;
        Ok(if nodes.is_empty() {
            Membership::alone(node_name)
        } else {
            Membership::fixed(nodes)
        })
    }

    /// The seed of the flow hash. A lone node owns every connection, so that its seed tells nobody
    /// anything.
    ///
    /// # Errors
    /// Several nodes share the virtual IPs, and there is none.
    pub(crate) fn seed(&self) -> Result<u64, ConfigError> {
        match self.hash_seed {
            Some(seed) => Ok(seed),
            None if self.node.len() > 1 || !matches!(self.nodes(), Nodes::Fixed) => {
                Err(ConfigError::NoSeed)
            }
            None => Ok(0),
        }
    }

    /// Why this node takes no part in the virtual IPs that the others share: it is not among them. One
    /// set of flags serves all nodes, so this is no error.
    pub(crate) fn takes_no_part(&self, node_name: &str, membership: &Membership) -> Option<String> {
        let is_listed = membership
            .named(node_name)
            .is_some_and(|node| !node.is_gone);
        let what = match &self.nodes_file {
            Some(file) => format!("{} does not list", file.display()),
            None => "no --node names".to_owned(),
        };
        (!self.vip.is_empty() && !is_listed)
            .then(|| format!("{what} this node, {node_name}; it takes no part in the virtual IPs"))
    }
}
