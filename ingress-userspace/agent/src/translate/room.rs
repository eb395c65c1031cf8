//! How much the backends of one namespace may come to.

use std::collections::BTreeMap;

use ingress_model::BackendKey;

/// Endpoints that the backends of one namespace may have together, with the ports of their Services
/// that are gone through to find them. Each port has a list of its own, here and in the proxy: an
/// Ingress of one megabyte names ten thousand ports of one Service.
pub(super) const LIMIT: usize = 1 << 17;

/// What the backends of each namespace come to.
#[derive(Debug, Default)]
pub(super) struct Rooms(BTreeMap<String, usize>);

impl Rooms {
    /// Notes what a backend of `namespace` comes to now. Tells whether there is less room than asked
    /// for, or was.
    pub(super) fn change(&mut self, namespace: &str, before: usize, now: usize) -> bool {
        if before == now {
            return self.0.get(namespace).is_some_and(|all| *all > LIMIT);
        }
        let all = self.0.entry(namespace.to_owned()).or_default();
        let all_before = *all;
        *all = all_before.saturating_sub(before) + now;
        let is_crowded = all_before.max(*all) > LIMIT;
        if *all == 0 {
            self.0.remove(namespace);
        }
        is_crowded
    }
}

/// Those of a namespace's backends for which there is no room, and what they come to. The first by name
/// have it, whatever came first: the same objects give the same choice.
pub(super) fn cramped<'b>(
    backends: impl Iterator<Item = (&'b BackendKey, usize)>,
) -> BTreeMap<BackendKey, usize> {
    let mut taken = 0;
    let lacks_room = |(key, size): (&BackendKey, usize)| {
        let fits = taken + size <= LIMIT;
        taken += if fits { size } else { 0 };
        (!fits).then(|| (key.clone(), size))
    };
    backends.filter_map(lacks_room).collect()
}
