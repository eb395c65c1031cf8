//! Nodes that learn of each other through the cluster: they come, drain, die and come back under
//! connections that must not notice.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ingress_lab::{
    api_server::{self, ApiServer},
    forebay::{Forebay, Launch},
    lab::{Clients, Cluster, NextHop, Relay, Steering, VIP},
    skipped,
};

/// Longest wait: a node is silent for 15 s before it counts as lost, and so is an operator.
const LIMIT: Duration = Duration::from_secs(60);

const VIPS: [IpAddr; 1] = [IpAddr::V4(VIP)];
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Nodes of the lab, an API server that each reaches by a relay, and two operators.
struct Nodes {
    cluster: Cluster,
    operators: Vec<Forebay>,
    _relays: Vec<Relay>,
    api: Arc<ApiServer>,
}

impl Nodes {
    fn start() -> Self {
        let api = Arc::new(ApiServer::start().unwrap());
        let agent = api.forebay_kubeconfig().unwrap();
        let rights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/overlays/vip/rbac.yaml");
        api.apply(&std::fs::read_to_string(rights).unwrap())
            .unwrap();
        let operator = api.kubeconfig_of("forebay-system", "forebay-operator");
        let operator = operator.unwrap().display().to_string();
        let start = |node: &str| {
            Launch::of("operator", &["--kubeconfig", &operator])
                .args(&["--node-name", node])
                .within(api.namespace())
                .start_unready()
                .unwrap()
        };
        let operators = ["o1", "o2"].map(start).into();
        let steering = Steering {
            // By n1, which is never killed: what a dead node receives, no other can serve.
            next_hop: NextHop::Single,
            mode: "native",
            forward: "udp",
            has_ipv6: false,
        };
        let mut cluster = Cluster::of_cluster(steering, &agent).unwrap();
        for file in ["services.yaml", "secret.yaml", "ingresses.yaml"] {
            let text = std::fs::read_to_string(cluster.manifests().join(file)).unwrap();
            api.apply(&text).unwrap();
        }
        for name in NAMES {
            let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
            api.apply(&node).unwrap();
        }
        let relay = |node: &ingress_lab::lab::Node| {
            let server = "127.0.0.1:6443".parse().unwrap();
            Relay::start(&node.namespace, api.namespace(), server).unwrap()
        };
        let relays = cluster.lab.nodes.iter().map(relay).collect();
        cluster.launch_all().unwrap();
        let nodes = Self {
            cluster,
            operators,
            _relays: relays,
            api,
        };
        nodes.wait_for_owners(&NAMES);
        nodes
    }

    fn published(&self) -> String {
        let path = "jsonpath={.data.nodes\\.yaml}";
        let args = [
            "get",
            "configmap",
            "forebay-nodes",
            "-n",
            "forebay-system",
            "-o",
            path,
        ];
        self.api.kubectl(&args, "").unwrap()
    }

