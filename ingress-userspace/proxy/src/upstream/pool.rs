//! Idle connections to endpoints, one pool a worker: nothing here is shared between cores.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use ahash::AHashMap;
use bytes::BytesMut;
use tokio::{net::TcpStream, time::Instant};

use super::{Deadline, response::Span};

/// Idle connections one worker keeps, over all endpoints; the default of ingress-nginx.
const IDLE_LIMIT: usize = 320;
/// How long a connection may stay unused; the default of ingress-nginx.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// One connection to an endpoint, between two requests or in one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Received and not yet parsed.
    pub(super) inbound: BytesMut,
    /// To be sent; its first `sent` bytes already are.
    pub(super) outbound: Vec<u8>,
    pub(super) sent: usize,
    /// Where the fields of the head being parsed are; kept for its memory.
    pub(super) spans: Vec<Span>,
    pub(super) deadline: Deadline,
    idle_since: Instant,
}

/// The connections to one address. Lives as long as a table names the address or a request uses it.
#[derive(Debug)]
pub struct EndpointPool {
    address: SocketAddr,
    /// Last in, first out: the warmest connection is used, the others may grow old.
    #[expect(
        clippy::vec_box,
        reason = "the box is what moves between pool and request"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
    /// Set once no table names the address: connections that come back are closed.
    retired: Cell<bool>,
    worker_idle: Rc<Cell<usize>>,
}

impl EndpointPool {
    /// Where the connections go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes an idle connection that the endpoint has not closed.
    pub fn checkout(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            self.worker_idle.set(self.worker_idle.get() - 1);
            if connection.is_quiet() {
                return Some(Lease {
                    connection,
                    endpoint: Rc::clone(self),
                    reused: true,
                });
            }
        }
    }

    /// Wraps a connection that was just opened.
    pub fn adopt(self: &Rc<Self>, stream: TcpStream) -> Lease {
        let connection = Box::new(Connection {
            stream,
            inbound: BytesMut::new(),
            outbound: Vec::with_capacity(1024),
            sent: 0,
            spans: Vec::with_capacity(16),
            deadline: Deadline::default(),
            idle_since: Instant::now(),
        });
        Lease {
            connection,
            endpoint: Rc::clone(self),
            reused: false,
        }
    }

    fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|connection| {
            connection.is_quiet() && now.duration_since(connection.idle_since) < IDLE_TIME
        });
        self.worker_idle
            .set(self.worker_idle.get() - (before - idle.len()));
    }

    fn retire(&self) {
        self.retired.set(true);
        let closed = std::mem::take(&mut *self.idle.borrow_mut());
        self.worker_idle.set(self.worker_idle.get() - closed.len());
    }
}

impl Connection {
    /// Whether the endpoint has neither closed the connection nor sent anything unasked.
    ///
    /// Costs no system call while nothing has arrived: the runtime knows.
    fn is_quiet(&self) -> bool {
        let mut probe = [0];
        matches!(self.stream.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// One connection in use by one request. Dropping it closes the connection.
#[derive(Debug)]
pub struct Lease {
    pub(super) connection: Box<Connection>,
    pub(super) endpoint: Rc<EndpointPool>,
    reused: bool,
}

impl Lease {
    /// The buffer for the head of the request, empty.
    pub fn head(&mut self) -> &mut Vec<u8> {
        self.connection.outbound.clear();
        self.connection.sent = 0;
        &mut self.connection.outbound
    }

    /// Whether the connection has carried a request before: then its death tells nothing about the
    /// endpoint.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Where the connection goes.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Gives the connection up: the stream, and what was received beyond the head.
    pub fn into_stream(self) -> (TcpStream, BytesMut) {
        (self.connection.stream, self.connection.inbound)
    }

    /// Puts the connection back for the next request, unless there is no more use for it.
    ///
    /// A connection on which a request was only half sent is closed: the endpoint still waits for
    /// the rest and would read the next request, another client's, as a part of this one.
    pub(super) fn give_back(mut self, now: Instant) {
        let endpoint = &self.endpoint;
        let half_sent = self.connection.sent < self.connection.outbound.len();
        let unread = !self.connection.inbound.is_empty();
        if half_sent || unread || endpoint.retired.get() || endpoint.worker_idle.get() >= IDLE_LIMIT
        {
            return;
        }
        self.connection.idle_since = now;
        endpoint.worker_idle.set(endpoint.worker_idle.get() + 1);
        endpoint.idle.borrow_mut().push(self.connection);
    }
}

/// All endpoints that the table in force names, by address.
#[derive(Debug, Default)]
pub struct Pool {
    endpoints: RefCell<AHashMap<SocketAddr, Rc<EndpointPool>>>,
    idle: Rc<Cell<usize>>,
}

impl Pool {
    /// The pool of one address; made if it is new.
    pub fn endpoint(&self, address: SocketAddr) -> Rc<EndpointPool> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.entry(address).or_insert_with(|| {
            Rc::new(EndpointPool {
                address,
                idle: RefCell::default(),
                retired: Cell::new(false),
                worker_idle: Rc::clone(&self.idle),
            })
        });
        Rc::clone(endpoint)
    }

    /// Forgets the addresses that `named` does not hold and closes their idle connections; requests
    /// in flight go on.
    pub fn keep(&self, named: impl Fn(&SocketAddr) -> bool) {
        self.endpoints.borrow_mut().retain(|address, endpoint| {
            let keep = named(address);
            if !keep {
                endpoint.retire();
            }
            keep
        });
    }

    /// Closes what was idle for too long or was closed by its endpoint.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.endpoints
            .borrow()
            .values()
            .for_each(|endpoint| endpoint.sweep(now));
    }

    /// Idle connections now.
    pub fn idle(&self) -> usize {
        self.idle.get()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_closed_by_its_endpoint_is_not_given_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(listener.local_addr().unwrap());
        let (client, server) = pair(&listener).await;
        let lease = endpoint.adopt(client);
        drop(server);
        lease.connection.stream.readable().await.unwrap();
        lease.give_back(Instant::now());
        assert_eq!(pool.idle(), 1);
        assert!(endpoint.checkout().is_none());
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn an_endpoint_that_left_the_table_keeps_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(listener.local_addr().unwrap());
        let (idle, _first) = pair(&listener).await;
        let (busy, _second) = pair(&listener).await;
        let busy = endpoint.adopt(busy);
        endpoint.adopt(idle).give_back(Instant::now());
        pool.keep(|_| false);
        assert_eq!(pool.idle(), 0);
        busy.give_back(Instant::now());
        assert_eq!(
            pool.idle(),
            0,
            "a connection came back to a retired endpoint"
        );
    }
}
