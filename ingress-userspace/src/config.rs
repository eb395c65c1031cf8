//! The command line and the environment, checked before anything starts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use ingress_agent::kernel::{Forward, XdpMode};
use ingress_model::{HostPattern, ObjectName};

use crate::{admin, log::LogFormat};

/// Where Prometheus asks in a cluster; ingress-nginx's.
const METRICS_PORT: u16 = 10254;

/// Forebay: an ingress for bare-metal Kubernetes.
///
/// An XDP program steers connections for virtual IPs to the nodes, sk_lookup hands them to the
/// proxy's workers, and the proxy serves the Ingress objects of a cluster or a folder.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Config {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of the binary.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve Ingress objects, with agent and proxy in one process
    ///
    /// Without --vip, workers listen on the --http and --https addresses. With --vip, the kernel
    /// hands them the connections for the virtual IPs; they listen on loopback and on any address
    /// given with --http or --https.
    ///
    /// Try it without a cluster and without root:
    ///   forebay run --manifests deploy/examples/v1
    ///   curl -H 'Host: foo.bar.com' http://127.0.0.1:8080/foos1
    #[command(verbatim_doc_comment)]
    Run(Box<RunConfig>),
    /// Show what a running Forebay serves, from where, and what is wrong
    ///
    /// With --ready or --healthy it prints one line and ends with 0 or 1, for the exec probes of a
    /// pod:
    ///   command: [/forebay, status, --ready]
    #[command(verbatim_doc_comment)]
    Status(StatusArgs),
    /// List the routes that a running Forebay has in force
    Routes(RoutesArgs),
    /// Print the metrics of a running Forebay, as Prometheus reads them
    Metrics(AdminArgs),
    /// Print what becomes of each annotation, as Markdown
    Annotations,
}

/// Flags of `forebay status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Print the answer of /status: JSON
    #[arg(long, conflicts_with_all = ["ready", "healthy"])]
    pub(crate) json: bool,

    /// Only say whether it wants connections, and why not; exit code 0 or 1
    #[arg(long, conflicts_with = "healthy")]
    pub(crate) ready: bool,

    /// Only say whether it answers; exit code 0 or 1
    #[arg(long)]
    pub(crate) healthy: bool,
}

