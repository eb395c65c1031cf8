//! Idle connections to endpoints, one pool per worker: nothing here is shared between cores.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use ahash::AHashMap;
use tokio::time::Instant;

use super::{ForwardError, peer::Peer, request::Waiting};
use crate::{
    http1::{Field, HeadFinder},
    net::{Deadline, Inbound, Socket, Stall},
};

/// Idle connections one worker keeps to one endpoint.
const ENDPOINT_LIMIT: usize = 320;
/// Idle connections one worker keeps, over all endpoints.
const WORKER_LIMIT: usize = 4096;
/// How long a connection may stay unused where its endpoint does not say; the default of ingress-nginx.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(60);

/// One connection to an endpoint, between two requests or in one.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) socket: Socket,
    /// Received and not yet consumed; the head of a response stays here until it is passed on.
    pub(super) inbound: Inbound,
    pub(super) finder: HeadFinder,
    /// Of the head that was parsed last; kept for its memory.
    pub(super) fields: Vec<Field>,
    /// For requests whose client's side has no timer of its own.
    pub(super) deadline: Deadline,
    /// Of the deadline, where the endpoint's socket takes no more.
    stall: Stall,
    /// When the endpoint may close it for being idle.
    expires: Instant,
}

impl Connection {
    /// Gives whoever is waited for `limit` from now on, by the timer of the client's side if there is
    /// one.
    pub(super) fn wait(&mut self, own: Option<&mut Deadline>, now: Instant, limit: Duration) {
        own.unwrap_or(&mut self.deadline).set(now + limit);
        self.stall.clear();
    }

    /// Ready once that time is over. An endpoint that takes little at a time gets it again.
    pub(super) fn poll_over(
        &mut self,
        own: Option<&mut Deadline>,
        waiting: Waiting,
        now: Instant,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = own.unwrap_or(&mut self.deadline);
        if waiting != Waiting::Socket {
            return deadline.poll(cx);
        }
        let socket = &self.socket;
        let unacknowledged = || socket.unacknowledged();
        self.stall.poll(unacknowledged, deadline, now, limit, cx)
    }
}

/// The connections to one peer. Lives as long as a balancer names it or a request uses it.
#[derive(Debug)]
pub(crate) struct EndpointPool {
    peer: Peer,
    /// Last in, first out: the warmest connection is used, the others may grow old.
    #[expect(
        clippy::vec_box,
        reason = "the box is what moves between pool and request"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
    worker_idle: Rc<Cell<usize>>,
}

impl EndpointPool {
    /// Takes an idle connection that its endpoint has not closed.
    pub(crate) fn checkout(self: &Rc<Self>, now: Instant) -> Option<Lease> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            self.worker_idle.set(self.worker_idle.get() - 1);
            if connection.expires > now && connection.socket.is_quiet() {
                return Some(Lease {
                    connection,
                    endpoint: Rc::clone(self),
                    reused: true,
                });
            }
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The endpoint refuses, cannot be reached, or does not accept within `limit`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the half-open connection.
    pub(crate) async fn connect(self: &Rc<Self>, limit: Duration) -> Result<Lease, ForwardError> {
        let endpoint = self.peer.address;
        let socket = match tokio::time::timeout(limit, Socket::connect(endpoint)).await {
            Ok(Ok(socket)) => socket,
            // The kernel gave up before we did.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(ForwardError::ConnectTimeout { endpoint });
            }
            Ok(Err(source)) => return Err(ForwardError::Connect { endpoint, source }),
            Err(_) => return Err(ForwardError::ConnectTimeout { endpoint }),
        };
        Ok(self.adopt(socket))
    }

    /// Wraps a connection that was just opened.
    pub(super) fn adopt(self: &Rc<Self>, socket: Socket) -> Lease {
        let connection = Box::new(Connection {
            socket,
            inbound: Inbound::default(),
            finder: HeadFinder::default(),
            fields: Vec::with_capacity(16),
            deadline: Deadline::default(),
            stall: Stall::default(),
            expires: Instant::now(),
        });
        Lease {
            connection,
            endpoint: Rc::clone(self),
            reused: false,
        }
    }

    /// Closes connections that are too old or were closed by the endpoint.
    fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|connection| connection.expires > now && connection.socket.is_quiet());
        self.worker_idle
            .set(self.worker_idle.get() - (before - idle.len()));
    }
}

impl Drop for EndpointPool {
    fn drop(&mut self) {
        self.worker_idle
            .set(self.worker_idle.get() - self.idle.borrow().len());
    }
}

/// One connection in use by one request. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) connection: Box<Connection>,
    endpoint: Rc<EndpointPool>,
    reused: bool,
}

impl Lease {
    /// Whether the connection has carried a request before.
    pub(crate) fn reused(&self) -> bool {
        self.reused
    }

    /// Where the connection goes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.peer.address
    }

    /// Gives the connection up: the socket, and what was received beyond the head.
    pub(super) fn into_parts(self) -> (Socket, Inbound) {
        let Connection {
            socket, inbound, ..
        } = *self.connection;
        (socket, inbound)
    }

    /// Puts the connection back for the next request. Only for one on which the whole request was
    /// sent and the whole response was read; bytes beyond the response end it here.
    pub(super) fn give_back(mut self, now: Instant, idle_time: Duration) {
        let endpoint = &self.endpoint;
        let is_full = endpoint.worker_idle.get() >= WORKER_LIMIT
            || endpoint.idle.borrow().len() >= ENDPOINT_LIMIT;
        if is_full || !self.connection.inbound.is_empty() || idle_time.is_zero() {
            return;
        }
        self.connection.deadline.clear();
        self.connection.finder = HeadFinder::default();
        self.connection.expires = now + idle_time;
        endpoint.worker_idle.set(endpoint.worker_idle.get() + 1);
        endpoint.idle.borrow_mut().push(self.connection);
    }
}

