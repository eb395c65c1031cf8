//! The workers' listening sockets: loopback only, any port, found by nobody but `assign`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use ingress_ebpf::{
    abi::{SOCKETS_PER_GENERATION, SOCKETS_PER_SET, SocketSet, entries},
    encap::OVERHEAD,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    error::KernelError,
    maps::{HTTP_SET, HTTPS_SET, Maps},
};

/// Bytes of the IPv4 and TCP headers without options.
const HEADERS: u32 = 40;

/// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Most workers that share the VIPs: the maps have room for the sockets of so many.
pub const MOST_WORKERS: usize = SOCKETS_PER_SET as usize;

/// One worker's listening sockets, on loopback ports that nothing but `assign` leads to.
#[derive(Debug)]
pub struct WorkerSockets {
    /// Serves port 80 of the VIPs.
    pub http: TcpListener,
    /// Serves port 443 of the VIPs.
    pub https: TcpListener,
}

/// Binds one worker's pair. Clients are told to send segments that fit `mtu` when encapsulated.
///
/// # Errors
///
/// What the kernel says to `socket`, `setsockopt`, `bind` or `listen`.
pub(super) fn bind(mtu: u32) -> io::Result<WorkerSockets> {
    Ok(WorkerSockets {
        http: listen(mtu)?,
        https: listen(mtu)?,
    })
}

fn listen(mtu: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // The kernel answers a SYN with what the listener says, so clients never send what would not
    // fit: `steer` could only drop it, and no ICMP error would tell them.
    socket.set_tcp_mss(mtu.saturating_sub(HEADERS + OVERHEAD as u32).max(536))?;
    // Connections inherit it. Without, one to port 80 of a VIP would keep the port, on every address,
    // from a process that falls back to ordinary sockets.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Puts the sockets into slots of their own, then flips both sets to them.
///
/// This is the hand-over from one process to the next. Until the flip, `assign` gives connections
/// to the old workers; from then on, to these. No slot in use is written, so no packet finds an
/// empty one; and the old sockets stay in the map until they are closed, since a connection whose
/// handshake they began is still theirs to accept.
///
/// # Errors
///
/// [`KernelError::Settings`] for more workers than slots, [`KernelError::Map`].
pub(super) fn register(maps: &mut Maps, sockets: &[WorkerSockets]) -> Result<(), KernelError> {
    let count = u32::try_from(sockets.len())
        .ok()
        .filter(|count| *count <= SOCKETS_PER_SET);
    let Some(count) = count else {
        return Err(KernelError::Settings(format!(
            "at most {SOCKETS_PER_SET} workers can share the VIPs"
        )));
    };
    let http = next_generation(maps.socket_set(HTTP_SET)?);
    let https = http + SOCKETS_PER_SET;
    for (worker, pair) in (0u32..).zip(sockets) {
        maps.set_socket(http + worker, &pair.http)?;
        maps.set_socket(https + worker, &pair.https)?;
    }
    // Each flip is one store of eight bytes. That the two ports flip one after the other harms
    // nobody: either process serves both.
    maps.set_socket_set(HTTP_SET, SocketSet { base: http, count })?;
    maps.set_socket_set(HTTPS_SET, SocketSet { base: https, count })
}

/// The first slot after the generation in charge: that one's sockets may still be accepting.
///
/// The generations go round: by the time a slot is used again, fifteen other processes have come
/// and gone.
fn next_generation(current: SocketSet) -> u32 {
    let generations = entries::SOCKS as u32 / SOCKETS_PER_GENERATION;
    if current.count == 0 {
        return 0;
    }
    (current.base / SOCKETS_PER_GENERATION + 1) % generations * SOCKETS_PER_GENERATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_follow_each_other_and_come_round() {
        for (current, next) in [
            ((0, 0), 0),
            ((0, 4), 256),
            ((256, 4), 512),
            ((15 * 256, 4), 0),
        ] {
            let set = SocketSet {
                base: current.0,
                count: current.1,
            };
            assert_eq!(next_generation(set), next, "after {set:?}");
        }
    }
}