/// Flags of `forebay routes`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RoutesArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// Only those that requests for this host meet; *.example.com: the rules written so
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<HostPattern>,

    /// Print the answer of /routes: JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `forebay run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunConfig {
    /// Watch the YAML and JSON files below DIR instead of a cluster
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_MANIFESTS",
        help_heading = "Source"
    )]
    pub(crate) manifests: Option<PathBuf>,

    /// Watch the cluster of this kubeconfig [default: $KUBECONFIG, else the pod's service account]
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_KUBECONFIG",
        conflicts_with = "manifests",
        help_heading = "Source"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Serve Ingresses of this class; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_INGRESS_CLASS",
        value_delimiter = ',',
        default_values = ["forebay", "nginx"],
        help_heading = "Source"
    )]
    pub(crate) ingress_class: Vec<String>,

    /// Values of `spec.controller` of the IngressClasses to serve. Narrow it to run two instances
    /// side by side
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_CONTROLLER_CLASS",
        value_delimiter = ',',
        default_values = ["forebay.dev/ingress", "k8s.io/ingress-nginx"],
        help_heading = "Source"
    )]
    pub(crate) controller_class: Vec<String>,

    /// ConfigMap with the defaults of all Ingresses, as ingress-nginx has it
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "FOREBAY_CONFIGMAP",
        value_parser = object_name,
        help_heading = "Source"
    )]
    pub(crate) configmap: Option<ObjectName>,

    /// Prefix of the annotations that are read beside `forebay.dev/`
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FOREBAY_ANNOTATIONS_PREFIX",
        default_value = "nginx.ingress.kubernetes.io",
        help_heading = "Source"
    )]
    pub(crate) annotations_prefix: String,

    /// Secret whose certificate is served to names that no other fits [default: self-signed]
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "FOREBAY_DEFAULT_SSL_CERTIFICATE",
        value_parser = object_name,
        help_heading = "Source"
    )]
    pub(crate) default_ssl_certificate: Option<ObjectName>,

    /// Serve Ingresses without a class [default: true for a folder, false for a cluster]
    #[arg(
        long,
        value_name = "BOOL",
        env = "FOREBAY_WATCH_INGRESS_WITHOUT_CLASS",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        help_heading = "Source"
    )]
    pub(crate) watch_ingress_without_class: Option<bool>,

    /// Listen for HTTP on ADDR:PORT; repeatable [default: 0.0.0.0:80 as root, else 127.0.0.1:8080]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_HTTP",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub(crate) http: Vec<SocketAddr>,

    /// Listen for HTTPS on ADDR:PORT; repeatable [default: 0.0.0.0:443 as root, else
    /// 127.0.0.1:8443]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_HTTPS",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub(crate) https: Vec<SocketAddr>,

    #[command(flatten, next_help_heading = "Listeners")]
    pub(crate) admin: AdminArgs,

    /// Answer /metrics and /healthz on ADDR:PORT, or nowhere: off [default: 0.0.0.0:10254 for a
    /// cluster, off for a folder]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_METRICS",
        help_heading = "Listeners"
    )]
    pub(crate) metrics: Option<MetricsAddress>,

    /// Gone: says what to use instead.
    #[arg(long = "admin", id = "admin", env = "FOREBAY_ADMIN", hide = true, value_parser = without_admin)]
    pub(crate) gone_admin: Option<String>,

    /// Serve this virtual IPv4 address on ports 80 and 443 through XDP and sk_lookup; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        env = "FOREBAY_VIP",
        value_delimiter = ',',
        requires_all = ["xdp_interface", "node_name"],
        help_heading = "Data plane"
    )]
    pub(crate) vip: Vec<Ipv4Addr>,

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

    /// Name of this node
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_NODE_NAME",
        help_heading = "Data plane"
    )]
    pub(crate) node_name: Option<String>,

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

    /// Folder in a BPF file system where programs, maps and links outlive the process
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_PIN_DIR",
        default_value = "/sys/fs/bpf/forebay",
        help_heading = "Data plane"
    )]
    pub(crate) pin_dir: PathBuf,

    /// Number of worker threads [default: one per core]
    #[arg(long, value_name = "N", env = "FOREBAY_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Process")]
    pub(crate) workers: Option<u16>,

    /// How long requests in flight may take after SIGTERM, as in 30, 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", env = "FOREBAY_SHUTDOWN_GRACE", default_value = "240s", value_parser = duration, help_heading = "Process")]
    pub(crate) shutdown_grace: Duration,

    /// How long to go on as before after SIGTERM, but not ready, so that a load balancer in front
    /// sends its connections elsewhere
    #[arg(
        long,
        value_name = "TIME",
        env = "FOREBAY_SHUTDOWN_DELAY",
        default_value = "0s",
        value_parser = duration,
        help_heading = "Process"
    )]
    pub(crate) shutdown_delay: Duration,

    /// How long idle connections stay open after SIGTERM, so that clients close them first; shorter
    /// if all connections close, and at most the shutdown grace
    #[arg(
        long,
        value_name = "TIME",
        env = "FOREBAY_LAME_DUCK",
        default_value = "10s",
        value_parser = duration,
        help_heading = "Process"
    )]
    pub(crate) lame_duck: Duration,

    /// Send `Strict-Transport-Security` in every TLS response, for a year and with subdomains
    #[arg(
        long,
        value_name = "BOOL",
        env = "FOREBAY_HSTS",
        default_value_t = true,
        action = clap::ArgAction::Set,
        help_heading = "Process"
    )]
    pub(crate) hsts: bool,

    /// Format of the log on standard error
    #[arg(
        long,
        value_enum,
        env = "FOREBAY_LOG_FORMAT",
        default_value_t,
        help_heading = "Process"
    )]
    pub(crate) log_format: LogFormat,

    /// Add the header `x-forebay` to responses: node, worker, Ingress, backend and endpoint.
    /// Exposes cluster internals to clients
    #[arg(long, env = "FOREBAY_TRACE_RESPONSES", help_heading = "Process")]
    pub(crate) trace_responses: bool,
}

/// Where a running Forebay answers, the same for every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// Unix socket at which a running Forebay answers `forebay status`, `routes` and `metrics`
    /// [default: /run/forebay/admin.sock as root, else $XDG_RUNTIME_DIR/forebay/admin.sock, else
    /// forebay-UID/admin.sock in the temporary folder]
    #[arg(long, value_name = "PATH", env = "FOREBAY_ADMIN_SOCKET")]
    pub(crate) admin_socket: Option<PathBuf>,
}

