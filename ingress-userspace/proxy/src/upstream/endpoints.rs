//! Which endpoints an upstream has now: said by the control side, read by every worker.
//!
//! Endpoints are no part of the route table. A rolling deployment changes a list here and compiles
//! nothing; a worker sees it at its next request, by one load.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ahash::{AHashMap, AHashSet};
use arc_swap::ArcSwap;
use ingress_model::{BackendKey, Endpoint, UpstreamKey, UpstreamPolicy};

/// A Service port that is spoken to in one way, and its endpoints of the moment.
#[derive(Debug)]
pub struct Upstream {
    key: Arc<UpstreamKey>,
    /// Where workers keep their balancer of this upstream. Given again once an upstream is gone.
    slot: usize,
    /// Tells it from others that had its slot before.
    serial: u64,
    endpoints: Arc<Endpoints>,
}

/// The endpoints of a backend, shared by the upstreams that speak to it.
#[derive(Debug, Default)]
struct Endpoints {
    /// Raised after each change of `list`.
    version: AtomicU64,
    list: ArcSwap<Vec<Endpoint>>,
}

impl Upstream {
    /// The Service port.
    pub fn backend(&self) -> &BackendKey {
        &self.key.backend
    }

    /// How it is spoken to.
    pub(crate) fn policy(&self) -> &UpstreamPolicy {
        &self.key.policy
    }

    /// The endpoints now, sorted by address.
    pub fn endpoints(&self) -> Arc<Vec<Endpoint>> {
        self.endpoints.list.load_full()
    }

    /// Whether it has an endpoint now.
    pub(crate) fn has_endpoints(&self) -> bool {
        !self.endpoints.list.load().is_empty()
    }

    /// Where workers keep what belongs to it.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Changes whenever the endpoints do, and differs between upstreams that share a slot.
    pub(crate) fn version(&self) -> (u64, u64) {
        // Acquire: who sees the version sees the endpoints that were stored before it.
        (self.serial, self.endpoints.version.load(Ordering::Acquire))
    }
}

/// All upstreams, as the control side knows them.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// Of backends that are known, or that an upstream still has.
    lists: AHashMap<BackendKey, Arc<Endpoints>>,
    /// Backends of `lists` that are not known any more.
    gone: AHashSet<BackendKey>,
    by_key: AHashMap<Arc<UpstreamKey>, Arc<Upstream>>,
    free_slots: Vec<usize>,
    slots: usize,
    serials: u64,
}

impl Upstreams {
    /// Puts the endpoints of a backend in force: workers see them at their next request.
    ///
    /// Without any (`None`) the backend is gone, and its upstreams keep their last endpoints: a
    /// worker which still holds the old rules serves them as before.
    pub(crate) fn set_endpoints(&mut self, backend: &BackendKey, endpoints: Option<&[Endpoint]>) {
        let Some(endpoints) = endpoints else {
            if self.lists.contains_key(backend) {
                self.gone.insert(backend.clone());
            }
            return;
        };
        self.gone.remove(backend);
        let known = self.lists.entry(backend.clone()).or_default();
        if known.list.load().as_slice() != endpoints {
            known.list.store(Arc::new(endpoints.to_vec()));
            known.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes all backends but these for gone.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&BackendKey) -> bool) {
        let gone = self.lists.keys().filter(|backend| !is_known(backend));
        self.gone.extend(gone.cloned());
    }

    /// The upstream called `key`; without endpoints if nobody has said any.
    pub(crate) fn of(&mut self, key: &Arc<UpstreamKey>) -> Arc<Upstream> {
        if let Some(known) = self.by_key.get(key) {
            return Arc::clone(known);
        }
        let endpoints = Arc::clone(self.lists.entry(key.backend.clone()).or_default());
        let upstream = Arc::new(self.create(Arc::clone(key), endpoints));
        self.by_key.insert(Arc::clone(key), Arc::clone(&upstream));
        upstream
    }

    /// Frees the upstreams that no rule has any more, and the lists of backends that are gone.
    pub(crate) fn forget_unused(&mut self) {
        let free_slots = &mut self.free_slots;
        self.by_key.retain(|_, upstream| {
            let stays = Arc::strong_count(upstream) > 1;
            if !stays {
                free_slots.push(upstream.slot);
            }
            stays
        });
        let lists = &mut self.lists;
        self.gone.retain(|backend| {
            let is_used = lists
                .get(backend)
                .is_some_and(|list| Arc::strong_count(list) > 1);
            if !is_used {
                lists.remove(backend);
            }
            is_used
        });
    }

