//! The objects of one kind, and how they change.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use ingress_model::{ObjectName, ObjectRef, Problem, Subject};
use kube::Resource;

use super::outline::Outline;

/// One change of one kind of objects.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// A complete list; replaces all that is known of the kind. Never sent for a partial list.
    Listed(Vec<(ObjectName, Result<T, Unread>)>),
    /// An object was created or changed.
    Applied(ObjectName, Box<T>),
    /// An object was created or changed, and cannot be read.
    Unread(ObjectName, Unread),
    /// An object was deleted.
    Deleted(ObjectName),
}

/// Of an object that exists and cannot be read. Its last good version stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unread {
    /// Which object it is: another one of its name leaves it nothing.
    pub(super) uid: Option<Box<str>>,
    /// Why.
    pub(super) error: Box<str>,
    /// What can be read of an Ingress: it counts while there is no earlier version.
    pub(super) outline: Option<Arc<Outline>>,
}

impl Unread {
    /// Whether `item` is an earlier version of it.
    pub(super) fn is_later<T: Resource>(&self, item: &Item<T>) -> bool {
        item.object.meta().uid.as_deref() == self.uid.as_deref()
    }

    /// What its owner should know; `stays` if there is a last good version.
    pub(super) fn problem<T: Resource<DynamicType = ()>>(
        &self,
        name: &ObjectName,
        stays: bool,
    ) -> Problem {
        let uid = self.uid.as_deref().unwrap_or_default();
        let reference = ObjectRef::new(T::kind(&()), name.clone(), uid);
        let consequence = if stays {
            "its last good version stays in force"
        } else if self.outline.is_some() {
            "its hosts and paths answer 503, as far as they can be read; there is no earlier version"
        } else {
            "it is not served; there is no earlier version"
        };
        Subject::object(&reference).error("", format!("{}; {consequence}", self.error))
    }
}

/// One object and the file it was read from. Copies share the object.
#[derive(Debug)]
pub(super) struct Item<T> {
    /// The object as it was written.
    pub(super) object: Arc<T>,
    /// `path:line` in a folder; `None` in a cluster.
    pub(super) file: Option<Arc<str>>,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        Self {
            object: Arc::clone(&self.object),
            file: self.file.clone(),
        }
    }
}

impl<T: Resource<DynamicType = ()>> Item<T> {
    /// What Events and problems call the object, which has this name.
    pub(super) fn reference(&self, name: &ObjectName) -> ObjectRef {
        let uid = self.object.meta().uid.as_deref().unwrap_or_default();
        ObjectRef::new(T::kind(&()), name.clone(), uid)
    }
}

/// The objects of one kind.
#[derive(Clone, Debug)]
pub(super) struct Kept<T> {
    items: BTreeMap<ObjectName, Item<T>>,
    /// Those that cannot be read now, with or without an earlier version.
    unread: BTreeMap<ObjectName, Unread>,
    listed: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            unread: BTreeMap::new(),
            listed: false,
        }
    }
}

impl<T> Kept<T> {
    /// The object called `name`.
    pub(super) fn find(&self, name: &ObjectName) -> Option<&Item<T>> {
        self.items.get(name)
    }

    /// Keeps less, or more, of the same version of the object called `name`.
    pub(super) fn keep_as(&mut self, name: &ObjectName, object: Arc<T>) {
        if let Some(item) = self.items.get_mut(name) {
            item.object = object;
        }
    }

    /// Why the object called `name` cannot be read now.
    pub(super) fn unread(&self, name: &ObjectName) -> Option<&Unread> {
        self.unread.get(name)
    }

    /// Whether the kind was listed once: before, what is known of it is a part.
    pub(super) fn listed(&self) -> bool {
        self.listed
    }

    pub(super) fn mark_listed(&mut self) {
        self.listed = true;
    }

    /// The names of all that exist, whether they can be read or not; some maybe twice.
    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.items.keys().chain(self.unread.keys())
    }

    /// All objects, by namespace and name.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Item<T>)> {
        self.items.iter()
    }

    /// Notes that the object called `name` cannot be read, unless the name is taken.
    pub(super) fn insert_unread(&mut self, name: ObjectName, unread: Unread) {
        if !self.items.contains_key(&name) {
            self.unread.insert(name, unread);
        }
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
}