impl AdminArgs {
    /// The socket's path.
    pub(crate) fn path(&self) -> PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(admin::default_path)
    }
}

/// Where Prometheus asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsAddress {
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value == "off" {
            return Ok(Self::Off);
        }
        let address = value.parse().map(Self::At);
        address.map_err(|_| "expected ADDR:PORT or off".to_owned())
    }
}

/// Says what took the place of `--admin`.
fn without_admin(_: &str) -> Result<String, String> {
    Err("--admin is gone: use --admin-socket PATH for forebay status and routes, and --metrics ADDR:PORT for Prometheus".to_owned())
}

/// `NAME=ADDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// Name of the node.
    pub(crate) name: String,
    /// Its IPv4 address.
    pub(crate) address: Ipv4Addr,
}

/// Reads `NAMESPACE/NAME`.
fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
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
}

impl RunConfig {
    /// The fixed set of nodes by name. A lone node needs no `--node`: then the set is empty.
    ///
    /// # Errors
    /// A name or an address is given twice.
    pub(crate) fn nodes(&self) -> Result<BTreeMap<String, Ipv4Addr>, ConfigError> {
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

    /// The seed of the flow hash. A lone node owns every connection, so that its seed tells nobody
    /// anything.
    ///
    /// # Errors
    /// Several nodes share the virtual IPs, and there is none.
    pub(crate) fn seed(&self) -> Result<u64, ConfigError> {
        match self.hash_seed {
            Some(seed) => Ok(seed),
            None if self.node.len() > 1 => Err(ConfigError::NoSeed),
            None => Ok(0),
        }
    }

    /// Why this node takes no part in the virtual IPs that the others share: it is not in the fixed
    /// set. One set of flags serves all nodes, so this is no error.
    pub(crate) fn takes_no_part(&self) -> Option<String> {
        let name = self.node_name.as_ref()?;
        let is_listed = self.node.iter().any(|node| node.name == *name);
        (!self.vip.is_empty() && !self.node.is_empty() && !is_listed).then(|| {
            format!("no --node names this node, {name}; it takes no part in the virtual IPs")
        })
    }

    /// Where Prometheus asks. A cluster has one that looks for the port; who serves a folder asks
    /// the admin socket, and a second process shall not stumble over a port nobody asked for.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        match self.metrics {
            Some(MetricsAddress::At(address)) => Some(address),
            Some(MetricsAddress::Off) => None,
            None => self
                .manifests
                .is_none()
                .then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, METRICS_PORT))),
        }
    }

    /// Addresses for plain HTTP.
    pub(crate) fn http_addresses(&self, root: bool) -> Vec<SocketAddr> {
        listeners(&self.http, root, 80, 8080)
    }

    /// Addresses for HTTPS.
    pub(crate) fn https_addresses(&self, root: bool) -> Vec<SocketAddr> {
        listeners(&self.https, root, 443, 8443)
    }
}

fn listeners(
    given: &[SocketAddr],
    root: bool,
    privileged: u16,
    unprivileged: u16,
) -> Vec<SocketAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let (address, port) = if root {
        (Ipv4Addr::UNSPECIFIED, privileged)
    } else {
        (Ipv4Addr::LOCALHOST, unprivileged)
    };
    vec![SocketAddr::new(IpAddr::V4(address), port)]
}