    fn create(&mut self, key: Arc<UpstreamKey>, endpoints: Arc<Endpoints>) -> Upstream {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.serials += 1;
        Upstream {
            key,
            slot,
            serial: self.serials,
            endpoints,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ingress_model::{ObjectName, ServicePort};

    use super::*;

    fn backend(name: &str) -> BackendKey {
        BackendKey {
            service: ObjectName::new("shop", name),
            port: ServicePort::Number(80),
        }
    }

    fn key(name: &str, seconds: u64) -> Arc<UpstreamKey> {
        Arc::new(UpstreamKey {
            backend: backend(name),
            policy: UpstreamPolicy {
                read_timeout: Duration::from_secs(seconds),
                ..UpstreamPolicy::default()
            },
        })
    }

    fn endpoints(ports: &[u16]) -> Vec<Endpoint> {
        let endpoint = |port: &u16| Endpoint {
            address: ([192, 0, 2, 1], *port).into(),
            pod: None,
        };
        ports.iter().map(endpoint).collect()
    }

    #[test]
    fn only_what_changed_has_another_version() {
        let mut upstreams = Upstreams::default();
        let set = |upstreams: &mut Upstreams, name: &str, ports: &[u16]| {
            upstreams.set_endpoints(&backend(name), Some(&endpoints(ports)));
        };
        set(&mut upstreams, "a", &[1]);
        set(&mut upstreams, "b", &[1]);
        let (a, b) = (upstreams.of(&key("a", 1)), upstreams.of(&key("b", 1)));
        let (before_a, before_b) = (a.version(), b.version());
        set(&mut upstreams, "a", &[1, 2]);
        set(&mut upstreams, "b", &[1]);
        assert!(a.version() != before_a && b.version() == before_b);
        assert_eq!(a.endpoints().len(), 2);
    }

    #[test]
    fn one_port_spoken_to_in_two_ways_has_two_upstreams_with_the_same_endpoints() {
        let mut upstreams = Upstreams::default();
        upstreams.set_endpoints(&backend("a"), Some(&endpoints(&[1])));
        let (one, two) = (upstreams.of(&key("a", 1)), upstreams.of(&key("a", 2)));
        assert_ne!(one.slot(), two.slot());
        assert!(Arc::ptr_eq(&one, &upstreams.of(&key("a", 1))));
        upstreams.set_endpoints(&backend("a"), Some(&endpoints(&[1, 2])));
        assert_eq!((one.endpoints().len(), two.endpoints().len()), (2, 2));
    }

    #[test]
    fn a_slot_is_given_again_under_another_serial_once_nobody_has_it() {
        let mut upstreams = Upstreams::default();
        upstreams.set_endpoints(&backend("a"), Some(&endpoints(&[1])));
        let gone = upstreams.of(&key("a", 1));
        upstreams.set_endpoints(&backend("a"), None);
        upstreams.forget_unused();
        assert_eq!(
            gone.endpoints().len(),
            1,
            "a worker with the old rules has lost its endpoint"
        );
        let other = upstreams.of(&key("b", 1));
        assert_ne!(gone.slot(), other.slot());
        let (slot, version) = (gone.slot(), gone.version());
        drop(gone);
        upstreams.forget_unused();
        let new = upstreams.of(&key("c", 1));
        assert_eq!(new.slot(), slot);
        assert_ne!(new.version(), version);
    }

    #[test]
    fn what_is_known_of_a_backend_goes_with_the_last_rule_that_has_it() {
        let mut upstreams = Upstreams::default();
        for name in ["kept", "used", "unused"] {
            upstreams.set_endpoints(&backend(name), Some(&endpoints(&[1])));
        }
        let used = upstreams.of(&key("used", 1));
        assert!(used.has_endpoints());
        upstreams.retain(|known| *known == backend("kept"));
        upstreams.forget_unused();
        let known = |upstreams: &Upstreams| {
            let mut names: Vec<_> = upstreams.lists.keys().collect();
            names.sort();
            names.iter().map(|key| key.service.name.clone()).collect()
        };
        let left: Vec<String> = known(&upstreams);
        assert_eq!(left, ["kept", "used"]);
        assert!(used.has_endpoints());
        drop(used);
        upstreams.forget_unused();
        let left: Vec<String> = known(&upstreams);
        assert_eq!((left, upstreams.gone.len()), (vec!["kept".to_owned()], 0));
        assert!(!upstreams.of(&key("new", 1)).has_endpoints());
    }

    #[test]
    fn upstreams_have_the_first_places_that_are_free() {
        let mut upstreams = Upstreams::default();
        let all = ["a", "b", "c"].map(|name| upstreams.of(&key(name, 1)));
        assert_eq!(all.map(|upstream| upstream.slot()), [0, 1, 2]);
    }

    #[test]
    fn a_backend_that_comes_back_is_heard_of() {
        let mut upstreams = Upstreams::default();
        let set = |upstreams: &mut Upstreams, ports: Option<&[u16]>| {
            let endpoints = ports.map(endpoints);
            upstreams.set_endpoints(&backend("a"), endpoints.as_deref());
        };
        set(&mut upstreams, Some(&[1]));
        let old = upstreams.of(&key("a", 1));
        set(&mut upstreams, None);
        set(&mut upstreams, Some(&[2]));
        let new = upstreams.of(&key("a", 1));
        set(&mut upstreams, Some(&[2, 3]));
        assert_eq!((old.endpoints().len(), new.endpoints().len()), (2, 2));
    }
}
