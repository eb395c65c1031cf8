//! The listening sockets of the workers, and what is said of them.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
};

use ingress_agent::kernel::Announced;
use ingress_model::{Transport, wire::Place};
use ingress_proxy::worker::Listener;

/// What the workers accept from, and how connections get there.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Bound; not all listen yet.
    pub(crate) sockets: Vec<(Place, TcpListener)>,
    /// What clients connect to, for people.
    pub(crate) listeners: Vec<(Transport, SocketAddr)>,
    /// How connections reach them.
    pub(crate) steering: Steering,
}

/// How connections reach the sockets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steering {
    /// `xdp-native`, `xdp-generic` or `sockets`.
    pub(crate) mode: String,
    /// Why this is not the mode that was asked for.
    pub(crate) degraded: Option<String>,
    /// Who announces which virtual IP, where nodes do.
    pub(crate) announced: Vec<Announced>,
}

/// Deals the sockets of each address out to the workers, in their order. More sockets than workers are
/// left by a process that had more workers: then some get two.
pub(crate) fn by_worker(sockets: Vec<(Place, TcpListener)>, workers: usize) -> Vec<Vec<Listener>> {
    let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut dealt: BTreeMap<(Transport, Option<SocketAddr>), usize> = BTreeMap::new();
    for (place, socket) in sockets {
        // Sockets that the kernel steers to have an address each, which nobody connects to.
        let address = Some(place.address).filter(|_| !place.is_steered);
        let number = dealt.entry((place.transport, address)).or_default();
        if let Some(listeners) = listeners.get_mut(*number % workers.max(1)) {
            listeners.push(Listener {
                socket,
                transport: place.transport,
            });
        }
        *number += 1;
    }
    listeners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_gets_a_socket_of_each_address_and_some_two_of_too_many() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let place = |transport, port, is_steered| Place {
            transport,
            address: ([127, 0, 0, 1], port).into(),
            is_steered,
        };
        let sockets = vec![
            (place(Transport::Plain, 80, false), socket()),
            (place(Transport::Plain, 80, false), socket()),
            (place(Transport::Plain, 80, false), socket()),
            (place(Transport::Tls, 443, false), socket()),
            (place(Transport::Tls, 443, false), socket()),
            (place(Transport::Plain, 4001, true), socket()),
            (place(Transport::Tls, 4002, true), socket()),
            (place(Transport::Plain, 4003, true), socket()),
            (place(Transport::Tls, 4004, true), socket()),
        ];
        let dealt = by_worker(sockets, 2);
        let of = |listeners: &[Listener], transport| {
            let same = listeners.iter().filter(|one| one.transport == transport);
            same.count()
        };
        let counts: Vec<_> = dealt
            .iter()
            .map(|one| (of(one, Transport::Plain), of(one, Transport::Tls)))
            .collect();
        assert_eq!(counts, [(3, 2), (2, 2)]);
    }
}
