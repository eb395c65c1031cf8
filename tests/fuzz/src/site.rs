//! A worker with one route for everything to one endpoint, and a run of one client against it.

use std::{net::SocketAddr, sync::Arc};

use ingress_model::{
    Action, BackendKey, Conditions, Endpoint as Address, HostRules, ObjectName, ObjectRef,
    PathKind, PathPattern, PathRegex, RoutePolicy, Rule, ServicePort, Split, Update, UpstreamKey,
    UpstreamPolicy,
};
use ingress_proxy::{
    fuzz::{End, Far, Site as Worker},
    metrics::{Registry, WorkerMetrics},
    table::{RouteTable, Site as Table},
    tls::{self, Resolver, ServerConfig},
};

use crate::{
    oracle::{End as BodyEnd, Manner, requests},
    pace::Pace,
};

/// Where the client is.
pub const PEER: &str = "192.0.2.1";

/// What stands for the endpoint. It is asked when nothing else moves.
pub trait Endpoint {
    /// All that is to be sent on a connection over which `received` has come.
    fn answer(&mut self, received: &[u8]) -> Answer;
}

/// What an endpoint sends on a connection, from its beginning.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The bytes; those of the last time and more.
    pub bytes: Vec<u8>,
    /// The connection ends behind them.
    pub closes: bool,
}

/// Answers each request with an empty 200, once it has read it to its end.
#[derive(Clone, Copy, Debug)]
pub struct Agreeing;

impl Endpoint for Agreeing {
    fn answer(&mut self, received: &[u8]) -> Answer {
        let whole = requests(received, Manner::Strict)
            .iter()
            .filter(|request| request.body.end == BodyEnd::Whole)
            .count();
        Answer {
            bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(whole),
            closes: false,
        }
    }
}

/// What was seen from the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the client received.
    pub client: Vec<u8>,
    /// How the client's connection was left, before the client itself left it.
    pub end: End,
    /// What was received over each connection to the endpoint, oldest first.
    pub endpoint: Vec<Vec<u8>>,
}

/// What all runs share.
pub struct Site {
    table: Arc<RouteTable>,
    metrics: Arc<WorkerMetrics>,
    tls: Arc<ServerConfig>,
}

/// A connection to the endpoint.
struct Connection {
    far: Far,
    answer: Answer,
    sent: usize,
    closed: bool,
}

impl Default for Site {
    fn default() -> Self {
        let registry = Arc::new(Registry::new(1));
        let resolver = Resolver::new().expect("a certificate can be made");
        Self {
            table: table(
                rule("/", PathKind::Prefix, RoutePolicy::default()),
                &registry,
            ),
            metrics: registry.worker(),
            tls: tls::server_config(resolver).expect("a ticket key can be made"),
        }
    }
}

/// A rule to the one endpoint; `None` where the path is none.
pub fn rule(path: &str, kind: PathKind, policy: RoutePolicy) -> Option<Rule> {
    let key = UpstreamKey {
        backend: backend(),
        policy: UpstreamPolicy::default(),
    };
    let regex = match kind {
        PathKind::Regex => Some(PathRegex::new(path).ok()?),
        PathKind::Prefix | PathKind::Exact => None,
    };
    Some(Rule {
        source: Arc::new(ObjectRef::new(
            "Ingress",
            ObjectName::new("shop", "web"),
            "",
        )),
        path: PathPattern::new(kind, path).ok()?,
        regex,
        conditions: Conditions::default(),
        policy: Arc::new(policy),
        action: Action::Forward(Split::all(Arc::new(key))),
    })
}

fn backend() -> BackendKey {
    BackendKey {
        service: ObjectName::new("shop", "web"),
        port: ServicePort::Number(80),
    }
}

/// A table with this rule for all hosts.
pub fn table(rule: Option<Rule>, registry: &Arc<Registry>) -> Arc<RouteTable> {
    let address = Address {
        address: ([192, 0, 2, 2], 80).into(),
        pod: None,
    };
    let rules = HostRules {
        rules: rule.into_iter().collect(),
        ..HostRules::default()
    };
    let update = Update {
        epoch: 1,
        endpoints: vec![(backend(), Some(vec![address].into()))],
        hosts: vec![(
            "".parse().expect("no host is a pattern"),
            Some(Arc::new(rules)),
        )],
        ..Update::default()
    };
    let resolver = Resolver::new().expect("a certificate can be made");
    let mut site = Table::new(resolver, Arc::clone(registry));
    site.apply(&update).expect("a whole state fits");
    let table = Arc::clone(&site.tables().borrow());
    table
}

impl Site {
    /// Sends `bytes` over one connection, and lets everything move at `pace` until nothing does.
    ///
    /// # Panics
    /// The connection stays open after both the client and the endpoint have left.
    pub fn run(&self, bytes: &[u8], mut pace: Pace<'_>, endpoint: &mut impl Endpoint) -> Seen {
        let worker = Worker::new(
            Arc::clone(&self.table),
            Arc::clone(&self.metrics),
            Arc::clone(&self.tls),
        );
        let peer: SocketAddr = (
            PEER.parse::<std::net::Ipv4Addr>().expect("an address"),
            4711,
        )
            .into();
        let (mut serving, client) = worker.accept(peer);
        let mut connections: Vec<Connection> = Vec::new();
        let mut rest = bytes;
        loop {
            let before = moved(&client, &connections);
            let piece;
            (piece, rest) = pace.split(rest);
            client.send(piece);
            client.grant(pace.size());
            let mut sent = piece.len();
            for connection in &mut connections {
                sent += connection.send(&mut pace);
            }
            serving.run();
            connections.extend(worker.connected().into_iter().map(Connection::new));
            if sent > 0 || moved(&client, &connections) != before {
                continue;
            }
            let mut has_news = false;
            for connection in &mut connections {
                has_news |= connection.ask(endpoint);
            }
            if !has_news {
                break;
            }
        }
        let seen = Seen {
            client: client.with_received(<[u8]>::to_vec),
            end: client.end(),
            endpoint: connections
                .iter()
                .map(|connection| connection.far.with_received(<[u8]>::to_vec))
                .collect(),
        };
        connections
            .iter()
            .for_each(|connection| connection.far.close());
        client.close();
        serving.run();
        assert!(
            serving.has_ended(),
            "the connection stays open when both sides have left: {}",
            bytes.escape_ascii()
        );
        seen
    }
}

/// A count of all that the proxy has sent and opened.
fn moved(client: &Far, connections: &[Connection]) -> (usize, usize) {
    let received = connections
        .iter()
        .map(|connection| connection.far.received());
    (
        connections.len(),
        client.received() + received.sum::<usize>(),
    )
}

impl Connection {
    fn new(far: Far) -> Self {
        Self {
            far,
            answer: Answer::default(),
            sent: 0,
            closed: false,
        }
    }

    /// Sends the next piece; how much that is, the end counted as a byte.
    fn send(&mut self, pace: &mut Pace<'_>) -> usize {
        self.far.grant(pace.size());
        let (piece, rest) = pace.split(&self.answer.bytes[self.sent..]);
        self.far.send(piece);
        self.sent += piece.len();
        let closes = rest.is_empty() && self.answer.closes && !self.closed;
        if closes {
            self.closed = true;
            self.far.close();
        }
        piece.len() + usize::from(closes)
    }

    /// Asks the endpoint; whether there is more to send.
    fn ask(&mut self, endpoint: &mut impl Endpoint) -> bool {
        if self.closed {
            return false;
        }
        self.answer = self.far.with_received(|received| endpoint.answer(received));
        self.sent < self.answer.bytes.len() || self.answer.closes
    }
}
