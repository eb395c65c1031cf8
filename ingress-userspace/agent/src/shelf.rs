//! How much of the Secrets that nobody names is kept, in each namespace.
//!
//! An API server says all that are of type `kubernetes.io/tls`, and a tenant makes as many of them as it
//! likes, 256 KiB each. Of those for which there is no room only the name and the version are kept: they
//! are read by name once somebody names them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use ingress_model::ObjectName;

/// Bytes that the Secrets of one namespace that nobody names may come to. A certificate with its key
/// takes a few thousand: those that are made before the Ingresses that name them need not be read twice.
pub(super) const SPARE: usize = 256 * 1024;

/// The same while nobody knows yet who names what, and in one list: as much as a namespace may have in use, so that
/// what an agent serves is there when another one starts. What is beyond is read one by one, which takes seconds for
/// thousands, and their hosts would have the default certificate meanwhile.
pub(super) const UNKNOWN: usize = 64 * 1024 * 1024;

/// The Secrets of which all is kept though nobody names them, and those of which next to nothing is.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    sizes: BTreeMap<ObjectName, usize>,
    sums: BTreeMap<String, usize>,
    bare: BTreeSet<ObjectName>,
}

impl Shelf {
    /// Takes a Secret of that many bytes in, if it fits below `limit` with the others of its namespace, and
    /// tells whether it does.
    pub(super) fn place(&mut self, name: &ObjectName, size: usize, limit: usize) -> bool {
        self.take_out(name);
        let sum = self.sums.get(&name.namespace).copied().unwrap_or_default();
        if sum + size > limit {
            self.bare.insert(name.clone());
            return false;
        }
        self.sizes.insert(name.clone(), size);
        *self.sums.entry(name.namespace.clone()).or_default() += size;
        true
    }

    /// Forgets a Secret: somebody names it, or it is gone.
    pub(super) fn take_out(&mut self, name: &ObjectName) {
        self.bare.remove(name);
        let Some(size) = self.sizes.remove(name) else {
            return;
        };
        if let Some(sum) = self.sums.get_mut(&name.namespace) {
            *sum -= size;
            if *sum == 0 {
                self.sums.remove(&name.namespace);
            }
        }
    }

    /// Notes that only the name of a Secret is kept.
    pub(super) fn note_bare(&mut self, name: &ObjectName) {
        self.take_out(name);
        self.bare.insert(name.clone());
    }

    /// How many Secrets there are of which only the name is kept.
    pub(super) fn bare(&self) -> usize {
        self.bare.len()
    }
}

/// Bytes of what a Secret holds.
pub(super) fn size(secret: &Secret) -> usize {
    let entries = secret.data.iter().flat_map(BTreeMap::values);
    entries.map(|entry| entry.0.len()).sum()
}

/// Whether this is all that is kept of a Secret of an API server: one of type `kubernetes.io/tls` has
/// data.
pub(super) fn is_bare(secret: &Secret) -> bool {
    secret.data.is_none()
}

/// What is kept of a Secret for which there is no room.
pub(super) fn bare(secret: &Secret) -> Secret {
    let meta = &secret.metadata;
    Secret {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(namespace: &str, name: usize) -> ObjectName {
        ObjectName::new(namespace, name.to_string())
    }

    #[test]
    fn each_namespace_has_room_of_its_own_and_gets_it_back() {
        let mut shelf = Shelf::default();
        let fits = |shelf: &mut Shelf, of: &ObjectName| shelf.place(of, 100, 250);
        assert!(fits(&mut shelf, &name("a", 1)));
        assert!(fits(&mut shelf, &name("a", 2)));
        assert!(!fits(&mut shelf, &name("a", 3)));
        assert!(fits(&mut shelf, &name("b", 1)));
        assert!(fits(&mut shelf, &name("a", 2)), "it has its place");
        assert_eq!(shelf.bare(), 1);
        shelf.take_out(&name("a", 1));
        assert!(fits(&mut shelf, &name("a", 3)));
        assert_eq!(shelf.bare(), 0);
        for (namespace, of) in [("a", 2), ("a", 3), ("b", 1), ("b", 1)] {
            shelf.take_out(&name(namespace, of));
        }
        assert!(shelf.sizes.is_empty() && shelf.sums.is_empty());
    }
}
