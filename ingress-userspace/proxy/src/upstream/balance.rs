//! Which endpoint of a backend gets the next request.

use std::{cell::Cell, rc::Rc};

use super::{EndpointPool, Pool};
use ingress_model::Backend;

/// The endpoints of one backend in turn, counted by each worker for itself.
#[derive(Debug)]
pub struct RoundRobin {
    endpoints: Vec<Rc<EndpointPool>>,
    next: Cell<usize>,
}

/// An endpoint and its place in [`Backend::endpoints`].
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Where its connections are.
    pub endpoint: &'a Rc<EndpointPool>,
    /// Position in the backend's list.
    pub index: usize,
}

impl RoundRobin {
    /// Starts at `offset`, so that workers do not all begin with the same endpoint.
    pub fn new(backend: &Backend, pool: &Pool, offset: usize) -> Self {
        let endpoints = backend
            .endpoints
            .iter()
            .map(|endpoint| pool.endpoint(endpoint.address))
            .collect();
        Self {
            endpoints,
            next: Cell::new(offset),
        }
    }

    /// The position to go on from in a later table.
    pub fn position(&self) -> usize {
        self.next.get()
    }

    /// Picks the next endpoint; `None` where the backend has none.
    pub fn pick(&self) -> Option<Choice<'_>> {
        let index = self.next.get().checked_rem(self.endpoints.len())?;
        self.next.set(index + 1);
        self.endpoints
            .get(index)
            .map(|endpoint| Choice { endpoint, index })
    }

    /// Picks an endpoint other than the one at `tried`, or that one again where it is alone.
    pub fn pick_other(&self, tried: usize) -> Option<Choice<'_>> {
        let choice = self.pick()?;
        if choice.index == tried && self.endpoints.len() > 1 {
            self.pick()
        } else {
            Some(choice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingress_model::{BackendKey, Endpoint, ObjectName, ServicePort};

    fn backend(ports: &[u16]) -> Backend {
        let key = BackendKey {
            service: ObjectName::new("shop", "web"),
            port: ServicePort::Number(80),
        };
        let endpoint = |port: &u16| Endpoint {
            address: ([192, 0, 2, 1], *port).into(),
            pod: None,
        };
        Backend {
            key,
            endpoints: ports.iter().map(endpoint).collect(),
        }
    }

    #[test]
    fn every_endpoint_has_its_turn() {
        let balance = RoundRobin::new(&backend(&[1, 2, 3]), &Pool::default(), 1);
        let order: Vec<_> = (0..5).map(|_| balance.pick().unwrap().index).collect();
        assert_eq!(order, [1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_second_try_goes_elsewhere_when_it_can() {
        let balance = RoundRobin::new(&backend(&[1, 2]), &Pool::default(), 0);
        let first = balance.pick().unwrap().index;
        balance.pick();
        assert_ne!(balance.pick_other(first).unwrap().index, first);
        let alone = RoundRobin::new(&backend(&[1]), &Pool::default(), 7);
        assert_eq!(alone.pick_other(0).unwrap().index, 0);
        assert!(
            RoundRobin::new(&backend(&[]), &Pool::default(), 0)
                .pick()
                .is_none()
        );
    }
}
