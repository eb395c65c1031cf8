//! A worker on loopback whose table and certificates the test decides.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use ingress_model::{
    Action, BackendKey, Certificate, Conditions, Endpoint, HostPattern, HostPolicy, HostRules,
    ObjectName, ObjectRef, PathKind, PathPattern, PathRegex, Policy, PrivateKey, Rule, ServicePort,
    Split, Transport, Update, UpstreamKey,
};
use ingress_proxy::metrics::Registry;
use ingress_proxy::table::Site;
use ingress_proxy::tls::{self, Resolver};
use ingress_proxy::worker::{self, Inputs, Listener, Shutdown, WorkerSettings};
use rustix::net::{self, AddressFamily, SocketType};
use tokio::sync::{Barrier, mpsc, watch};

/// Running workers, one unless more are asked for; drained and joined when dropped.
pub(crate) struct Proxy {
    /// Where it serves HTTP.
    pub(crate) http: SocketAddr,
    /// Where it serves HTTPS.
    pub(crate) https: SocketAddr,
    pub(crate) registry: Arc<Registry>,
    site: Mutex<Site>,
    shutdown: Arc<watch::Sender<Shutdown>>,
    idle: Arc<Barrier>,
    threads: Vec<JoinHandle<()>>,
}

/// Times short enough for a test, long enough for a busy machine.
pub(crate) fn settings() -> WorkerSettings {
    WorkerSettings {
        shutdown_grace: Duration::from_secs(5),
        lame_duck: Duration::from_millis(50),
        ..WorkerSettings::default()
    }
}

impl Proxy {
    /// Serves `state`.
    pub(crate) fn start(state: &Update) -> Self {
        Self::start_with(state, settings())
    }

    /// Serves `state` under `settings`.
    pub(crate) fn start_with(state: &Update, settings: WorkerSettings) -> Self {
        Self::start_workers(state, settings, 1)
    }

    /// Serves `state` under `settings` on `count` workers.
    pub(crate) fn start_workers(state: &Update, settings: WorkerSettings, count: usize) -> Self {
        let registry = Arc::new(Registry::new(count));
        let resolver = Resolver::new().unwrap();
        let mut site = Site::new(Arc::clone(&resolver), Arc::clone(&registry));
        site.apply(state).unwrap();
        let (shutdown, begun) = watch::channel(Shutdown::NotYet);
        let shutdown = Arc::new(shutdown);
        let (mut http, mut https) = (Shared::bind(), Shared::bind());
        let (settings, idle) = (Arc::new(settings), Arc::new(Barrier::new(count + 1)));
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
                tables: site.tables(),
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
            site: Mutex::new(site),
            shutdown,
            idle,
            threads,
        }
    }

    /// Puts another whole state in force.
    pub(crate) fn publish(&self, state: &Update) {
        let mut site = self.site.lock().unwrap();
        site.apply(state).unwrap();
        site.tidy();
    }

    /// Begins the shutdown, and lets the workers close once all are idle, as the process does.
    pub(crate) fn shut_down(&self) {
        let begins = self.shutdown.send_if_modified(|phase| {
            let begins = *phase == Shutdown::NotYet;
            if begins {
                *phase = Shutdown::Alone;
            }
            begins
        });
        if begins {
            let (idle, shutdown) = (Arc::clone(&self.idle), Arc::clone(&self.shutdown));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(idle.wait());
                shutdown.send_replace(Shutdown::Closing);
            });
        }
    }

    /// Whether all workers have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Value of the sample that begins with `sample`, or 0.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let text: String = self.registry.expose().collect();
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

/// A whole state under construction.
#[derive(Clone, Default)]
pub(crate) struct Cluster(pub(crate) Update);

impl Cluster {
    /// One rule for every host and path to `endpoints`.
    pub(crate) fn of(endpoints: &[SocketAddr]) -> Update {
        Self::default()
            .route("", "/", "web", endpoints, Policy::default())
            .0
    }

    /// Adds a rule and its backend.
    pub(crate) fn route(
        mut self,
        host: &str,
        path: &str,
        service: &str,
        endpoints: &[SocketAddr],
        policy: Policy,
    ) -> Self {
        let backend = BackendKey {
            service: ObjectName::new("shop", service),
            port: ServicePort::Number(80),
        };
        let endpoint = |address: &SocketAddr| Endpoint {
            address: *address,
            pod: Some("pod-1".into()),
        };
        let endpoints = endpoints.iter().map(endpoint).collect();
        self.0.endpoints.push((backend.clone(), Some(endpoints)));
        let upstream = UpstreamKey {
            backend,
            policy: policy.upstream,
        };
        let rewrites = policy.route.rewrite_target.is_some();
        let rule = Rule {
            source: Arc::new(ObjectRef::new(
                "Ingress",
                ObjectName::new("shop", "web"),
                "",
            )),
            path: PathPattern::new(PathKind::Prefix, path).unwrap(),
            regex: rewrites.then(|| PathRegex::new(path).unwrap()),
            conditions: Conditions::default(),
            policy: Arc::new(policy.route),
            action: Action::Forward(Split::all(Arc::new(upstream))),
        };
        self.host(&host.parse().unwrap()).rules.push(rule);
        self
    }

    /// The rules of a host, none at first.
    fn host(&mut self, host: &HostPattern) -> &mut HostRules {
        let hosts = &mut self.0.hosts;
        let at = hosts.iter().position(|(of, _)| of == host);
        let at = at.unwrap_or_else(|| {
            hosts.push((host.clone(), Some(Arc::default())));
            hosts.len() - 1
        });
        Arc::make_mut(hosts[at].1.as_mut().unwrap())
    }

    /// Adds a self-signed certificate for `host`, served to every name if no rule is for that one;
    /// returns its DER.
    pub(crate) fn certificate(&mut self, host: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let host: HostPattern = host.parse().unwrap();
        let secret = ObjectName::new("shop", "tls");
        let is_known = self.0.hosts.iter().any(|(of, _)| *of == host);
        let of = if is_known { host } else { HostPattern::Any };
        self.host(&of).policy = HostPolicy {
            tls: of != HostPattern::Any,
            certificate: Some(secret.clone()),
            ignores_wildcard: false,
        };
        let certificate = Certificate {
            secret: secret.clone(),
            chain_pem: made.cert.pem().into_bytes(),
            key: PrivateKey::from_pem(made.signing_key.serialize_pem().into_bytes()),
        };
        let certificates = &mut self.0.certificates;
        certificates.push((secret, Some(Arc::new(certificate))));
        made.cert.der().to_vec()
    }
}
