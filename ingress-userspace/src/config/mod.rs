//! The command line and the environment, checked before anything starts.
//!
//! Each group of flags is a file; the commands put them together.

mod data_plane;
mod listen;
mod serve;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ingress_model::HostPattern;

pub(crate) use self::{
    data_plane::{ConfigError, DataPlaneArgs, Nodes, PinArgs},
    listen::{AGENT_METRICS_PORT, ListenArgs, METRICS_PORT, MetricsArgs},
    serve::{MOST_WORKERS, ServeArgs},
    source::SourceArgs,
};
use crate::log::LogFormat;

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
    /// Watch and translate for a proxy that is a process of its own
    ///
    /// It holds the rights: the API token, low ports, BPF. It reads no byte of a client. The proxy
    /// gets its sockets and rules through a Unix socket, and goes on without the agent:
    ///   forebay agent --manifests deploy/examples/v1 --link /tmp/link.sock &
    ///   forebay proxy --link /tmp/link.sock
    #[command(verbatim_doc_comment)]
    Agent(Box<AgentConfig>),
    /// Serve what an agent says, without any right
    ///
    /// It gives up what rights it has, and starts from the last good state while the agent is away.
    #[command(verbatim_doc_comment)]
    Proxy(Box<ProxyConfig>),
    /// See to it, once per cluster, that nodes share virtual IPs and lose no connection
    ///
    /// Run two: one of them acts. It hears the agents that were started with --nodes-namespace,
    /// and publishes which nodes own connections, one step of a change after the other
    /// (docs/nodes.md). Without it all goes on, and nothing changes.
    #[command(verbatim_doc_comment)]
    Operator(OperatorConfig),
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
    /// Remove what served virtual IPs from the kernel of this node, and say what that was
    ///
    /// Programs, maps and local routes outlive the process: without one that serves by them they drop
    /// the connections. A start without --vip removes them too, where it may. A Forebay that still
    /// serves by them loses its virtual IPs until it is restarted: end it first.
    #[command(verbatim_doc_comment)]
    Detach(PinArgs),
    /// Say which node gets the packets of a connection that enter by this one, and how
    ///
    /// Reads the pinned maps, by the same code as the programs; needs the right to (CAP_BPF, or root).
    ///   forebay explain 198.51.100.7:40000 192.0.2.10:443
    #[command(verbatim_doc_comment)]
    Explain(ExplainArgs),
    /// Print what becomes of each annotation, as Markdown
    Annotations,
}

/// Flags of `forebay explain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// Address and port of the client
    #[arg(value_name = "CLIENT:PORT")]
    pub(crate) client: SocketAddr,

    /// The virtual IP and the port that it connects to
    #[arg(value_name = "VIP:PORT")]
    pub(crate) server: SocketAddr,

    #[command(flatten)]
    pub(crate) pins: PinArgs,
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
    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) listen: ListenArgs,

    #[command(flatten, next_help_heading = "Listeners")]
    pub(crate) admin: AdminArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,

    /// Gone: says what to use instead.
    #[arg(long = "admin", id = "admin", env = "FOREBAY_ADMIN", hide = true, value_parser = without_admin)]
    pub(crate) gone_admin: Option<String>,

    #[command(flatten)]
    pub(crate) data_plane: DataPlaneArgs,

    #[command(flatten)]
    pub(crate) serve: ServeArgs,

    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// Flags of `forebay agent`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentConfig {
    #[command(flatten)]
    pub(crate) link: LinkArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) listen: ListenArgs,

    #[command(flatten, next_help_heading = "Listeners")]
    pub(crate) admin: AdminArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,

    #[command(flatten)]
    pub(crate) data_plane: DataPlaneArgs,

    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// Flags of `forebay proxy`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyConfig {
    #[command(flatten)]
    pub(crate) link: LinkArgs,

    /// Folder in memory (tmpfs) for the last good state, private keys included; the proxy starts
    /// from it while the agent is away [default: none is kept]
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_STATE_DIR",
        help_heading = "Agent and proxy"
    )]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Listeners")]
    pub(crate) admin: AdminArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,

    #[command(flatten)]
    pub(crate) serve: ServeArgs,

    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// Flags of `forebay operator`.
#[derive(Args, Clone, Debug)]
pub(crate) struct OperatorConfig {
    /// Namespace in which the agents say how their nodes are
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "FOREBAY_NODES_NAMESPACE",
        default_value = "forebay-system",
        help_heading = "Source"
    )]
    pub(crate) nodes_namespace: String,

    /// Use the cluster of this kubeconfig [default: $KUBECONFIG, else the pod's service account]
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_KUBECONFIG",
        help_heading = "Source"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// Where agent and proxy meet.
#[derive(Args, Clone, Debug)]
pub(crate) struct LinkArgs {
    /// Unix socket at which the agent waits for the proxy. Who may connect to it gets every private
    /// key: the agent's user and group; in a folder with the setgid bit, the folder's group
    #[arg(
        long,
        value_name = "PATH",
        env = "FOREBAY_LINK",
        default_value = "/run/forebay-link/link.sock",
        help_heading = "Agent and proxy"
    )]
    pub(crate) link: PathBuf,
}

/// What every process has.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProcessArgs {
    /// Name of this node
    #[arg(
        long,
        value_name = "NAME",
        env = "FOREBAY_NODE_NAME",
        help_heading = "Data plane"
    )]
    pub(crate) node_name: Option<String>,

    /// Format of the log on standard error
    #[arg(
        long,
        value_enum,
        env = "FOREBAY_LOG_FORMAT",
        default_value_t,
        help_heading = "Process"
    )]
    pub(crate) log_format: LogFormat,
}

