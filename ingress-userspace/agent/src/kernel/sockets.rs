//! The workers' listening sockets: loopback only, any port, found by nobody but `assign`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use ingress_ebpf::{
    abi::{ENCAP_PORT, SOCKETS_PER_GENERATION, SOCKETS_PER_SET, SocketSet, entries},
    encap::OVERHEAD4,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    error::KernelError,
    maps::{HTTP_SET, HTTP6_SET, Maps, SocketSets},
};

/// Bytes of the IP and TCP headers without options.
const HEADERS4: u32 = 40;
const HEADERS6: u32 = 60;

/// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Most workers that share the VIPs: the maps have room for the sockets of so many.
pub const MOST_WORKERS: usize = SOCKETS_PER_SET as usize;

/// The version of IP of a virtual address, and so of the sockets that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl std::fmt::Display for IpVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One worker's listening sockets, on loopback ports that nothing but `assign` leads to.
#[derive(Debug)]
pub struct WorkerSockets {
    /// Serves port 80 of the VIPs.
    pub http: TcpListener,
    /// Serves port 443 of the VIPs.
    pub https: TcpListener,
}

/// Binds one worker's pair of a family. Clients are told to send segments that fit `mtu` when
/// encapsulated.
///
/// Each family has sockets of its own: one that is bound to an address of IPv6 takes no connection of
/// IPv4 (`sk_ipv6only`), and one that is bound to all addresses could be found by its port.
///
/// # Errors
///
/// What the kernel says to `socket`, `setsockopt`, `bind` or `listen`.
pub(super) fn bind(mtu: u32, version: IpVersion) -> io::Result<WorkerSockets> {
    Ok(WorkerSockets {
        http: listen(mtu, version)?,
        https: listen(mtu, version)?,
    })
}

fn listen(mtu: u32, version: IpVersion) -> io::Result<TcpListener> {
    let (domain, headers, address): (_, _, SocketAddr) = match version {
        IpVersion::V4 => (Domain::IPV4, HEADERS4, (Ipv4Addr::LOCALHOST, 0).into()),
        IpVersion::V6 => (Domain::IPV6, HEADERS6, (Ipv6Addr::LOCALHOST, 0).into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // The kernel answers a SYN with what the listener says, so clients never send what would not
    // fit: `steer` could only drop it, and no ICMP error would tell them.
    socket.set_tcp_mss(mtu.saturating_sub(headers + OVERHEAD4 as u32).max(536))?;
    // Connections inherit it. Without, one to port 80 of a VIP would keep the port, on every address,
    // from a process that falls back to ordinary sockets.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes the port of packets between nodes, so that the kernel gives it to no socket which asks for
/// any port: `steer` drops what comes there from others, an answer of DNS as well. Nothing is read.
///
/// Processes of the same user may have it together, as during a rollout.
///
/// # Errors
///
/// The port is another program's.
pub(super) fn reserve_port() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    // What `steer` lets pass, since it is not for this node's address, waits here for nobody.
    socket.set_recv_buffer_size(0)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, ENCAP_PORT)).into())?;
    Ok(socket.into())
}

/// Listening sockets in worker order, for the connections of each family.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For virtual IPs of IPv4.
    pub four: Vec<WorkerSockets>,
    /// For virtual IPs of IPv6; empty where there are none.
    pub six: Vec<WorkerSockets>,
}

/// Puts the sockets into slots of their own, then flips all sets to them.
///
/// This is the hand-over from one process to the next. Until the flip, `assign` gives connections
/// to the old workers; from then on, to these. No slot in use is written, so no packet finds an
/// empty one; and the old sockets stay in the map until they are closed, since a connection whose
/// handshake they began is still theirs to accept.
///
/// Returns the slots of both sets.
///
/// # Errors
///
/// [`KernelError::Settings`] for more workers than slots, [`KernelError::Map`].
pub(super) fn register(maps: &mut Maps, sockets: &Sockets) -> Result<SocketSets, KernelError> {
    let mut base = next_generation([maps.socket_set(HTTP_SET)?, maps.socket_set(HTTP6_SET)?]);
    let mut sets = Vec::new();
    for of_family in [&sockets.four, &sockets.six] {
        let count = u32::try_from(of_family.len())
            .ok()
            .filter(|count| *count <= SOCKETS_PER_SET);
        let Some(count) = count else {
            return Err(KernelError::Settings(format!(
                "at most {SOCKETS_PER_SET} workers can share the VIPs"
            )));
        };
        let (http, https) = (base, base + SOCKETS_PER_SET);
        for (worker, pair) in (0u32..).zip(of_family) {
            maps.set_socket(http + worker, &pair.http)?;
            maps.set_socket(https + worker, &pair.https)?;
        }
        sets.extend([http, https].map(|base| SocketSet { base, count }));
        base += 2 * SOCKETS_PER_SET;
    }
    let mut all = SocketSets::default();
    for (slots, set) in all.iter_mut().zip(sets) {
        *slots = set;
    }
    maps.set_socket_sets(all)?;
    Ok(all)
}

/// The first slot after the generation in charge: that one's sockets may still be accepting.
///
/// The generations go round: by the time a slot is used again, fifteen other processes have come
/// and gone.
fn next_generation(http_of_families: [SocketSet; 2]) -> u32 {
    let generations = entries::SOCKS as u32 / SOCKETS_PER_GENERATION;
    if http_of_families == [SocketSet::default(); 2] {
        return 0;
    }
    // A process may have sockets of one family alone, or have stopped and still accept what it has.
    let [current, _] = http_of_families;
    (current.base / SOCKETS_PER_GENERATION + 1) % generations * SOCKETS_PER_GENERATION
}

const _: () = assert!(
    4 * SOCKETS_PER_SET <= SOCKETS_PER_GENERATION,
    "two ports of two families"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_follow_each_other_and_come_round() {
        for (four, six, next) in [
            ((0, 0), (0, 0), 0),
            ((0, 0), (256, 0), 512),
            ((0, 4), (256, 4), 512),
            ((512, 4), (512 + 256, 0), 1024),
            ((512, 0), (512 + 256, 4), 1024),
            ((15 * 512, 4), (15 * 512 + 256, 0), 0),
        ] {
            let sets = [four, six].map(|(base, count)| SocketSet { base, count });
            assert_eq!(next_generation(sets), next, "after {sets:?}");
        }
    }
}
