//! Which endpoint of an upstream gets the next request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use ingress_model::Endpoint;
use tokio::time::Instant;

use super::{
    EndpointPool, Pool, Upstream,
    peer::{Peer, Protocol},
};

/// How long an endpoint that could not be connected to is passed over while another is left.
const SUSPICION: Duration = Duration::from_secs(1);

/// The endpoints of one upstream in turn, counted by each worker for itself.
#[derive(Debug)]
pub(crate) struct Balancer {
    /// Weak, or an upstream that no rule has any more would stay for ever.
    upstream: Weak<Upstream>,
    /// Of the upstream when these were its endpoints.
    version: (u64, u64),
    endpoints: Arc<Vec<Endpoint>>,
    slots: Vec<Slot>,
    next: Cell<usize>,
}

#[derive(Debug)]
struct Slot {
    pool: Rc<EndpointPool>,
    suspect_until: Cell<Option<Instant>>,
}

/// An endpoint that was picked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'b> {
    balancer: &'b Balancer,
    index: usize,
}

impl Balancer {
    /// Starts at `offset`, so that workers do not all begin with the same endpoint.
    fn new(upstream: &Arc<Upstream>, pool: &Pool, offset: usize) -> Self {
        // The version first: if the endpoints change in between, the next request sees another.
        let version = upstream.version();
        let endpoints = upstream.endpoints();
        let slot = |endpoint: &Endpoint| Slot {
            pool: pool.endpoint(Peer {
                address: endpoint.address,
                protocol: Protocol::Http1,
            }),
            suspect_until: Cell::new(None),
        };
        let slots = endpoints.iter().map(slot).collect();
        Self {
            upstream: Arc::downgrade(upstream),
            version,
            endpoints,
            slots,
            next: Cell::new(offset),
        }
    }

    /// How many endpoints there are.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Picks an endpoint whose index is not in `excluded`; `None` where there is none.
    ///
    /// `key` binds requests to an endpoint, as a session's cookie or a hash does; without one the
    /// endpoints have their turns. Only a first pick takes a turn: else a retry would give the
    /// endpoint after a dead one twice its share. Endpoints that have just failed come last.
    pub(crate) fn pick(
        &self,
        key: Option<u64>,
        excluded: &[usize],
        now: Instant,
    ) -> Option<Choice<'_>> {
        let count = self.slots.len();
        let turn = match key {
            Some(key) => usize::try_from(key % u64::try_from(count.max(1)).ok()?).ok()?,
            None => self.next.get(),
        };
        let mut suspect = None;
        let order = (0..count).map(|step| turn.wrapping_add(step) % count);
        let mut chosen = None;
        for index in order.filter(|index| !excluded.contains(index)) {
            let Some(slot) = self.slots.get(index) else {
                continue;
            };
            if slot.suspect_until.get().is_none_or(|until| until <= now) {
                chosen = Some(index);
                break;
            }
            suspect = suspect.or(Some(index));
        }
        let index = chosen.or(suspect)?;
        if key.is_none() && excluded.is_empty() {
            self.next.set(index + 1);
        }
        Some(Choice {
            balancer: self,
            index,
        })
    }
}

impl<'b> Choice<'b> {
    /// Its place in the list of endpoints.
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// Where its connections are.
    pub(crate) fn pool(self) -> Option<&'b Rc<EndpointPool>> {
        self.balancer.slots.get(self.index).map(|slot| &slot.pool)
    }

    /// The endpoint.
    pub(crate) fn endpoint(self) -> Option<&'b Endpoint> {
        self.balancer.endpoints.get(self.index)
    }

    /// Hears whether the endpoint could be connected to.
    pub(crate) fn report(self, connected: bool, now: Instant) {
        if let Some(slot) = self.balancer.slots.get(self.index) {
            slot.suspect_until
                .set((!connected).then(|| now + SUSPICION));
        }
    }
}

/// What a worker keeps for each upstream, made when a request first needs it.
#[derive(Debug, Default)]
pub(crate) struct Balancers(RefCell<Vec<Option<Rc<Balancer>>>>);

impl Balancers {
    /// The balancer of `upstream`, with its endpoints of now. `offset` is where a new one begins.
    pub(crate) fn of(&self, upstream: &Arc<Upstream>, pool: &Pool, offset: usize) -> Rc<Balancer> {
        let mut slots = self.0.borrow_mut();
        if slots.len() <= upstream.slot() {
            slots.resize(upstream.slot() + 1, None);
        }
        let before = slots.get(upstream.slot()).cloned().flatten();
        match before {
            Some(current) if current.version == upstream.version() => current,
            before => {
                let same = before.filter(|before| before.version.0 == upstream.version().0);
                let offset = same.as_ref().map_or(offset, |before| before.next.get());
                let balancer = Rc::new(Balancer::new(upstream, pool, offset));
                if let Some(slot) = slots.get_mut(upstream.slot()) {
                    *slot = Some(Rc::clone(&balancer));
                }
                balancer
            }
        }
    }

