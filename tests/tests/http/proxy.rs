//! A worker on loopback whose table and certificates the test decides.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use ingress_model::{
    Action, Backend, BackendKey, Certificate, Endpoint, HostPattern, ObjectName, Origin, PathKind,
    PathPattern, Policy, PrivateKey, Route, ServicePort, Snapshot,
};
use ingress_proxy::metrics::Registry;
use ingress_proxy::table::RouteTable;
use ingress_proxy::tls::{self, Certificates, Resolver};
use ingress_proxy::upstream::Upstreams;
use ingress_proxy::worker::{self, Inputs, Listener, Settings, Shutdown, Transport};
use rustix::net::{self, AddressFamily, SocketType};
use tokio::sync::{Barrier, mpsc, watch};

/// Running workers, one unless more are asked for; drained and joined when dropped.
pub(crate) struct Proxy {
    /// Where it serves HTTP.
    pub(crate) http: SocketAddr,
    /// Where it serves HTTPS.
    pub(crate) https: SocketAddr,
    pub(crate) registry: Registry,
    resolver: Arc<Resolver>,
    upstreams: Mutex<Upstreams>,
    tables: watch::Sender<Arc<RouteTable>>,
    shutdown: watch::Sender<Shutdown>,
    threads: Vec<JoinHandle<()>>,
}

/// Times short enough for a test, long enough for a busy machine.
pub(crate) fn settings() -> Settings {
    Settings {
        shutdown_grace: Duration::from_secs(5),
        lame_duck: Duration::from_millis(50),
        ..Settings::default()
    }
}

impl Proxy {
    /// Serves `snapshot`.
    pub(crate) fn start(snapshot: &Snapshot) -> Self {
        Self::start_with(snapshot, settings())
    }

    /// Serves `snapshot` under `settings`.
    pub(crate) fn start_with(snapshot: &Snapshot, settings: Settings) -> Self {
        Self::start_workers(snapshot, settings, 1)
    }

    /// Serves `snapshot` under `settings` on `count` workers.
    pub(crate) fn start_workers(snapshot: &Snapshot, settings: Settings, count: usize) -> Self {
        let registry = Registry::new(count);
        let mut upstreams = Upstreams::default();
        upstreams.adopt(&snapshot.backends);
        let table = RouteTable::compile(snapshot, &upstreams, &registry).0;
        let (tables, table) = watch::channel(Arc::new(table));
        let (shutdown, begun) = watch::channel(Shutdown::NotYet);
        let resolver = Resolver::new().unwrap();
        resolver.publish(Arc::new(Certificates::compile(snapshot, None).0));
        let (mut http, mut https) = (Shared::bind(), Shared::bind());
        let (settings, idle) = (Arc::new(settings), Arc::new(Barrier::new(count)));
        let start = |id| {
            let listeners = vec![
                Listener {
                    socket: http.listener(),
                    transport: Transport::Plain,
                },
                Listener {
                    socket: https.listener(),
                    transport: Transport::Tls,
                },
            ];
            let inputs = Inputs {
                tables: table.clone(),
                tls: tls::server_config(Arc::clone(&resolver)).unwrap(),
                metrics: registry.worker(),
                shutdown: begun.clone(),
                idle: Arc::clone(&idle),
                settings: Arc::clone(&settings),
            };
            worker::spawn(id, listeners, inputs, mpsc::unbounded_channel().0).unwrap()
        };
        let threads = (0..count).map(start).collect();
        Self {
            http: http.address,
            https: https.address,
            registry,
            resolver,
            upstreams: Mutex::new(upstreams),
            tables,
            shutdown,
            threads,
        }
    }

    /// Puts another state in force.
    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        self.resolver
            .publish(Arc::new(Certificates::compile(snapshot, None).0));
        let mut upstreams = self.upstreams.lock().unwrap();
        upstreams.adopt(&snapshot.backends);
        let table = RouteTable::compile(snapshot, &upstreams, &self.registry).0;
        self.tables.send_replace(Arc::new(table));
    }

    /// Begins the shutdown.
    pub(crate) fn shut_down(&self) {
        self.shutdown.send_replace(Shutdown::Alone);
    }

    /// Whether all workers have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Value of the sample that begins with `sample`, or 0.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let text = self.registry.expose();
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shut_down();
        for thread in self.threads.drain(..) {
            assert!(
                thread.join().is_ok() || std::thread::panicking(),
                "the worker panicked"
            );
        }
    }
}

/// One loopback port for all workers, each with a socket of its own.
struct Shared {
    address: SocketAddr,
    /// Bound and handed to the next worker; it holds the port.
    next: OwnedFd,
}

impl Shared {
    fn bind() -> Self {
        let next = reusing(([127, 0, 0, 1], 0).into());
        let address = net::getsockname(&next).unwrap().try_into().unwrap();
        Self { address, next }
    }

    fn listener(&mut self) -> TcpListener {
        let socket = std::mem::replace(&mut self.next, reusing(self.address));
        net::listen(&socket, 128).unwrap();
        socket.into()
    }
}

/// A socket on `address`, which it shares with others of its kind.
fn reusing(address: SocketAddr) -> OwnedFd {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    net::bind(&socket, &address).unwrap();
    socket
}

/// A state under construction.
#[derive(Clone, Default)]
pub(crate) struct Cluster(pub(crate) Snapshot);

impl Cluster {
    /// One route for every host and path to `endpoints`.
    pub(crate) fn of(endpoints: &[SocketAddr]) -> Snapshot {
        Self::default()
            .route("", "/", "web", endpoints, Policy::default())
            .0
    }

    /// Adds a route and its backend.
    pub(crate) fn route(
        mut self,
        host: &str,
        path: &str,
        service: &str,
        endpoints: &[SocketAddr],
        policy: Policy,
    ) -> Self {
        let key = BackendKey {
            service: ObjectName::new("shop", service),
            port: ServicePort::Number(80),
        };
        let endpoint = |address: &SocketAddr| Endpoint {
            address: *address,
            pod: Some("pod-1".into()),
        };
        let backend = Backend {
            key: key.clone(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        };
        self.0.backends.insert(key.clone(), backend);
        self.0.routes.push(Route {
            ingress: ObjectName::new("shop", "web"),
            created: 0,
            origin: Origin::Rule,
            host: host.parse().unwrap(),
            path: PathPattern::new(PathKind::Prefix, path).unwrap(),
            backend: key,
            action: Action::Forward,
            policy,
        });
        self
    }

    /// Adds a self-signed certificate for `host`; returns its DER.
    pub(crate) fn certificate(&mut self, host: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let host: HostPattern = host.parse().unwrap();
        self.0.tls_hosts.push(host.clone());
        self.0.certificates.push(Certificate {
            secret: ObjectName::new("shop", "tls"),
            hosts: vec![host],
            chain_pem: made.cert.pem().into_bytes(),
            key: PrivateKey::from_pem(made.signing_key.serialize_pem().into_bytes()),
        });
        made.cert.der().to_vec()
    }
}