/// All peers that a worker has connections to.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    endpoints: RefCell<AHashMap<Peer, Rc<EndpointPool>>>,
    idle: Rc<Cell<usize>>,
}

impl Pool {
    /// The pool of one peer; made if it is new. Upstreams that name the same peer share it.
    pub(crate) fn endpoint(&self, peer: Peer) -> Rc<EndpointPool> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.entry(peer).or_insert_with(|| {
            Rc::new(EndpointPool {
                peer,
                idle: RefCell::default(),
                worker_idle: Rc::clone(&self.idle),
            })
        });
        Rc::clone(endpoint)
    }

    /// Closes what was idle for too long or was closed by its endpoint, and forgets the endpoints
    /// that no balancer names any more; requests in flight go on.
    pub(crate) fn sweep(&self, now: Instant) {
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            endpoint.sweep(now);
            Rc::strong_count(endpoint) > 1
        });
    }

    /// Idle connections now.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.idle.get()
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};
    use tokio::net::{TcpListener, TcpStream};

    use super::{super::peer::Protocol, *};

    fn peer(listener: &TcpListener) -> Peer {
        Peer {
            address: listener.local_addr().unwrap(),
            protocol: Protocol::Http1,
        }
    }

    async fn pair(listener: &TcpListener) -> (Socket, TcpStream) {
        let (client, server) = tokio::join!(
            Socket::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_closed_by_its_endpoint_is_not_given_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(peer(&listener));
        let (client, server) = pair(&listener).await;
        let mut lease = endpoint.adopt(client);
        drop(server);
        let Lease { connection, .. } = &mut lease;
        let mut byte = [0];
        let ended = std::future::poll_fn(|cx| connection.socket.poll_recv(cx, &mut byte[..])).await;
        assert_eq!(ended.unwrap(), 0);
        lease.give_back(Instant::now(), IDLE_TIME);
        assert_eq!(pool.idle(), 1);
        assert!(endpoint.checkout(Instant::now()).is_none());
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn a_connection_is_not_used_when_its_endpoint_may_be_closing_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(peer(&listener));
        let (client, _server) = pair(&listener).await;
        let now = Instant::now();
        endpoint
            .adopt(client)
            .give_back(now, Duration::from_secs(4));
        assert!(endpoint.checkout(now + Duration::from_secs(4)).is_none());
        let (client, _server) = pair(&listener).await;
        endpoint
            .adopt(client)
            .give_back(now, Duration::from_secs(4));
        assert!(endpoint.checkout(now + Duration::from_secs(3)).is_some());
    }

    #[tokio::test]
    async fn an_endpoint_that_nobody_names_keeps_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(peer(&listener));
        let (idle, _server) = pair(&listener).await;
        endpoint.adopt(idle).give_back(Instant::now(), IDLE_TIME);
        pool.sweep(Instant::now());
        assert_eq!(pool.idle(), 1);
        drop(endpoint);
        pool.sweep(Instant::now());
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn a_pool_keeps_no_more_than_its_limits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(peer(&listener));
        let now = Instant::now();
        let mut servers = Vec::new();
        for count in 1..ENDPOINT_LIMIT + 2 {
            let (client, server) = pair(&listener).await;
            endpoint.adopt(client).give_back(now, IDLE_TIME);
            servers.push(server);
            assert_eq!(pool.idle(), count.min(ENDPOINT_LIMIT));
        }
        pool.sweep(now + IDLE_TIME - Duration::from_nanos(1));
        assert_eq!(pool.idle(), ENDPOINT_LIMIT, "each is young and open");
        pool.sweep(now + IDLE_TIME);
        assert_eq!(pool.idle(), 0);
        // As if others had the rest.
        pool.idle.set(WORKER_LIMIT - 1);
        for count in [WORKER_LIMIT, WORKER_LIMIT] {
            let (client, server) = pair(&listener).await;
            endpoint.adopt(client).give_back(now, IDLE_TIME);
            servers.push(server);
            assert_eq!(pool.idle(), count);
        }
    }

    #[tokio::test]
    async fn a_connection_with_bytes_that_nobody_asked_for_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(peer(&listener));
        for (bytes, idle_time, kept) in [
            (&b""[..], IDLE_TIME, 1),
            (b"x", IDLE_TIME, 0),
            (b"", Duration::ZERO, 0),
        ] {
            let (client, _server) = pair(&listener).await;
            let mut lease = endpoint.adopt(client);
            assert!(lease.connection.inbound.extend(bytes));
            assert!(!lease.reused());
            lease.give_back(Instant::now(), idle_time);
            assert_eq!(pool.idle(), kept);
            if let Some(lease) = endpoint.checkout(Instant::now()) {
                assert!(lease.reused());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_made_says_why() {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        let pool = Pool::default();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let endpoint = pool.endpoint(Peer {
            address,
            protocol: Protocol::Http1,
        });
        let limit = Duration::from_secs(5);
        let error = endpoint.connect(limit).await.unwrap_err();
        assert!(matches!(error, ForwardError::Connect { .. }), "{error}");
        // Its queue has one place, and the kernel answers nobody else.
        socket.listen(0).unwrap();
        let _first = std::net::TcpStream::connect(address).unwrap();
        let started = Instant::now();
        let error = endpoint.connect(limit).await.unwrap_err();
        assert!(
            matches!(error, ForwardError::ConnectTimeout { .. }),
            "{error}"
        );
        assert_eq!(started.elapsed(), limit);
    }
}
