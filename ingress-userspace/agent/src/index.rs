//! What is known of the cluster or folder now, and what a source says of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Secret, Service};

use super::{
    kept::{Item, Unread},
    kind::{Changed, Key, Objects},
    shelf::{self, SPARE, Shelf, UNKNOWN},
};
use ingress_model::{ObjectName, Problem};

/// The label by which an EndpointSlice belongs to a Service.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The entries of a Secret that are read. Others may be most of it, and none of our business.
pub(super) const CERTIFICATE: [&str; 2] = ["tls.crt", "tls.key"];

/// How long both may be together, in bytes. A Secret may be 1 MiB and a sensible chain is a few KiB;
/// every node keeps those that nobody names, too.
pub(super) const CERTIFICATE_LIMIT: usize = 256 * 1024;

/// Said of a Secret with more.
pub(super) const TOO_LARGE: &str = "tls.crt and tls.key are together larger than 256 KiB";

/// What a source says.
#[derive(Debug)]
pub(super) enum Event {
    /// Objects of one kind changed.
    Changed(Changed),
    /// A folder was read: everything at once.
    Whole(Box<Index>),
    /// A name that was asked for was looked up, or is looked up no longer; sent when the result differs
    /// from the last.
    Addresses(Box<str>, Option<Addresses>),
    /// A Secret that is followed by name, or that there is none.
    Secret(ObjectName, Option<Arc<Secret>>),
    /// A Secret that is followed by name and cannot be read.
    UnreadSecret(ObjectName, Unread),
}

/// What DNS says of the name of an ExternalName Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// The last ones that were found, sorted.
    pub(super) found: Vec<IpAddr>,
    /// Why the last look-up found none.
    pub(super) failure: Option<String>,
}

/// Everything known now.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By kind.
    pub(super) objects: Objects,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
    /// Part of it may be any object: nobody knows its kind and name.
    pub(super) has_gaps: bool,
    /// That part may be an IngressClass.
    pub(super) hides_classes: bool,
    /// Objects of kinds that are not used, by `apiVersion/kind`.
    pub(super) skipped: BTreeMap<String, u64>,
    /// EndpointSlices, by Service.
    slices: Groups<ObjectName>,
    /// Services, by the external name that they stand for.
    externals: Groups<Box<str>>,
    addresses: BTreeMap<Box<str>, Addresses>,
    /// Those that are followed by name.
    secrets: BTreeMap<ObjectName, Expected>,
    /// Secrets that were expected so far, each as often as it was.
    expected: u64,
    /// Secrets that nobody names.
    shelf: Shelf,
}

/// Secrets to be followed by name. One with another number than before is to be told again: whoever
/// expects it has forgotten it meanwhile.
pub(super) type Wish = BTreeMap<ObjectName, u64>;

/// A Secret that is followed by name.
#[derive(Clone, Debug)]
struct Expected {
    number: u64,
    /// `None` before the first answer.
    answer: Option<Option<Item<Secret>>>,
    /// Why it cannot be read now.
    unread: Option<Unread>,
}

/// Which objects of a kind belong together, as EndpointSlices do by their Service.
#[derive(Clone, Debug)]
struct Groups<G> {
    of: BTreeMap<ObjectName, G>,
    members: BTreeMap<G, BTreeSet<ObjectName>>,
}

impl<G> Default for Groups<G> {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }
}

impl<G: Ord + Clone> Groups<G> {
    /// Notes that `member` belongs to the group `now`, or to none; gives the one before.
    fn assign(&mut self, member: &ObjectName, now: Option<G>) -> Option<G> {
        let before = match &now {
            Some(now) => self.of.insert(member.clone(), now.clone()),
            None => self.of.remove(member),
        };
        if before != now {
            if let Some(before) = &before
                && let Some(theirs) = self.members.get_mut(before)
            {
                theirs.remove(member);
                if theirs.is_empty() {
                    self.members.remove(before);
                }
            }
            if let Some(now) = now {
                self.members.entry(now).or_default().insert(member.clone());
            }
        }
        before
    }
}

