//! The kinds of objects that are read, in one table: the index, the watches of a cluster and the
//! reader of manifests follow it.

use std::{any::TypeId, fmt::Debug, sync::Arc};

use k8s_openapi::{
    ClusterResourceScope,
    api::{
        core::v1::{ConfigMap, Secret, Service},
        networking::v1::{Ingress, IngressClass},
    },
};
use serde::de::DeserializeOwned;

use super::{
    kept::{Change, Item, Kept, Unread},
    slice::EndpointSlice,
};
use ingress_model::{ObjectName, Problem};

/// A type whose objects are read.
pub(super) trait Kind:
    kube::Resource<DynamicType = ()>
    + DeserializeOwned
    + Clone
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
{
    /// Field selector of the objects that an API server is asked for; all of them without one.
    const SELECTOR: Option<&'static str> = None;

    /// One change among those of all kinds.
    fn changed(change: Change<Self>) -> Changed;
}

/// Does something with each kind.
pub(super) trait Visitor {
    /// Called once for each line of the table.
    fn visit<K: Kind>(&mut self);
}

/// Reads one object, whatever its kind.
pub(super) trait Read {
    /// Why it cannot be read.
    type Error;

    /// Reads it as a `T`.
    fn read<T: DeserializeOwned>(self) -> Result<T, Self::Error>;
}

/// What manifests call a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// `kind`.
    pub(super) kind: &'static str,
    /// Whether its objects live in namespaces.
    pub(super) namespaced: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $objects:ident: $kind:ident $(where $selector:literal)?,)*) => {
        /// What is known of each kind.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Objects {
            $($(#[$doc])* pub(super) $objects: Kept<$kind>,)*
        }

        /// One object of any kind.
        #[derive(Clone, Debug)]
        pub(super) enum Object {
            $($(#[$doc])* $kind(Arc<$kind>),)*
        }

        /// A change of any kind.
        #[derive(Debug)]
        pub(super) enum Changed {
            $($(#[$doc])* $kind(Change<$kind>),)*
        }

        /// Names one object of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Key {
            $($(#[$doc])* $kind(ObjectName),)*
        }

        $(impl Kind for $kind {
            $(const SELECTOR: Option<&'static str> = Some($selector);)?

            fn changed(change: Change<Self>) -> Changed {
                Changed::$kind(change)
            }
        })*

        impl Objects {
            /// Takes a change, and names the objects that differ from before.
            pub(super) fn apply(&mut self, changed: Changed) -> Vec<Key> {
                match changed {
                    $(Changed::$kind(change) => {
                        self.$objects.apply(change).into_iter().map(Key::$kind).collect()
                    })*
                }
            }

            /// What the owner of an object should know, if it cannot be read.
            pub(super) fn problem(&self, key: &Key) -> Option<Problem> {
                match key {
                    $(Key::$kind(name) => self.$objects.problem(name),)*
                }
            }

            /// Puts everything of `other` in place of this, and names the objects that differ.
            pub(super) fn replace_by(&mut self, other: Self) -> Vec<Key> {
                let mut changed = Vec::new();
                $(changed.extend(self.$objects.replace_by(other.$objects).into_iter().map(Key::$kind));)*
                changed
            }

            /// Keeps `object` unless its name is taken; then gives back where the owner was read.
            pub(super) fn insert_first(
                &mut self,
                name: ObjectName,
                object: &Object,
                file: &Arc<str>,
            ) -> Option<Arc<str>> {
                match object {
                    $(Object::$kind(object) => {
                        let item = Item {
                            object: Arc::clone(object),
                            file: Some(Arc::clone(file)),
                        };
                        self.$objects.insert_first(name, item)
                    })*
                }
            }

            /// Notes that there is an object of that kind and name which cannot be read, where it would
            /// open something to take it for absent. All others are served by nothing but what they say.
            pub(super) fn insert_unread(&mut self, kind: &str, name: ObjectName, unread: Unread) {
                if kind == names::<ConfigMap>().1 {
                    self.configmaps.insert_unread(name, unread);
                } else if kind == names::<IngressClass>().1 {
                    self.classes.insert_unread(name, unread);
                } else if kind == names::<Ingress>().1 {
                    self.ingresses.insert_unread(name, unread);
                }
            }

            /// Tells whether every kind was listed once: before, a snapshot would be partial.
            pub(super) fn complete(&self) -> bool {
                $(self.$objects.listed())&&*
            }

            pub(super) fn mark_listed(&mut self) {
                $(self.$objects.mark_listed();)*
            }
        }

        /// Shows every kind to `visitor`.
        pub(super) fn visit_all(visitor: &mut impl Visitor) {
            $(visitor.visit::<$kind>();)*
        }

        /// The kind of that name; `None` where Forebay does not read it.
        pub(super) fn find(api_version: &str, kind: &str) -> Option<Name> {
            $(if (api_version, kind) == names::<$kind>() {
                return Some(Name {
                    kind: names::<$kind>().1,
                    namespaced: is_namespaced::<$kind>(),
                });
            })*
            None
        }

        impl Object {
            /// Reads an object of the kind of that name; `None` where there is no such kind.
            pub(super) fn read<R: Read>(kind: Name, reader: R) -> Option<Result<Self, R::Error>> {
                $(if kind.kind == names::<$kind>().1 {
                    return Some(reader.read().map(|object| Self::$kind(Arc::new(object))));
                })*
                None
            }
        }
    };
}

kinds! {
    /// `networking.k8s.io/v1`, legacy forms already turned into it.
    ingresses: Ingress,
    /// `networking.k8s.io/v1`. Cluster-scoped: their namespace is empty.
    classes: IngressClass,
    /// `v1`.
    services: Service,
    /// `discovery.k8s.io/v1`.
    slices: EndpointSlice,
    /// `v1`; in files of any type, and `stringData` is already part of `data`. The index has the other
    /// ones of a cluster apart, as far as they are followed by name.
    secrets: Secret where "type=kubernetes.io/tls",
    /// `v1`. Of a cluster the controller's alone.
    configmaps: ConfigMap,
}

fn names<K: k8s_openapi::Resource>() -> (&'static str, &'static str) {
    (K::API_VERSION, K::KIND)
}

fn is_namespaced<K: k8s_openapi::Resource<Scope: 'static>>() -> bool {
    TypeId::of::<K::Scope>() != TypeId::of::<ClusterResourceScope>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_version_and_scope() {
        let found = |version, kind| find(version, kind).map(|name| (name.kind, name.namespaced));
        for (version, kind, expected) in [
            ("v1", "Service", Some(("Service", true))),
            ("networking.k8s.io/v1", "Ingress", Some(("Ingress", true))),
            (
                "networking.k8s.io/v1",
                "IngressClass",
                Some(("IngressClass", false)),
            ),
            ("networking.k8s.io/v1", "Service", None),
            ("v1", "Pod", None),
        ] {
            assert_eq!(found(version, kind), expected, "{version} {kind}");
        }
    }
}