/// Where a running Forebay answers, the same for every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// Unix socket at which a running Forebay answers `forebay status`, `routes` and `metrics`
    /// [default: /run/forebay/admin.sock as root, else $XDG_RUNTIME_DIR/forebay/admin.sock, else
    /// forebay-UID/admin.sock in the temporary folder; of an agent agent-admin.sock, beside it]
    #[arg(long, value_name = "PATH", env = "FOREBAY_ADMIN_SOCKET")]
    pub(crate) admin_socket: Option<PathBuf>,
}

/// Name of the admin socket of a process that serves.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";

/// Name of an agent's, beside it.
pub(crate) const AGENT_ADMIN_SOCKET: &str = "agent-admin.sock";

impl AdminArgs {
    /// The socket's path; without a flag, `name` in the folder of all of this user's.
    ///
    /// One rule for all commands: `/run/forebay` for root, else the user's runtime folder, else a
    /// folder of the user's own in the temporary one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        if let Some(path) = &self.admin_socket {
            return path.clone();
        }
        let user = rustix::process::geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let folder = if user.is_root() {
            "/run/forebay".into()
        } else if let Some(runtime) = runtime {
            PathBuf::from(runtime).join("forebay")
        } else {
            std::env::temp_dir().join(format!("forebay-{}", user.as_raw()))
        };
        folder.join(name)
    }
}

/// Says what took the place of `--admin`.
fn without_admin(_: &str) -> Result<String, String> {
    Err("--admin is gone: use --admin-socket PATH for forebay status and routes, and --metrics ADDR:PORT for Prometheus".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use ingress_agent::membership::Membership;

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
        for name in ["run", "agent", "proxy", "operator"] {
            let command = command.find_subcommand(name).unwrap();
            for argument in command
                .get_arguments()
                .filter(|a| !matches!(a.get_id().as_str(), "help" | "version"))
            {
                let expected = format!("FOREBAY_{}", argument.get_id().as_str().to_uppercase());
                assert_eq!(
                    argument.get_env().and_then(|env| env.to_str()),
                    Some(&*expected),
                    "{name}"
                );
            }
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
            &["--nodes-namespace", "a"],
            &["--nodes-namespace", "a", "--node-address", "::1"],
            &["--unknown"],
        ] {
            assert!(run(flags).is_err(), "{flags:?}");
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
            let config = run(&[&steer[..], flags].concat()).unwrap().data_plane;
            let reason = config.takes_no_part("n1", &config.membership("n1").unwrap());
            assert_eq!(reason.is_none(), takes_part, "{flags:?}");
        }
        let without_vips = run(&["--node-name", "n1"]).unwrap().data_plane;
        let nodes = without_vips.membership("n1").unwrap();
        assert_eq!(without_vips.takes_no_part("n1", &nodes), None);
        let file = ["--nodes-file", "nodes.yaml", "--hash-seed", "1"];
        let by_file = run(&[&steer[..], &file].concat()).unwrap().data_plane;
        let other = "nodes: [{id: 0, name: n2, address: 198.18.0.12}]\nepoch: 1";
        let other = Membership::read(other).unwrap();
        let reason = by_file.takes_no_part("n1", &other).unwrap();
        assert!(
            reason.starts_with("nodes.yaml does not list this node, n1"),
            "{reason}"
        );
    }

    #[test]
    fn a_node_is_not_reached_at_an_address_that_others_have() {
        let flags = ["--vip", "198.51.100.10", "--xdp-interface", "eth0"];
        let data_plane = run(&[&flags[..], &["--node-name", "n1"]].concat())
            .unwrap()
            .data_plane;
        for (address, is_good) in [
            ("198.18.0.11", true),
            ("198.51.100.10", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            let checked = data_plane.check_address(address.parse().unwrap());
            assert_eq!(checked.is_ok(), is_good, "{address}: {checked:?}");
        }
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
            assert_eq!(run(&flags).unwrap().data_plane.seed(), seed, "{flags:?}");
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
            let config = run(flags).unwrap();
            let found = config
                .metrics
                .address(config.source.is_folder(), METRICS_PORT);
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
        let nodes = |flags: &[&str]| {
            let config = run(&[&steer[..], flags].concat()).unwrap();
            config.data_plane.membership("n1")
        };
        assert_eq!(nodes(&[]).unwrap().nodes.len(), 1);
        assert_eq!(
            nodes(&["--node", "n1=198.18.0.1,n2=198.18.0.2"])
                .unwrap()
                .nodes
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
        let config = run(&[]).unwrap().listen;
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

    #[test]
    fn clients_find_forebay_at_its_listeners_and_virtual_ips() {
        let vips = ["198.51.100.1", "2001:db8::1"].map(|vip| vip.parse().unwrap());
        let of = |http: &[&str], vips: &[_]| {
            let config = ListenArgs {
                http: http
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect(),
                https: vec!["127.0.0.1:0".parse().unwrap()],
            };
            let found = config.of_clients(vips);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            found.join(" ")
        };
        assert_eq!(of(&["192.0.2.1:8080"], &[]), "192.0.2.1:8080");
        assert_eq!(
            of(&[], &vips),
            "198.51.100.1:80 198.51.100.1:443 [2001:db8::1]:80 [2001:db8::1]:443"
        );
    }
}