/// `30`, `30s`, `500ms` or `2m`; at most a day.
fn duration(value: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match value {
        _ if value.ends_with("ms") => (&value[..value.len() - 2], 1),
        _ if value.ends_with('s') => (&value[..value.len() - 1], 1_000),
        _ if value.ends_with('m') => (&value[..value.len() - 1], 60_000),
        _ => (value, 1_000),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number with the unit ms, s or m (default: s)".to_owned())?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("longer than a day".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(flags: &[&str]) -> Result<Box<RunConfig>, clap::Error> {
        match Config::try_parse_from(["forebay", "run"].iter().chain(flags))?.command {
            Command::Run(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Config::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        let command = Config::command();
        let run = command.find_subcommand("run").unwrap();
        for argument in run
            .get_arguments()
            .filter(|a| !matches!(a.get_id().as_str(), "help" | "version"))
        {
            let expected = format!("FOREBAY_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|env| env.to_str()),
                Some(&*expected)
            );
        }
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [
            &["--http", "localhost"][..],
            &["--http", "1.2.3.4"],
            &["--workers", "0"],
            &["--shutdown-grace", "1h"],
            &["--vip", "198.51.100.10"],
            &["--node", "n1"],
            &["--xdp-interface", "eth0"],
            &["--manifests", "a", "--kubeconfig", "b"],
            &["--unknown"],
        ] {
            assert!(run(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (value, ms) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("250ms", 250),
            ("2m", 120_000),
        ] {
            assert_eq!(duration(value), Ok(Duration::from_millis(ms)), "{value}");
        }
        for value in ["", "s", "-1", "1.5s", "99999999999999999999", "1441m"] {
            assert!(duration(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_node_that_is_not_listed_takes_no_part() {
        let steer = [
            "--vip",
            "198.51.100.10",
            "--xdp-interface",
            "eth0",
            "--node-name",
            "n1",
        ];
        for (flags, takes_part) in [
            (&[][..], true),
            (&["--node", "n1=198.18.0.1"], true),
            (&["--node", "n2=198.18.0.2"], false),
        ] {
            let config = run(&[&steer[..], flags].concat()).unwrap();
            assert_eq!(config.takes_no_part().is_none(), takes_part, "{flags:?}");
        }
        let without_vips = run(&["--node-name", "n1"]).unwrap();
        assert_eq!(without_vips.takes_no_part(), None);
    }

    #[test]
    fn nodes_that_share_virtual_ips_need_a_secret_seed() {
        let two = ["--node", "n1=198.18.0.1,n2=198.18.0.2"];
        let steer = ["--vip", "198.51.100.10", "--xdp-interface", "eth0"];
        for (flags, seed) in [
            (&["--node", "n1=198.18.0.1"][..], Ok(0)),
            (&two, Err(ConfigError::NoSeed)),
            (&[two[0], two[1], "--hash-seed", "7"], Ok(7)),
        ] {
            let flags = [&steer[..], &["--node-name", "n1"], flags].concat();
            assert_eq!(run(&flags).unwrap().seed(), seed, "{flags:?}");
        }
    }

    #[test]
    fn prometheus_finds_the_metrics_of_a_cluster_and_a_folder_opens_no_port() {
        for (flags, address) in [
            (&[][..], Some("0.0.0.0:10254")),
            (&["--manifests", "a"], None),
            (&["--metrics", "off"], None),
            (
                &["--manifests", "a", "--metrics", "127.0.0.1:0"],
                Some("127.0.0.1:0"),
            ),
        ] {
            let found = run(flags).unwrap().metrics_address();
            assert_eq!(
                found.map(|a| a.to_string()).as_deref(),
                address,
                "{flags:?}"
            );
        }
    }

    #[test]
    fn the_flag_of_the_old_admin_port_says_what_took_its_place() {
        let error = run(&["--admin", "127.0.0.1:10354"])
            .unwrap_err()
            .to_string();
        for flag in ["--admin-socket", "--metrics"] {
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn the_fixed_set_of_nodes_has_no_doubles() {
        let steer = [
            "--vip",
            "198.51.100.10",
            "--xdp-interface",
            "eth0",
            "--node-name",
            "n1",
        ];
        let nodes = |flags: &[&str]| run(&[&steer[..], flags].concat()).unwrap().nodes();
        assert_eq!(nodes(&[]).unwrap().len(), 0);
        assert_eq!(
            nodes(&["--node", "n1=198.18.0.1,n2=198.18.0.2"])
                .unwrap()
                .len(),
            2
        );
        for flags in [
            &["--node", "n1=198.18.0.1", "--node", "n2=198.18.0.1"][..],
            &["--node", "n1=198.18.0.1,n1=198.18.0.2"],
        ] {
            assert!(nodes(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn listeners_without_privilege_are_on_loopback() {
        let config = run(&[]).unwrap();
        assert_eq!(
            config.http_addresses(false),
            ["127.0.0.1:8080".parse().unwrap()]
        );
        assert_eq!(
            config.https_addresses(false),
            ["127.0.0.1:8443".parse().unwrap()]
        );
        assert_eq!(config.http_addresses(true), ["0.0.0.0:80".parse().unwrap()]);
    }
}
