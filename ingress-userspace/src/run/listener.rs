//! Binds the sockets that clients and operators connect to.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use ingress_model::Transport;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::UsageError;

/// Connections that may wait for an accept. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What a listener serves; its name is the flag's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Plain HTTP.
    Http,
    /// TLS.
    Https,
    /// Prometheus.
    Metrics,
}

impl Role {
    /// Of a socket for clients.
    pub(crate) fn of(transport: Transport) -> Self {
        match transport {
            Transport::Plain => Self::Http,
            Transport::Tls => Self::Https,
        }
    }

    /// The name in the log and in `/status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}", self.name())
    }
}

/// Binds a listener that no other process shares.
///
/// # Errors
/// The port is busy, or the process may not have it.
pub(super) fn bind(role: Role, address: SocketAddr) -> Result<TcpListener, UsageError> {
    open(address).map_err(|source| UsageError::Listen {
        role,
        address,
        source,
    })
}

/// Binds a listener that a second process may join while it takes over. Like those of
/// [`bind_shared`] it gets connections from [`listen`] on.
///
/// # Errors
/// The port is busy, or the process may not have it.
pub(super) fn bind_joined(role: Role, address: SocketAddr) -> Result<TcpListener, UsageError> {
    socket(address, true).map_err(|source| UsageError::Listen {
        role,
        address,
        source,
    })
}

/// Binds sockets to `address` until there are as many of them as workers.
///
/// Port 0: the first one chooses, the others share its port. The kernel spreads connections over
/// them (SO_REUSEPORT). It does so from [`listen`] on, and not before: what reaches a socket that
/// nobody accepts from waits, while another process would serve it.
///
/// # Errors
/// The port is busy, or the process may not have it.
pub(super) fn bind_shared(
    role: Role,
    address: SocketAddr,
    workers: usize,
    sockets: &mut Vec<TcpListener>,
) -> Result<(), UsageError> {
    let mut bound = address;
    while sockets.len() < workers {
        let socket = socket(bound, true)
            .and_then(|socket| {
                bound = socket.local_addr()?;
                Ok(socket)
            })
            .map_err(|source| UsageError::Listen {
                role,
                address,
                source,
            })?;
        sockets.push(socket);
    }
    Ok(())
}

/// Lets connections come to a bound socket. One that listens goes on as it does.
///
/// # Errors
/// The port was taken by a process that shares it with nobody.
pub(super) fn listen(socket: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, false)?;
    listen(&socket)?;
    Ok(socket)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Raises the soft limit of open descriptors to the hard one: each connection takes two.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(%error, soft = limit.current, "cannot raise the open file limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_port_that_the_first_one_chose() {
        let mut listeners = vec![];
        bind_shared(
            Role::Http,
            "127.0.0.1:0".parse().unwrap(),
            3,
            &mut listeners,
        )
        .unwrap();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        assert_eq!(addresses, [addresses[0]; 3]);
    }

    #[test]
    fn only_a_process_that_takes_over_may_join_a_port() {
        let first = bind_joined(Role::Metrics, "127.0.0.1:0".parse().unwrap()).unwrap();
        listen(&first).unwrap();
        let address = first.local_addr().unwrap();
        assert!(
            bind(Role::Metrics, address).is_err(),
            "a stranger got the port"
        );
        assert_eq!(
            bind_joined(Role::Metrics, address)
                .unwrap()
                .local_addr()
                .unwrap(),
            address
        );
    }

    #[test]
    fn a_busy_port_names_the_flag_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error =
            bind_shared(Role::Https, taken.local_addr().unwrap(), 1, &mut vec![]).unwrap_err();
        assert!(error.to_string().contains("--https"), "{error}");
    }
}