impl Index {
    /// Takes one event of a source, and names what differs from before: for an EndpointSlice also the
    /// Service that it belongs to, or belonged to.
    pub(super) fn apply(&mut self, event: Event) -> BTreeSet<Key> {
        let changed = match event {
            Event::Addresses(name, addresses) => {
                let changed = self.services_named(&name);
                match addresses {
                    Some(addresses) => drop(self.addresses.insert(name, addresses)),
                    None => drop(self.addresses.remove(&name)),
                }
                changed
            }
            Event::Secret(name, secret) => {
                if let Some(secret) = &secret
                    && self.secrets.contains_key(&name)
                {
                    self.fill(&name, secret);
                }
                let item = secret.map(|object| Item { object, file: None });
                match self.secrets.get_mut(&name) {
                    Some(expected) => {
                        expected.answer = Some(item);
                        expected.unread = None;
                        vec![Key::Secret(name)]
                    }
                    // On its way when its watch was ended: it must not be there, grown old, when it
                    // is wanted again.
                    None => Vec::new(),
                }
            }
            Event::UnreadSecret(name, unread) => match self.secrets.get_mut(&name) {
                Some(expected) => {
                    let earlier = expected.answer.take().flatten();
                    expected.answer = Some(earlier.filter(|item| unread.is_later(item)));
                    expected.unread = Some(unread);
                    vec![Key::Secret(name)]
                }
                None => Vec::new(),
            },
            Event::Changed(changed) => self.objects.apply(changed),
            Event::Whole(index) => {
                let Self {
                    objects,
                    problems,
                    has_gaps,
                    hides_classes,
                    skipped,
                    ..
                } = *index;
                self.has_gaps = has_gaps;
                self.hides_classes = hides_classes;
                self.problems = problems;
                self.skipped = skipped;
                self.objects.mark_listed();
                self.objects.replace_by(objects)
            }
        };
        let mut dirty = BTreeSet::new();
        for key in changed {
            match key {
                Key::EndpointSlice(slice) => {
                    let services = self.move_slice(&slice);
                    dirty.extend(services.into_iter().flatten().map(Key::Service));
                    dirty.insert(Key::EndpointSlice(slice));
                }
                Key::Service(service) => {
                    self.move_external(&service);
                    dirty.insert(Key::Service(service));
                }
                key => drop(dirty.insert(key)),
            }
        }
        dirty
    }

    /// What is known of an external name; `None` before it was looked up.
    pub(super) fn addresses(&self, name: &str) -> Option<&Addresses> {
        self.addresses.get(name)
    }

    /// A Secret of the watched type of which all is kept.
    pub(super) fn whole_secret(&self, name: &ObjectName) -> Option<&Item<Secret>> {
        let item = self.objects.secrets.find(name)?;
        Some(item).filter(|item| !is_bare(item))
    }

    /// A Secret of the watched type of which only the name and the version are kept.
    pub(super) fn bare_secret(&self, name: &ObjectName) -> Option<&Item<Secret>> {
        let item = self.objects.secrets.find(name)?;
        Some(item).filter(|item| is_bare(item))
    }

    /// Keeps as much of each of these Secrets as there is room for; all of those that somebody names.
    /// `is_named` is `None` while nobody knows.
    pub(super) fn settle_secrets(
        &mut self,
        secrets: &BTreeSet<ObjectName>,
        is_named: Option<&dyn Fn(&ObjectName) -> bool>,
    ) {
        let limit = is_named.map_or(UNKNOWN, |_| SPARE);
        let is_named = |name: &&ObjectName| is_named.is_some_and(|is_named| is_named(name));
        let (named, others): (Vec<_>, Vec<_>) = secrets.iter().partition(is_named);
        for name in named {
            self.shelf.take_out(name);
        }
        for name in others {
            let Some(item) = self.objects.secrets.find(name) else {
                self.shelf.take_out(name);
                continue;
            };
            if is_bare(item) {
                self.shelf.note_bare(name);
            } else if !self.shelf.place(name, shelf::size(&item.object), limit) {
                let bare = Arc::new(shelf::bare(&item.object));
                self.objects.secrets.keep_as(name, bare);
            }
        }
    }

    /// How many Secrets there are of which only the name is kept, because nobody names them.
    pub(super) fn bare_secrets(&self) -> usize {
        self.shelf.bare()
    }

    /// Keeps all of a Secret that was read by name, if it is one of which only the name was kept.
    fn fill(&mut self, name: &ObjectName, secret: &Arc<Secret>) {
        let same = |bare: &Item<Secret>| bare.object.metadata.uid == secret.metadata.uid;
        if self.bare_secret(name).is_some_and(same) {
            self.objects.secrets.keep_as(name, Arc::clone(secret));
        }
    }

    /// A Secret that is followed by name.
    pub(super) fn named_secret(&self, name: &ObjectName) -> Option<&Item<Secret>> {
        self.secrets.get(name)?.answer.as_ref()?.as_ref()
    }

    /// Why a Secret that is followed by name cannot be read now.
    pub(super) fn unread_named(&self, name: &ObjectName) -> Option<&Unread> {
        self.secrets.get(name)?.unread.as_ref()
    }

