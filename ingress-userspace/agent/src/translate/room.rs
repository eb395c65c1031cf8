//! How much the backends and certificates of one namespace may come to, and how many rules it may have.

use std::collections::BTreeMap;

use super::super::shelf::UNKNOWN;

/// Endpoints that the backends of one namespace may have together, with the ports of their Services
/// that are gone through to find them. Each port has a list of its own, here and in the proxy: an
/// Ingress of one megabyte names ten thousand ports of one Service.
pub(super) const ENDPOINTS: usize = 1 << 17;

/// Rules that the Ingresses of one namespace may have together; a host without any counts as one. Whoever
/// edits an Ingress has all rules of its hosts ranked again, and the edits of all others wait: a hundred
/// Ingresses that share ten thousand hosts would have a million.
pub(super) const RULES: usize = 1 << 16;

/// Bytes that the certificates and keys of one namespace may come to. One takes a few thousand, so that ten thousand
/// customers' hosts in one namespace have theirs. Agent and proxy keep each of them more than once, and a Secret may
/// be 256 KiB: without a limit one tenant could take gigabytes of every node.
pub(super) const CERTIFICATES: usize = UNKNOWN;

/// What the backends, the rules, or the certificates of each namespace come to.
#[derive(Debug)]
pub(super) struct Rooms {
    limit: usize,
    taken: BTreeMap<String, usize>,
}

impl Rooms {
    /// Nobody has taken any.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there is room for something of `namespace` that comes to `now`, and came to `before`.
    pub(super) fn fits(&self, namespace: &str, before: usize, now: usize) -> bool {
        let all = self.taken.get(namespace).copied().unwrap_or_default();
        now <= before || all.saturating_sub(before) + now <= self.limit
    }

    /// Notes what a backend, or an Ingress, of `namespace` comes to now. Tells whether there is less room than asked
    /// for, or was.
    pub(super) fn change(&mut self, namespace: &str, before: usize, now: usize) -> bool {
        if before == now {
            return self
                .taken
                .get(namespace)
                .is_some_and(|all| *all > self.limit);
        }
        let all = self.taken.entry(namespace.to_owned()).or_default();
        let all_before = *all;
        *all = all_before.saturating_sub(before) + now;
        let is_crowded = all_before.max(*all) > self.limit;
        if *all == 0 {
            self.taken.remove(namespace);
        }
        is_crowded
    }
}

/// Those of a namespace's backends, or Ingresses, for which there is no room, and what they come to. The first of
/// `all` have it, whatever came first: the same objects give the same choice.
pub(super) fn cramped<'k, K: Ord + Clone + 'k>(
    all: impl Iterator<Item = (&'k K, usize)>,
    limit: usize,
) -> BTreeMap<K, usize> {
    let mut taken = 0;
    let lacks_room = |(key, size): (&K, usize)| {
        let fits = taken + size <= limit;
        taken += if fits { size } else { 0 };
        (!fits).then(|| (key.clone(), size))
    };
    all.filter_map(lacks_room).collect()
}
