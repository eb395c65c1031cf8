//! Which endpoints an upstream has now: said by the control side, read by every worker.
//!
//! Endpoints are no part of the route table. A rolling deployment changes a list here and compiles
//! nothing; a worker sees it at its next request, by one load.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use ingress_model::{Backend, BackendKey, Endpoint};

/// A Service port and its endpoints of the moment.
#[derive(Debug)]
pub struct Upstream {
    key: BackendKey,
    /// Where workers keep their balancer of this upstream. Given again once an upstream is gone.
    slot: usize,
    /// Tells it from others that had its slot before.
    serial: u64,
    /// Raised after each change of `endpoints`.
    version: AtomicU64,
    endpoints: ArcSwap<Vec<Endpoint>>,
}

impl Upstream {
    /// What routes call it.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// The endpoints now, sorted by address.
    pub fn endpoints(&self) -> Arc<Vec<Endpoint>> {
        self.endpoints.load_full()
    }

    /// Whether it has an endpoint now.
    pub(crate) fn has_endpoints(&self) -> bool {
        !self.endpoints.load().is_empty()
    }

    /// Where workers keep what belongs to it.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Changes whenever the endpoints do, and differs between upstreams that share a slot.
    pub(crate) fn version(&self) -> (u64, u64) {
        // Acquire: who sees the version sees the endpoints that were stored before it.
        (self.serial, self.version.load(Ordering::Acquire))
    }
}

/// All upstreams, as the control side knows them.
#[derive(Debug, Default)]
pub struct Upstreams {
    by_key: BTreeMap<BackendKey, Arc<Upstream>>,
    free_slots: Vec<usize>,
    slots: usize,
    serials: u64,
}

impl Upstreams {
    /// Puts `backends` in force: new ones can be compiled into routes, changed ones reach the workers
    /// at once.
    ///
    /// An upstream that is gone keeps its last endpoints, so that a worker which still holds the old
    /// routes serves them as before.
    pub fn adopt(&mut self, backends: &BTreeMap<BackendKey, Backend>) {
        let free_slots = &mut self.free_slots;
        self.by_key.retain(|key, upstream| {
            let stays = backends.contains_key(key);
            if !stays {
                free_slots.push(upstream.slot);
            }
            stays
        });
        for (key, backend) in backends {
            match self.by_key.get(key) {
                Some(upstream) if **upstream.endpoints.load() == backend.endpoints => {}
                Some(upstream) => {
                    upstream
                        .endpoints
                        .store(Arc::new(backend.endpoints.clone()));
                    upstream.version.fetch_add(1, Ordering::Release);
                }
                None => {
                    let upstream = Arc::new(self.create(key.clone(), backend.endpoints.clone()));
                    self.by_key.insert(key.clone(), upstream);
                }
            }
        }
    }

    /// The upstream called `key`.
    pub fn find(&self, key: &BackendKey) -> Option<&Arc<Upstream>> {
        self.by_key.get(key)
    }

    fn create(&mut self, key: BackendKey, endpoints: Vec<Endpoint>) -> Upstream {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.serials += 1;
        let endpoints = ArcSwap::from_pointee(endpoints);
        Upstream {
            key,
            slot,
            serial: self.serials,
            version: AtomicU64::new(0),
            endpoints,
        }
    }
}

#[cfg(test)]
mod tests {
    use ingress_model::{ObjectName, ServicePort};

    use super::*;

    fn backends(of: &[(&str, &[u16])]) -> BTreeMap<BackendKey, Backend> {
        of.iter()
            .map(|(name, ports)| {
                let key = BackendKey {
                    service: ObjectName::new("shop", *name),
                    port: ServicePort::Number(80),
                };
                let endpoint = |port: &u16| Endpoint {
                    address: ([192, 0, 2, 1], *port).into(),
                    pod: None,
                };
                (
                    key.clone(),
                    Backend {
                        key,
                        endpoints: ports.iter().map(endpoint).collect(),
                    },
                )
            })
            .collect()
    }

    #[test]
    fn only_what_changed_has_another_version() {
        let mut upstreams = Upstreams::default();
        let first = backends(&[("a", &[1]), ("b", &[1])]);
        upstreams.adopt(&first);
        let find =
            |upstreams: &Upstreams, key: &BackendKey| Arc::clone(upstreams.find(key).unwrap());
        let keys: Vec<_> = first.keys().cloned().collect();
        let (a, b) = (find(&upstreams, &keys[0]), find(&upstreams, &keys[1]));
        let (before_a, before_b) = (a.version(), b.version());
        upstreams.adopt(&backends(&[("a", &[1, 2]), ("b", &[1])]));
        assert!(a.version() != before_a && b.version() == before_b);
        assert_eq!(a.endpoints().len(), 2);
    }

    #[test]
    fn a_slot_is_given_again_under_another_serial() {
        let mut upstreams = Upstreams::default();
        let first = backends(&[("a", &[1])]);
        upstreams.adopt(&first);
        let gone = Arc::clone(upstreams.find(first.keys().next().unwrap()).unwrap());
        let second = backends(&[("b", &[2])]);
        upstreams.adopt(&second);
        let new = upstreams.find(second.keys().next().unwrap()).unwrap();
        assert_eq!(gone.slot(), new.slot());
        assert_ne!(gone.version(), new.version());
        assert_eq!(
            gone.endpoints().len(),
            1,
            "a worker with the old routes has lost its endpoint"
        );
    }
}