    /// Tells whether the first answer is there for a Secret that is followed by name, or is awaited
    /// no longer.
    pub(super) fn has_asked_for(&self, secret: &ObjectName) -> bool {
        let expected = self.secrets.get(secret);
        expected.is_some_and(|expected| expected.answer.is_some())
    }

    /// Expects the Secrets that are followed by name, and forgets others. Gives what to ask for.
    pub(super) fn expect_secrets(&mut self, names: &BTreeSet<ObjectName>) -> Wish {
        self.secrets.retain(|name, _| names.contains(name));
        for name in names {
            self.secrets.entry(name.clone()).or_insert_with(|| {
                self.expected += 1;
                Expected {
                    number: self.expected,
                    answer: None,
                    unread: None,
                }
            });
        }
        let expected = self.secrets.iter();
        expected
            .map(|(name, expected)| (name.clone(), expected.number))
            .collect()
    }

    /// How many Secrets were expected so far.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// Takes those of the first `number` expected Secrets that nothing was said of for absent, and
    /// names them.
    pub(super) fn give_up_secrets(&mut self, number: u64) -> Vec<Key> {
        let mut given_up = Vec::new();
        for (name, expected) in &mut self.secrets {
            if expected.number <= number && expected.answer.is_none() {
                expected.answer = Some(None);
                given_up.push(Key::Secret(name.clone()));
            }
        }
        given_up
    }

    /// The Services that stand for an external name.
    fn services_named(&self, name: &str) -> Vec<Key> {
        let named = self.externals.members.get(name).into_iter().flatten();
        named.map(|service| Key::Service(service.clone())).collect()
    }

    /// The EndpointSlices of a Service, by name.
    pub(super) fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.slices.members.get(service).into_iter().flatten()
    }

    /// Tells whether every kind was listed once: before, a state would be partial.
    pub(super) fn complete(&self) -> bool {
        self.objects.complete()
    }

    /// Notes which Service `slice` belongs to now; gives the one before and the one now.
    fn move_slice(&mut self, slice: &ObjectName) -> [Option<ObjectName>; 2] {
        let item = self.objects.slices.find(slice);
        let labels = item.and_then(|item| item.object.metadata.labels.as_ref());
        let now = labels
            .and_then(|labels| labels.get(SERVICE_LABEL))
            .map(|service| ObjectName::new(slice.namespace.clone(), service.clone()));
        let before = self.slices.assign(slice, now.clone());
        [before, now]
    }

    /// Notes which external name `service` stands for now.
    fn move_external(&mut self, service: &ObjectName) {
        let item = self.objects.services.find(service);
        let now = item.and_then(|item| external_name(&item.object));
        let now = now.map(Box::from);
        self.externals.assign(service, now);
    }
}

/// Whether next to nothing is kept of a Secret; of what is in a file, all is.
fn is_bare(item: &Item<Secret>) -> bool {
    item.file.is_none() && shelf::is_bare(&item.object)
}