    /// Lets go of pools whose upstreams are gone or have other endpoints by now; the next request of
    /// an upstream makes its balancer anew.
    pub(crate) fn forget_outdated(&self) {
        for slot in self.0.borrow_mut().iter_mut() {
            slot.take_if(|balancer| {
                let upstream = balancer.upstream.upgrade();
                upstream.is_none_or(|upstream| upstream.version() != balancer.version)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ingress_model::{BackendKey, ObjectName, ServicePort, UpstreamKey, UpstreamPolicy};

    use super::{super::Upstreams, *};

    fn key() -> Arc<UpstreamKey> {
        let backend = BackendKey {
            service: ObjectName::new("shop", "web"),
            port: ServicePort::Number(80),
        };
        let policy = UpstreamPolicy::default();
        Arc::new(UpstreamKey { backend, policy })
    }

    fn set(upstreams: &mut Upstreams, ports: &[u16]) {
        let endpoint = |port: &u16| Endpoint {
            address: ([192, 0, 2, 1], *port).into(),
            pod: None,
        };
        let endpoints: Vec<_> = ports.iter().map(endpoint).collect();
        upstreams.set_endpoints(&key().backend, Some(&endpoints));
    }

    fn upstream(ports: &[u16]) -> Arc<Upstream> {
        let mut upstreams = Upstreams::default();
        set(&mut upstreams, ports);
        upstreams.of(&key())
    }

    fn order(balancer: &Balancer, count: usize, now: Instant) -> Vec<usize> {
        (0..count)
            .map(|_| balancer.pick(None, &[], now).unwrap().index)
            .collect()
    }

    #[tokio::test]
    async fn every_endpoint_has_its_turn() {
        let balancer = Balancer::new(&upstream(&[1, 2, 3]), &Pool::default(), 1);
        assert_eq!(order(&balancer, 5, Instant::now()), [1, 2, 0, 1, 2]);
    }

    #[tokio::test]
    async fn a_retry_goes_elsewhere_and_takes_no_turn() {
        let now = Instant::now();
        let balancer = Balancer::new(&upstream(&[1, 2]), &Pool::default(), 0);
        for first in [0, 1, 0, 1] {
            let choice = balancer.pick(None, &[], now).unwrap();
            assert_eq!(choice.index, first);
            assert_eq!(balancer.pick(None, &[first], now).unwrap().index, 1 - first);
        }
        assert!(balancer.pick(None, &[0, 1], now).is_none());
        assert!(
            Balancer::new(&upstream(&[]), &Pool::default(), 0)
                .pick(None, &[], now)
                .is_none()
        );
    }

    #[tokio::test]
    async fn an_endpoint_that_failed_comes_last_for_a_moment() {
        let now = Instant::now();
        let balancer = Balancer::new(&upstream(&[1, 2]), &Pool::default(), 0);
        balancer.pick(None, &[], now).unwrap().report(false, now);
        assert_eq!(order(&balancer, 3, now), [1, 1, 1]);
        assert_eq!(
            balancer.pick(None, &[1], now).unwrap().index,
            0,
            "the last one left is tried all the same"
        );
        assert_eq!(order(&balancer, 2, now + SUSPICION), [0, 1]);
    }

    #[tokio::test]
    async fn a_key_always_meets_the_same_endpoint_while_it_can() {
        let now = Instant::now();
        let balancer = Balancer::new(&upstream(&[1, 2, 3]), &Pool::default(), 0);
        for _ in 0..3 {
            assert_eq!(balancer.pick(Some(7), &[], now).unwrap().index, 1);
        }
        assert_eq!(balancer.pick(Some(7), &[1], now).unwrap().index, 2);
        assert_eq!(balancer.pick(Some(u64::MAX), &[], now).unwrap().index, 0);
    }

    #[tokio::test]
    async fn new_endpoints_are_seen_at_the_next_request() {
        let (mut upstreams, pool, balancers) =
            (Upstreams::default(), Pool::default(), Balancers::default());
        set(&mut upstreams, &[1, 2]);
        let upstream = upstreams.of(&key());
        let first = balancers.of(&upstream, &pool, 0);
        assert!(Rc::ptr_eq(&first, &balancers.of(&upstream, &pool, 0)));
        order(&first, 1, Instant::now());
        set(&mut upstreams, &[2, 3, 4]);
        let second = balancers.of(&upstream, &pool, 0);
        assert_eq!((first.endpoints(), second.endpoints()), (2, 3));
        let port = |_| {
            let choice = second.pick(None, &[], Instant::now()).unwrap();
            choice.endpoint().unwrap().address.port()
        };
        let ports: Vec<u16> = (0..3).map(port).collect();
        assert_eq!(ports, [3, 4, 2], "the turns begin anew");
        balancers.forget_outdated();
        assert!(Rc::ptr_eq(&second, &balancers.of(&upstream, &pool, 0)));
        set(&mut upstreams, &[]);
        balancers.forget_outdated();
        assert_eq!(balancers.0.borrow().iter().flatten().count(), 0);
    }

    #[test]
    fn an_upstream_that_no_rule_has_is_freed_although_a_worker_has_used_it() {
        let mut upstreams = Upstreams::default();
        set(&mut upstreams, &[1]);
        let gone = upstreams.of(&key());
        let slot = gone.slot();
        let (balancers, pool) = (Balancers::default(), Pool::default());
        balancers.of(&gone, &pool, 0);
        upstreams.set_endpoints(&key().backend, None);
        drop(gone);
        upstreams.forget_unused();
        balancers.forget_outdated();
        assert_eq!(balancers.0.borrow().iter().flatten().count(), 0);
        set(&mut upstreams, &[1]);
        assert_eq!(upstreams.of(&key()).slot(), slot, "its place is not free");
    }
}
