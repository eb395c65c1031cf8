//! What is known of the cluster or folder now: five kinds of objects, by name.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

use super::watch::{Change, Event};
use ingress_model::{ObjectName, Problem};

/// One object and the file it was read from.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    /// The object as it was written.
    pub(super) object: Arc<T>,
    /// `path:line` in a folder; `None` in a cluster.
    pub(super) file: Option<Arc<str>>,
}

/// The objects of one kind.
#[derive(Clone, Debug)]
pub(super) struct Kept<T> {
    items: BTreeMap<ObjectName, Item<T>>,
    listed: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            listed: false,
        }
    }
}

impl<T> Kept<T> {
    /// The object called `name`.
    pub(super) fn find(&self, name: &ObjectName) -> Option<&Item<T>> {
        self.items.get(name)
    }

    /// All objects, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Item<T>)> {
        self.items.iter()
    }

    /// Keeps `object` unless the name is taken; then gives back where its owner was read.
    pub(super) fn insert_first(&mut self, name: ObjectName, item: Item<T>) -> Option<Arc<str>> {
        use std::collections::btree_map::Entry;
        match self.items.entry(name) {
            Entry::Occupied(owner) => Some(owner.get().file.clone().unwrap_or_default()),
            Entry::Vacant(free) => {
                free.insert(item);
                None
            }
        }
    }

    fn apply(&mut self, change: Change<T>) {
        let item = |object| Item {
            object: Arc::new(object),
            file: None,
        };
        match change {
            Change::Listed(objects) => {
                self.items = objects
                    .into_iter()
                    .map(|(name, object)| (name, item(object)))
                    .collect();
                self.listed = true;
            }
            Change::Applied(name, object) => {
                self.items.insert(name, item(*object));
            }
            Change::Deleted(name) => {
                self.items.remove(&name);
            }
        }
    }
}

/// Everything known now.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// `networking.k8s.io/v1`, legacy forms already turned into it.
    pub(super) ingresses: Kept<Ingress>,
    /// Cluster-scoped: their namespace is empty.
    pub(super) classes: Kept<IngressClass>,
    /// `v1`.
    pub(super) services: Kept<Service>,
    /// `discovery.k8s.io/v1`.
    pub(super) slices: Kept<EndpointSlice>,
    /// `v1`; from a cluster only those of type `kubernetes.io/tls`.
    pub(super) secrets: Kept<Secret>,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
    /// Objects of kinds that are not used, by `apiVersion/kind`.
    pub(super) skipped: BTreeMap<String, u64>,
}

impl Index {
    /// Takes one event of a source.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Ingress(change) => self.ingresses.apply(change),
            Event::IngressClass(change) => self.classes.apply(change),
            Event::Service(change) => self.services.apply(change),
            Event::EndpointSlice(change) => self.slices.apply(change),
            Event::Secret(change) => self.secrets.apply(change),
            Event::Whole(index) => {
                *self = *index;
                self.mark_listed();
            }
        }
    }

    /// Tells whether every kind was listed once: before, a snapshot would be partial.
    pub(super) fn complete(&self) -> bool {
        self.ingresses.listed
            && self.classes.listed
            && self.services.listed
            && self.slices.listed
            && self.secrets.listed
    }

    fn mark_listed(&mut self) {
        self.ingresses.listed = true;
        self.classes.listed = true;
        self.services.listed = true;
        self.slices.listed = true;
        self.secrets.listed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_complete_only_when_all_five_kinds_were_listed() {
        let mut index = Index::default();
        for event in [
            Event::Ingress(Change::Listed(Vec::new())),
            Event::Service(Change::Listed(Vec::new())),
            Event::Secret(Change::Listed(Vec::new())),
            Event::IngressClass(Change::Listed(Vec::new())),
        ] {
            index.apply(event);
            assert!(!index.complete());
        }
        index.apply(Event::EndpointSlice(Change::Listed(Vec::new())));
        assert!(index.complete());
    }

    #[test]
    fn a_second_list_replaces_the_first_in_one_step() {
        let name = |name: &str| ObjectName::new("default", name);
        let mut index = Index::default();
        index.apply(Event::Service(Change::Listed(vec![
            (name("a"), Service::default()),
            (name("b"), Service::default()),
        ])));
        index.apply(Event::Service(Change::Applied(name("c"), Box::default())));
        index.apply(Event::Service(Change::Listed(vec![(
            name("b"),
            Service::default(),
        )])));
        let names: Vec<_> = index
            .services
            .iter()
            .map(|(name, _)| name.name.clone())
            .collect();
        assert_eq!(names, ["b"]);
    }
}