    /// Names of the nodes that own new connections, and whether a change is under way.
    fn owners(&self) -> (Vec<String>, bool) {
        let text = self.published();
        let id_of = |line: &str| {
            let id = line.strip_prefix("- {id: ")?.split(',').next()?;
            let name = line.split("name: \"").nth(1)?.split('"').next()?;
            Some((id.to_owned(), name.to_owned()))
        };
        let names: Vec<_> = text.lines().filter_map(id_of).collect();
        let current = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("current: "));
        let current = current.unwrap_or_default().trim_matches(['[', ']']);
        let mut owners: Vec<_> = current
            .split(", ")
            .filter_map(|id| names.iter().find(|(known, _)| known == id))
            .map(|(_, name)| name.clone())
            .collect();
        owners.sort();
        (owners, text.contains("\n  next: "))
    }

    fn epoch(&self) -> u64 {
        let text = self.published();
        let epoch = text.lines().find_map(|line| line.strip_prefix("epoch: "));
        epoch.unwrap().parse().unwrap()
    }

    /// Waits until these nodes own connections, and all that run steer by it.
    fn wait_for_owners(&self, names: &[&str]) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (owners, is_changing) = self.owners();
            let epoch = self.epoch() as f64;
            let steers = |forebay: &Forebay| {
                let metrics = forebay.metrics();
                // One that was killed says nothing.
                metrics.map_or(true, |metrics| {
                    metrics.sum("forebay_steer_epoch", &[]) == Some(epoch)
                })
            };
            if owners == names && !is_changing && self.cluster.forebays.iter().all(steers) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{names:?} do not own connections: {}\n{}",
                self.published(),
                self.operators
                    .iter()
                    .map(Forebay::log_text)
                    .collect::<String>()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Adds so many connections; only these nodes get some.
    fn connect(&self, clients: &mut Clients, count: usize, names: &[&str]) {
        let nodes = clients.connect(&self.cluster, count).unwrap();
        assert_eq!(nodes.keys().collect::<Vec<_>>(), names, "{nodes:?}");
    }

    fn label(&self, label: &str) {
        self.api
            .kubectl(&["label", "node", "n2", label], "")
            .unwrap();
    }
}

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[test]
fn nodes_come_drain_die_and_come_back_and_only_what_a_dead_one_had_is_lost() {
    if let Err(reason) = api_server::available() {
        return skipped(&reason);
    }
    let mut nodes = Nodes::start();
    let mut clients = Clients::of(&VIPS);
    nodes.connect(&mut clients, 400, &NAMES);

    // A node that is drained keeps what it has.
    nodes.label(&format!("{EXCLUDE}="));
    nodes.wait_for_owners(&["n1", "n3"]);
    assert_eq!(clients.ask(), [""; 0], "after n2 was drained");
    nodes.connect(&mut clients, 60, &["n1", "n3"]);

    // Whichever operator acts is killed: the other one brings the node back.
    let acts = |forebay: &Forebay| forebay.log_text().contains("sees to the set of nodes");
    let acting = nodes.operators.iter().position(acts).unwrap();
    nodes.operators[acting].kill();
    nodes.label(&format!("{EXCLUDE}-"));
    nodes.wait_for_owners(&NAMES);
    assert_eq!(clients.ask(), [""; 0], "after n2 came back");
    nodes.connect(&mut clients, 60, &NAMES);

    // A process that is replaced by the next one of its node changes nothing.
    let epoch = nodes.epoch();
    nodes.cluster.replace(0).unwrap();
    assert_eq!(nodes.epoch(), epoch);

    // The API server is away, longer than a node may be silent.
    nodes.api.freeze_server().unwrap();
    // Nothing is waited for: it is the time itself that must do no harm.
    std::thread::sleep(Duration::from_secs(17));
    nodes.api.thaw_server().unwrap();
    // n1's connections ended with its process.
    let lost = clients.ask();
    assert!(
        lost.iter().all(|one| one.starts_with("of n1: ")),
        "{lost:?}"
    );
    let mut clients = Clients::of(&VIPS);
    nodes.connect(&mut clients, 200, &NAMES);
    assert_eq!(nodes.owners().0, NAMES, "after the API server was away");
    // A change and its opposite would leave the same owners.
    assert_eq!(
        nodes.epoch(),
        epoch,
        "n1's process was replaced, and the API server was away"
    );

    // A node dies: only its connections go, and the others take its share.
    nodes.cluster.forebays[2].kill();
    nodes.wait_for_owners(&["n1", "n2"]);
    let lost = clients.ask();
    assert!(!lost.is_empty());
    assert!(
        lost.iter().all(|one| one.starts_with("of n3: ")),
        "{lost:?}"
    );
    nodes.connect(&mut Clients::of(&VIPS), 60, &["n1", "n2"]);

    // It comes back, and waits for its share: connections of two earlier sets have their time first.
    let epoch = nodes.epoch();
    nodes.cluster.forebays[2].restart().unwrap();
    assert_eq!(
        (nodes.owners().0, nodes.epoch()),
        (vec!["n1".to_owned(), "n2".to_owned()], epoch)
    );
    let lost = clients.ask();
    assert!(
        lost.iter().all(|one| one.starts_with("of n3: ")),
        "{lost:?}"
    );
}