/// The name that an ExternalName Service stands for.
pub(super) fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let name = spec.external_name.as_deref().unwrap_or_default();
    (spec.type_.as_deref() == Some("ExternalName")).then_some(name.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::slice::EndpointSlice;

    use super::{
        super::{
            kept::Change,
            kind::{self, Kind, Visitor},
            watch::index_of,
        },
        *,
    };

    /// An empty list of each kind.
    #[derive(Default)]
    struct Lists(Vec<Event>);

    impl Visitor for Lists {
        fn visit<K: Kind>(&mut self) {
            let list = K::changed(Change::Listed(Vec::new()));
            self.0.push(Event::Changed(list));
        }
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("default", name)
    }

    #[test]
    fn index_is_complete_only_when_every_kind_was_listed() {
        let mut lists = Lists::default();
        kind::visit_all(&mut lists);
        assert!(lists.0.len() >= 5);
        let mut index = Index::default();
        for list in lists.0 {
            assert!(!index.complete());
            index.apply(list);
        }
        assert!(index.complete());
    }

    #[test]
    fn a_second_list_replaces_the_first_in_one_step() {
        let mut index = Index::default();
        for change in [
            Change::Listed(vec![
                (name("a"), Ok(Service::default())),
                (name("b"), Ok(Service::default())),
            ]),
            Change::Applied(name("c"), Box::default()),
            Change::Listed(vec![(name("b"), Ok(Service::default()))]),
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

    #[test]
    fn only_what_differs_is_dirty() {
        let service = |version: &str| {
            let mut service = Service::default();
            service.metadata.uid = Some("u".to_owned());
            service.metadata.resource_version = Some(version.to_owned());
            service
        };
        let mut index = Index::default();
        let mut dirty = |change| {
            let keys = index.apply(Event::Changed(Kind::changed(change)));
            let name = |key| match key {
                Key::Service(name) => name.name,
                other => panic!("{other:?}"),
            };
            keys.into_iter().map(name).collect::<Vec<_>>()
        };
        let list = |names: &[(&str, &str)]| {
            let object = |(of, version): &(&str, &str)| (name(of), Ok(service(version)));
            Change::Listed(names.iter().map(object).collect())
        };
        assert_eq!(dirty(list(&[("a", "1"), ("b", "1")])), ["a", "b"]);
        assert_eq!(dirty(list(&[("b", "1"), ("c", "1")])), ["a", "c"]);
        let applied = |of, version| Change::Applied(name(of), Box::new(service(version)));
        assert!(dirty(applied("b", "1")).is_empty());
        assert_eq!(dirty(applied("b", "2")), ["b"]);
        assert_eq!(dirty(Change::Deleted(name("b"))), ["b"]);
        assert!(dirty(Change::Deleted(name("b"))).is_empty());
    }

    #[test]
    fn an_edited_file_is_read_even_if_its_manifest_says_which_version_it_was_exported_from() {
        let manifest = |port: u16| {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s, uid: u, resourceVersion: '7'}}\n\
                 spec: {{ports: [{{port: {port}}}]}}\n"
            );
            Event::Whole(Box::new(index_of(&text)))
        };
        let mut index = Index::default();
        for (port, dirty) in [(80, 1), (81, 1), (81, 0)] {
            assert_eq!(index.apply(manifest(port)).len(), dirty, "{port}");
            let service = index.objects.services.find(&name("s")).unwrap();
            let spec = service.object.spec.clone().unwrap();
            assert_eq!(spec.ports.unwrap()[0].port, i32::from(port));
        }
    }

    #[test]
    fn a_slice_makes_its_service_dirty_and_the_one_it_leaves() {
        let slice = |service: &str| {
            let mut slice = EndpointSlice::default();
            slice.metadata.labels = Some([(SERVICE_LABEL.to_owned(), service.to_owned())].into());
            Change::Applied(name("s"), Box::new(slice))
        };
        let mut index = Index::default();
        for (change, dirty, of_a) in [
            (slice("a"), &["a"][..], true),
            (slice("b"), &["a", "b"], false),
            (Change::Deleted(name("s")), &["b"], false),
        ] {
            let keys = index.apply(Event::Changed(Kind::changed(change)));
            let expected = dirty.iter().map(|service| Key::Service(name(service)));
            let own = Key::EndpointSlice(name("s"));
            assert_eq!(keys, expected.chain([own]).collect());
            assert_eq!(index.slices_of(&name("a")).count() == 1, of_a);
        }
    }

    #[test]
    fn an_answer_of_dns_makes_the_services_of_that_name_dirty_and_no_others() {
        let service = |of: &str, external: Option<&str>| {
            let mut service = Service::default();
            let spec = service.spec.get_or_insert_default();
            spec.external_name = external.map(str::to_owned);
            spec.type_ = external.map(|_| "ExternalName".to_owned());
            Event::Changed(Kind::changed(Change::Applied(name(of), Box::new(service))))
        };
        let mut index = Index::default();
        index.apply(service("a", Some("x.example.")));
        index.apply(service("b", Some("x.example")));
        index.apply(service("c", Some("y.example")));
        index.apply(service("d", None));
        let mut dirty_of = |event: Option<Event>, external: &str| {
            if let Some(event) = event {
                index.apply(event);
            }
            let answer = Event::Addresses(external.into(), Some(Addresses::default()));
            let keys = index.apply(answer).into_iter();
            let name = |key| match key {
                Key::Service(name) => name.name,
                other => panic!("{other:?}"),
            };
            keys.map(name).collect::<Vec<_>>()
        };
        assert_eq!(dirty_of(None, "x.example"), ["a", "b"]);
        assert_eq!(dirty_of(None, "z.example"), [""; 0]);
        assert_eq!(
            dirty_of(Some(service("b", Some("y.example"))), "y.example"),
            ["b", "c"]
        );
        assert_eq!(dirty_of(Some(service("a", None)), "x.example"), [""; 0]);
        let gone = Event::Changed(Kind::changed(Change::<Service>::Deleted(name("c"))));
        assert_eq!(dirty_of(Some(gone), "y.example"), ["b"]);
    }
}