impl<T: Resource<DynamicType = ()>> Kept<T> {
    /// What the owner of the object called `name` should know, if it cannot be read.
    pub(super) fn problem(&self, name: &ObjectName) -> Option<Problem> {
        let unread = self.unread.get(name)?;
        Some(unread.problem::<T>(name, self.items.contains_key(name)))
    }
}

impl<T: Resource + PartialEq> Kept<T> {
    /// Takes a change, and names the objects that differ from before, some maybe twice.
    pub(super) fn apply(&mut self, change: Change<T>) -> Vec<ObjectName> {
        let item = |object| Item {
            object: Arc::new(object),
            file: None,
        };
        match change {
            Change::Listed(objects) => {
                self.listed = true;
                let (mut items, mut unread) = (BTreeMap::new(), BTreeMap::new());
                for (name, object) in objects {
                    match object {
                        Ok(object) => drop(items.insert(name, item(object))),
                        Err(fault) => {
                            let earlier = self.items.get(&name);
                            if let Some(earlier) = earlier.filter(|item| fault.is_later(item)) {
                                items.insert(name.clone(), earlier.clone());
                            }
                            unread.insert(name, fault);
                        }
                    }
                }
                self.replace(items, unread)
            }
            Change::Applied(name, object) => {
                let item = item(*object);
                let was_read = self.unread.remove(&name).is_none();
                let before = self.items.get(&name);
                if was_read && before.is_some_and(|before| same(before, &item)) {
                    return Vec::new();
                }
                self.items.insert(name.clone(), item);
                vec![name]
            }
            Change::Unread(name, fault) => {
                if self.unread.get(&name) == Some(&fault) {
                    return Vec::new();
                }
                let earlier = self.items.get(&name);
                if earlier.is_some_and(|item| !fault.is_later(item)) {
                    self.items.remove(&name);
                }
                self.unread.insert(name.clone(), fault);
                vec![name]
            }
            Change::Deleted(name) => {
                let was_unread = self.unread.remove(&name).is_some();
                let was_there = self.items.remove(&name).is_some() || was_unread;
                was_there.then_some(name).into_iter().collect()
            }
        }
    }

    /// Puts another set of objects in place of this one, and names those that differ.
    pub(super) fn replace_by(&mut self, other: Self) -> Vec<ObjectName> {
        self.replace(other.items, other.unread)
    }

    fn replace(
        &mut self,
        items: BTreeMap<ObjectName, Item<T>>,
        unread: BTreeMap<ObjectName, Unread>,
    ) -> Vec<ObjectName> {
        let unread_before = std::mem::replace(&mut self.unread, unread);
        let before = std::mem::replace(&mut self.items, items);
        let gone = before.keys().filter(|name| !self.items.contains_key(name));
        let mut changed: Vec<_> = gone.cloned().collect();
        for (name, item) in &mut self.items {
            match before.get(name) {
                Some(before) if same(before, item) => *item = before.clone(),
                _ => changed.push(name.clone()),
            }
        }
        // Some of them differ in nothing else.
        let differs = |name: &&ObjectName| unread_before.get(name) != self.unread.get(name);
        let unread = unread_before.keys().chain(self.unread.keys());
        changed.extend(unread.filter(differs).cloned());
        changed
    }
}

/// Whether nothing that is read differs. In a cluster a version says so without a look at the rest;
/// in a file it is a remnant of what was exported, and stays as it is when somebody edits the rest.
fn same<T: Resource + PartialEq>(before: &Item<T>, now: &Item<T>) -> bool {
    let version = |item: &Item<T>| {
        let meta = item.object.meta();
        let version = meta.uid.clone().zip(meta.resource_version.clone());
        version.filter(|_| item.file.is_none())
    };
    before.file == now.file
        && match (version(before), version(now)) {
            (Some(before), Some(now)) => before == now,
            _ => Arc::ptr_eq(&before.object, &now.object) || before.object == now.object,
        }
}
