//! What is known of the cluster or folder now, and what a source says of it.

use std::collections::BTreeMap;

use super::kind::{Changed, Objects};
use ingress_model::Problem;

/// What a source says.
#[derive(Debug)]
pub(super) enum Event {
    /// Objects of one kind changed.
    Changed(Changed),
    /// A folder was read: everything at once.
    Whole(Box<Index>),
}

/// Everything known now.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By kind.
    pub(super) objects: Objects,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
    /// Objects of kinds that are not used, by `apiVersion/kind`.
    pub(super) skipped: BTreeMap<String, u64>,
}

impl Index {
    /// Takes one event of a source.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Changed(changed) => self.objects.apply(changed),
            Event::Whole(index) => {
                *self = *index;
                self.objects.mark_listed();
            }
        }
    }

    /// Tells whether every kind was listed once: before, a snapshot would be partial.
    pub(super) fn complete(&self) -> bool {
        self.objects.complete()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::{
        super::{
            kept::Change,
            kind::{self, Kind, Visitor},
        },
        *,
    };
    use ingress_model::ObjectName;

    /// An empty list of each kind.
    #[derive(Default)]
    struct Lists(Vec<Event>);

    impl Visitor for Lists {
        fn visit<K: Kind>(&mut self) {
            let list = K::changed(Change::Listed(Vec::new()));
            self.0.push(Event::Changed(list));
        }
    }

    #[test]
    fn index_is_complete_only_when_every_kind_was_listed() {
        let mut lists = Lists::default();
        kind::visit_all(&mut lists);
        assert_eq!(lists.0.len(), 5);
        let mut index = Index::default();
        for list in lists.0 {
            assert!(!index.complete());
            index.apply(list);
        }
        assert!(index.complete());
    }

    #[test]
    fn a_second_list_replaces_the_first_in_one_step() {
        let name = |name: &str| ObjectName::new("default", name);
        let mut index = Index::default();
        for change in [
            Change::Listed(vec![
                (name("a"), Service::default()),
                (name("b"), Service::default()),
            ]),
            Change::Applied(name("c"), Box::default()),
            Change::Listed(vec![(name("b"), Service::default())]),
        ] {
            index.apply(Event::Changed(Kind::changed(change)));
        }
        let names: Vec<_> = index
            .objects
            .services
            .iter()
            .map(|(name, _)| name.name.clone())
            .collect();
        assert_eq!(names, ["b"]);
    }
}
