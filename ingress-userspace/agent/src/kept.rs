//! The objects of one kind, and how they change.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use ingress_model::ObjectName;

/// One change of one kind of objects.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// A complete list; replaces all that is known of the kind. Never sent for a partial list.
    Listed(Vec<(ObjectName, T)>),
    /// An object was created or changed.
    Applied(ObjectName, Box<T>),
    /// An object was deleted.
    Deleted(ObjectName),
}

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

    /// Whether the kind was listed once: before, what is known of it is a part.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    pub(super) fn mark_listed(&mut self) {
        self.listed = true;
    }

    /// All objects, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Item<T>)> {
        self.items.iter()
    }

    /// Keeps `object` unless the name is taken; then gives back where its owner was read.
    pub(super) fn insert_first(&mut self, name: ObjectName, item: Item<T>) -> Option<Arc<str>> {
        match self.items.entry(name) {
            Entry::Occupied(owner) => Some(owner.get().file.clone().unwrap_or_default()),
            Entry::Vacant(free) => {
                free.insert(item);
                None
            }
        }
    }

    pub(super) fn apply(&mut self, change: Change<T>) {
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
