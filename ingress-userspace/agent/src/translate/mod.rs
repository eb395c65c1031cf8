//! Index → updates. The same objects give the same state, whatever way they came, and each object
//! stands alone.
//!
//! `class` (whose is it?) → `ingress` (one `claim`) → `host`, with `patterns` and `certificates`;
//! `backends` apart, and `named` for Secrets to be followed. `State` knows what depends on what, so that a change costs what it touches;
//! `book` keeps what is wrong, and logs it as far as `quota` has lines for it.

mod backends;
mod book;
mod certificates;
mod claim;
mod class;
mod few;
mod host;
mod ingress;
mod named;
mod patterns;
mod quota;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Secret;

use self::{
    backends::Resolved,
    book::Topic,
    certificates::{Known, Offers},
    claim::{Claim, Translated},
    class::Whose,
    named::Named,
    patterns::Patterns,
    room::Rooms,
};
use super::{
    annotation::{Base, Denial, Prefixes},
    globals,
    index::Index,
    kept::Item,
    kind::Key,
    outline::Outline,
    settings::Settings,
    watch::names::Names,
};
use ingress_model::{
    BackendKey, HostPattern, HostPolicy, HostRules, ObjectName, Problem, Seniority, Subject, Update,
};

pub(super) use book::Book;

/// Everything that is served now, and what it depends on.
#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    base: Base,
    /// Of the controller's ConfigMap.
    last_good_globals: globals::LastGood,
    /// Once all was read: what cannot be read later was never in force.
    knows_globals: bool,
    /// Once all was read that could be an IngressClass: as for the ConfigMap.
    knows_classes: bool,
    epoch: u64,
    /// Ours, by name.
    claims: BTreeMap<ObjectName, Arc<Claim>>,
    /// Those who have a say in the rules of a host, the oldest first.
    claims_of: BTreeMap<HostPattern, BTreeMap<Seniority, Arc<Claim>>>,
    hosts: BTreeMap<HostPattern, Served>,
    /// Every backend that a claim names, and who does.
    backends: BTreeMap<BackendKey, Used<Resolved>>,
    rooms: Rooms,
    /// What the rules of each namespace come to, as its Ingresses say them.
    rule_rooms: Rooms,
    sizes: BTreeMap<ObjectName, usize>,
    /// Ingresses for whose rules there is no room.
    refused: BTreeSet<ObjectName>,
    /// Every Secret that a claim names, and who does.
    secrets: BTreeMap<ObjectName, Used<Known>>,
    /// What the certificates of each namespace come to.
    certificate_rooms: Rooms,
    /// Secrets for whose certificates there is no room, and what each comes to.
    crowded: BTreeMap<ObjectName, usize>,
    /// Namespaces in which there is more by now.
    roomier: BTreeSet<String>,
    /// Hosts that keep the certificate of a Secret until the one that is to follow was read.
    held: BTreeMap<HostPattern, ObjectName>,
    /// Those that were told, or that others name than before.
    touched: BTreeSet<ObjectName>,
    /// Secrets that no claim names any more; maybe a host keeps the certificate.
    unused: BTreeSet<ObjectName>,
    /// Those of them to be followed by name; `None` where the source has all Secrets.
    named: Option<Named>,
    patterns: Patterns,
    /// Of the Secrets of Ingresses, while hosts are ranked.
    offers: Offers,
    /// Hosts with a rule whose regex found no room.
    cramped: BTreeSet<HostPattern>,
    /// Ingresses of other classes.
    foreign: BTreeSet<ObjectName>,
    /// Names to be looked up, and for which backends.
    externals: BTreeMap<Box<str>, BTreeSet<BackendKey>>,
    /// Since [`take_externals`](Self::take_externals).
    has_other_externals: bool,
    /// Rules of hosts that were ranked so far, to show what a change costs.
    #[cfg(test)]
    ranked: usize,
    /// What is wrong; read by others when somebody asks.
    book: Arc<Mutex<Book>>,
}

/// A host as it is served.
#[derive(Debug)]
struct Served {
    rules: Arc<HostRules>,
    /// It has a TLS entry of its own, not only the wildcard above it.
    tls: bool,
    /// The oldest that names it.
    owner: Option<Seniority>,
}

/// A thing that claims name.
#[derive(Debug)]
struct Used<T> {
    by: BTreeSet<ObjectName>,
    /// `None` before it was looked up.
    found: Option<T>,
}

impl<T> Default for Used<T> {
    fn default() -> Self {
        Self {
            by: BTreeSet::new(),
            found: None,
        }
    }
}

/// What has to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    hosts: BTreeSet<HostPattern>,
    backends: BTreeSet<BackendKey>,
    secrets: BTreeSet<ObjectName>,
    /// Those of them that the index names: something else is said of them than before.
    told: BTreeSet<ObjectName>,
    /// Namespaces that have, or had, more rules than there is room for.
    crowded: BTreeSet<String>,
}

impl State {
    /// Nothing is served yet.
    pub(super) fn new(settings: Settings) -> Self {
        let mut state = Self {
            base: globals::read(
                Prefixes::with(&settings.annotations_prefix),
                None,
                &mut globals::LastGood::default(),
            )
            .0,
            last_good_globals: globals::LastGood::default(),
            knows_globals: false,
            knows_classes: false,
            settings,
            epoch: 0,
            claims: BTreeMap::new(),
            claims_of: BTreeMap::new(),
            hosts: BTreeMap::new(),
            backends: BTreeMap::new(),
            rooms: Rooms::new(room::ENDPOINTS),
            rule_rooms: Rooms::new(room::RULES),
            sizes: BTreeMap::new(),
            refused: BTreeSet::new(),
            secrets: BTreeMap::new(),
            certificate_rooms: Rooms::new(room::CERTIFICATES),
            crowded: BTreeMap::new(),
            roomier: BTreeSet::new(),
            held: BTreeMap::new(),
            touched: BTreeSet::new(),
            unused: BTreeSet::new(),
            named: None,
            patterns: Patterns::default(),
            offers: Offers::new(),
            cramped: BTreeSet::new(),
            foreign: BTreeSet::new(),
            externals: BTreeMap::new(),
            has_other_externals: false,
            #[cfg(test)]
            ranked: 0,
            book: Arc::default(),
        };
        if let Some(secret) = &state.settings.default_certificate {
            state.secrets.entry(secret.clone()).or_default();
        }
        state
    }

    /// Chooses Secrets to be followed by name: the source has only those of one type.
    pub(super) fn follow_secrets_by_name(&mut self) {
        self.named = Some(Named::default());
    }

    /// What is wrong with the objects, for whoever asks.
    pub(super) fn book(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.book)
    }

    /// How many Ingresses are left to others.
    pub(super) fn foreign(&self) -> usize {
        self.foreign.len()
    }

    /// Takes what changed in `index`, and says what that changes for the proxy.
    pub(super) fn apply(&mut self, index: &Index, changed: BTreeSet<Key>) -> Update {
        let mut dirty = Dirty::default();
        if self.epoch == 0
            && let Some(secret) = &self.settings.default_certificate
        {
            dirty.secrets.insert(secret.clone());
            dirty.hosts.insert(HostPattern::Any);
        }
        let mut ingresses = BTreeSet::new();
        let knew_globals = self.knows_globals;
        self.knows_globals |= !index.has_gaps;
        let hears_of_globals = self.epoch == 0 || self.knows_globals != knew_globals;
        let knew_classes = self.knows_classes;
        self.knows_classes |= !index.hides_classes;
        let hears_of_classes = self.knows_classes != knew_classes;
        if hears_of_globals && self.read_globals(index) || hears_of_classes {
            ingresses.extend(index.objects.ingresses.names().cloned());
        }
        for key in changed {
            if !matches!(key, Key::Secret(_)) {
                self.note_unread(index, &key);
            }
            match key {
                Key::Ingress(name) => drop(ingresses.insert(name)),
                Key::IngressClass(class) => ingresses.extend(of_class(index, &class)),
                Key::Service(service) => dirty.backends.extend(self.backends_of(&service)),
                // Told as their Services.
                Key::EndpointSlice(_) => {}
                Key::ConfigMap(name) => {
                    if self.settings.configmap.as_ref() == Some(&name) && self.read_globals(index) {
                        ingresses.extend(index.objects.ingresses.names().cloned());
                    }
                }
                Key::Secret(name) => {
                    self.touched.insert(name.clone());
                    if self.secrets.contains_key(&name) {
                        dirty.secrets.insert(name.clone());
                        dirty.told.insert(name);
                    }
                }
            }
        }
        for name in ingresses {
            self.ingress(index, &name, &mut dirty);
        }
        self.refuse_some(index, &mut dirty);
        let mut update = Update {
            epoch: self.epoch + 1,
            base: (self.epoch > 0).then_some(self.epoch),
            ..Update::default()
        };
        self.look_up_backends(index, &mut dirty, &mut update);
        loop {
            self.look_up_secrets(index, &mut dirty, &mut update);
            self.rank_hosts(&mut dirty, &mut update);
            self.rank_cramped(&mut update);
            self.offers.clear();
            self.forget_unused(&mut update);
            // Room that others have left. Whoever takes it leaves none, so that this ends.
            dirty.secrets = self.take_fitting();
            if dirty.secrets.is_empty() {
                break;
            }
        }
        keep_last(&mut update.hosts);
        keep_last(&mut update.certificates);
        self.note(Topic::Source, index.problems.clone());
        if !update.is_empty() {
            self.epoch = update.epoch;
        }
        update
    }

    /// The whole state, for a proxy that has none or has missed an update.
    pub(super) fn whole(&self) -> Update {
        let endpoints = |(key, used): (&BackendKey, &Used<Resolved>)| {
            let found = used.found.as_ref()?;
            Some((key.clone(), Some(Arc::clone(&found.endpoints))))
        };
        let certificates = |(name, used): (&ObjectName, &Used<Known>)| {
            let good = used.found.as_ref()?.good.as_ref()?;
            Some((name.clone(), Some(Arc::clone(&good.certificate))))
        };
        let hosts = self.hosts.iter();
        Update {
            epoch: self.epoch,
            base: None,
            endpoints: self.backends.iter().filter_map(endpoints).collect(),
            certificates: self.secrets.iter().filter_map(certificates).collect(),
            hosts: hosts
                .map(|(host, served)| (host.clone(), Some(Arc::clone(&served.rules))))
                .collect(),
        }
    }

    /// Reads the controller's ConfigMap, and tells whether anything differs.
    fn read_globals(&mut self, index: &Index) -> bool {
        let name = self.settings.configmap.as_ref();
        let found = name.and_then(|name| Some((name, index.objects.configmaps.find(name)?)));
        let prefixes = self.base.prefixes.clone();
        let (mut base, problems) = globals::read(prefixes, found, &mut self.last_good_globals);
        let is_unread =
            |name| !self.knows_globals || index.objects.configmaps.unread(name).is_some();
        if found.is_none() && name.is_some_and(is_unread) {
            base.denials.push(Denial::of_unread_globals());
        }
        self.note(Topic::Globals, problems);
        std::mem::replace(&mut self.base, base) != self.base
    }

    /// Notes that an object cannot be read, if so. A folder says it itself, and where.
    fn note_unread(&self, index: &Index, key: &Key) {
        let is_told = |unread: &Problem| {
            let mut told = index.problems.iter();
            told.any(|told| told.object == unread.object)
        };
        let unread = index.objects.problem(key).filter(|it| !is_told(it));
        self.note(Topic::Unread(key.clone()), unread.into_iter().collect());
    }

    fn note(&self, topic: Topic, problems: Vec<Problem>) {
        // A panic elsewhere leaves the book whole: each topic is written in one step.
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.set(topic, problems);
    }

    fn backends_of(&self, service: &ObjectName) -> Vec<BackendKey> {
        let first = BackendKey {
            service: service.clone(),
            port: ingress_model::ServicePort::Number(0),
        };
        self.backends
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.service == *service)
            .cloned()
            .collect()
    }

    /// Translates one Ingress again, or forgets it.
    fn ingress(&mut self, index: &Index, name: &ObjectName, dirty: &mut Dirty) {
        let item = index.objects.ingresses.find(name).cloned();
        let outline = outline(index, name).filter(|_| item.is_none());
        let item = item.or_else(|| {
            let object = Arc::clone(&outline?.ingress);
            Some(Item { object, file: None })
        });
        let whose = match (&item, outline) {
            (_, Some(outline)) if outline.hides_class => Some(Whose::Unclear),
            (Some(item), _) => {
                let knows = self.knows_classes;
                Some(class::whose(&item.object, index, &self.settings, knows))
            }
            (None, _) => None,
        };
        let closed = match whose {
            _ if outline.is_some() => Some("the Ingress cannot be read"),
            Some(Whose::Unclear) => {
                Some("its IngressClass cannot be read, and may restrict who serves it")
            }
            _ => None,
        };
        if outline.is_some() {
            let key = Key::Ingress(name.clone());
            if whose == Some(Whose::Others) {
                // Their problem.
                self.note(Topic::Unread(key), Vec::new());
            } else {
                self.note_unread(index, &key);
            }
        }
        if whose == Some(Whose::Others) {
            self.foreign.insert(name.clone());
        } else {
            self.foreign.remove(name);
        }
        let before = self.claims.get(name).map(Arc::clone);
        let Some(item) = item.filter(|_| whose != Some(Whose::Others)) else {
            self.resize(name, 0, dirty);
            if let Some(before) = before {
                self.replace(Some(before), None, dirty);
            }
            return self.note(Topic::Ingress(name.clone()), Vec::new());
        };
        // One object that meets a bug must not stop the others.
        let translated = catch_unwind(AssertUnwindSafe(|| {
            ingress::translate(name, &item, &self.base, closed)
        }));
        let Translated {
            mut claim,
            mut problems,
            spoiled,
            denied,
        } = translated.unwrap_or_else(|_| {
            let subject = Subject::object(&item.reference(name)).read_from(item.file.as_deref());
            Translated {
                claim: Claim::closed(name, &item),
                problems: vec![subject.error("", "cannot be translated: this is a bug in Forebay")],
                spoiled: true,
                denied: false,
            }
        });
        if outline.is_some_and(|outline| outline.hides_paths) {
            // What it was to protect is its own: a rule of this namespace that would answer instead.
            let reason = "an Ingress of this host has a path that cannot be read";
            claim.content.denies_hosts.get_or_insert(reason.into());
        }
        let mut has_good = true;
        if spoiled {
            let same = |before: &&Arc<Claim>| before.source.uid == claim.source.uid;
            let before = before.as_ref().filter(same);
            let good = before.map(|before| before.last_good.as_deref().unwrap_or(&before.content));
            // Where there was no good one, nothing but the hosts was kept.
            let good = good.filter(|good| good.says_something());
            has_good = denied || good.is_some();
            if denied {
                claim.last_good = good.cloned().map(Box::new);
            }
            let message = match good {
                Some(_) if denied => "its last good version counts again once nothing denies it",
                None if denied => "there is no earlier version",
                Some(good) => {
                    claim.content = good.clone();
                    "its last good version stays in force"
                }
                None => {
                    claim.content.serve_nothing();
                    "it is not served; there is no earlier version"
                }
            };
            problems.push(claim.subject().error("", message));
        }
        self.resize(name, claim.content.size(), dirty);
        if self.refused.contains(name) {
            claim.refuse();
            if !has_good {
                claim.last_good = None;
            }
            let message = format!(
                "the Ingresses of a namespace may have {} rules together, and older ones have them; it is not served",
                self.rule_rooms.limit()
            );
            problems.push(claim.subject().error("spec.rules", message));
        }
        if outline.is_some() {
            // That it cannot be read says all; what is missing in an outline says nothing.
            problems.clear();
        } else if let Some(reason) = closed {
            let message = format!("{reason}; requests get 503");
            problems.push(claim.subject().error("spec.ingressClassName", message));
        }
        self.note(Topic::Ingress(name.clone()), problems);
        if before.as_deref() != Some(&claim) {
            self.replace(before, Some(Arc::new(claim)), dirty);
        }
    }

    /// Puts a claim in place of the one that the Ingress made before, if there are such.
    fn replace(&mut self, before: Option<Arc<Claim>>, now: Option<Arc<Claim>>, dirty: &mut Dirty) {
        if let (Some(before), Some(now)) = (&before, &now) {
            let hosts = now.hosts_unlike(before);
            dirty.hosts.extend(hosts.into_iter().cloned());
        } else {
            let hosts = before.iter().chain(&now).flat_map(|claim| claim.hosts());
            dirty.hosts.extend(hosts.cloned());
        }
        if let Some(before) = before {
            self.withdraw(&before, dirty);
        }
        if let Some(now) = now {
            self.enter(now, dirty);
        }
    }

    /// Notes how many rules an Ingress has.
    fn resize(&mut self, name: &ObjectName, size: usize, dirty: &mut Dirty) {
        let before = match size {
            0 => self.sizes.remove(name),
            _ => self.sizes.insert(name.clone(), size),
        };
        let before = before.unwrap_or_default();
        if self.rule_rooms.change(&name.namespace, before, size) {
            dirty.crowded.insert(name.namespace.clone());
        }
        if size == 0 {
            self.refused.remove(name);
        }
    }

    /// Refuses the youngest Ingresses of namespaces that have more rules than there is room for, and takes
    /// those again for which there is some.
    fn refuse_some(&mut self, index: &Index, dirty: &mut Dirty) {
        for namespace in std::mem::take(&mut dirty.crowded) {
            let first = ObjectName::new(namespace.clone(), "");
            let theirs = |name: &&ObjectName| name.namespace == namespace;
            let claims = self.claims.range(&first..).map(|(_, claim)| claim);
            let claims = claims.take_while(|claim| theirs(&&claim.source.name));
            let mut oldest: Vec<_> = claims
                .map(|claim| (claim.seniority(), &claim.source.name))
                .collect();
            oldest.sort();
            let sizes = oldest
                .into_iter()
                .filter_map(|(_, name)| Some((name, *self.sizes.get(name)?)));
            let refused: BTreeSet<_> = room::cramped(sizes, self.rule_rooms.limit())
                .into_keys()
                .collect();
            let before = self.refused.range(&first..).take_while(theirs);
            let before: BTreeSet<_> = before.cloned().collect();
            for name in before.symmetric_difference(&refused) {
                if refused.contains(name) {
                    self.refused.insert(name.clone());
                } else {
                    self.refused.remove(name);
                }
                self.ingress(index, name, dirty);
            }
            dirty.crowded.remove(&namespace);
        }
    }

    fn enter(&mut self, claim: Arc<Claim>, dirty: &mut Dirty) {
        let name = &claim.source.name;
        for host in claim.hosts() {
            let claims = self.claims_of.entry(host.clone()).or_default();
            claims.insert(claim.seniority(), Arc::clone(&claim));
        }
        for key in claim.content.backends.keys() {
            let used = self.backends.entry(key.clone()).or_default();
            used.by.insert(name.clone());
            dirty.backends.insert(key.clone());
        }
        for secret in claim.secrets() {
            let used = self.secrets.entry(secret.clone()).or_default();
            // Else somebody has looked, or is about to.
            if used.by.is_empty() {
                dirty.secrets.insert(secret.clone());
            }
            used.by.insert(name.clone());
        }
        self.claims.insert(name.clone(), claim);
    }

    fn withdraw(&mut self, claim: &Claim, dirty: &mut Dirty) {
        let name = &claim.source.name;
        self.claims.remove(name);
        for host in claim.hosts() {
            if let Some(claims) = self.claims_of.get_mut(host) {
                claims.remove(&claim.seniority());
                if claims.is_empty() {
                    self.claims_of.remove(host);
                }
            }
        }
        for key in claim.content.backends.keys() {
            if let Some(used) = self.backends.get_mut(key) {
                used.by.remove(name);
            }
            dirty.backends.insert(key.clone());
        }
        for secret in claim.secrets() {
            if let Some(used) = self.secrets.get_mut(secret) {
                used.by.remove(name);
            }
            dirty.secrets.insert(secret.clone());
        }
    }

    /// Notes what the dirty backends come to, and gives all for which there is no room; those for which
    /// that is another answer than before become dirty.
    fn share_room(&mut self, index: &Index, dirty: &mut Dirty) -> BTreeMap<BackendKey, usize> {
        let (mut sizes, mut crowded) = (BTreeMap::new(), BTreeSet::new());
        // One Service may have thousands of them, one after the other.
        let mut last: Option<(&ObjectName, usize)> = None;
        for key in &dirty.backends {
            let Some(used) = self.backends.get(key) else {
                continue;
            };
            let service = &key.service;
            let size = match last.filter(|(of, _)| *of == service) {
                _ if used.by.is_empty() => 0,
                Some((_, size)) => size,
                None => backends::size(index, service),
            };
            last = (!used.by.is_empty()).then_some((service, size));
            let before = used.found.as_ref().map_or(0, |found| found.size);
            if self.rooms.change(&service.namespace, before, size) {
                crowded.insert(service.namespace.clone());
            }
            sizes.insert(key.clone(), size);
        }
        let mut cramped = BTreeMap::new();
        for namespace in crowded {
            let theirs = in_namespace(&self.backends, &namespace);
            let theirs = theirs.filter(|(_, used)| !used.by.is_empty());
            let now = |(key, used): (_, &Used<Resolved>)| {
                let before = used.found.as_ref().map(|found| found.size);
                (key, sizes.get(key).copied().or(before).unwrap_or_default())
            };
            cramped.append(&mut room::cramped(
                theirs.clone().map(now),
                self.rooms.limit(),
            ));
            let differ = theirs.filter(|(key, used)| {
                let before = used.found.as_ref().is_some_and(|found| found.lacks_room);
                before != cramped.contains_key(*key)
            });
            dirty.backends.extend(differ.map(|(key, _)| key.clone()));
        }
        cramped
    }

    fn look_up_backends(&mut self, index: &Index, dirty: &mut Dirty, update: &mut Update) {
        let cramped = self.share_room(index, dirty);
        for key in &dirty.backends {
            let topic = Topic::Backend(key.clone());
            let Some(used) = self.backends.get_mut(key) else {
                continue;
            };
            if used.by.is_empty() {
                let found = self.backends.remove(key).and_then(|used| used.found);
                let external = found.as_ref().and_then(|found| found.external.clone());
                self.ask_for(key, external, None);
                if found.is_some() {
                    update.endpoints.push((key.clone(), None));
                }
                self.note(topic, Vec::new());
                continue;
            }
            let now = if let Some(size) = cramped.get(key) {
                backends::refuse(index, key, *size)
            } else {
                backends::resolve(index, &self.settings, key)
            };
            let before = used.found.as_ref().map(|found| &found.endpoints);
            if before != Some(&now.endpoints) {
                let endpoints = Arc::clone(&now.endpoints);
                update.endpoints.push((key.clone(), Some(endpoints)));
            }
            let mut problems = now.problems.clone();
            if let Some(message) = &now.missing {
                let claims = used.by.iter().filter_map(|name| self.claims.get(name));
                problems.extend(claims.filter_map(|claim| {
                    let field = claim.content.backends.get(key)?;
                    Some(claim.subject().warning(&**field, message.as_str()))
                }));
            }
            let external = now.external.clone();
            let before = used.found.replace(now);
            let before = before.and_then(|found| found.external);
            self.ask_for(key, before, external);
            self.note(topic, problems);
        }
    }

    /// Notes that a backend stands for another external name than before.
    fn ask_for(&mut self, key: &BackendKey, before: Option<Box<str>>, now: Option<Box<str>>) {
        if before == now {
            return;
        }
        let namespace = &key.service.namespace;
        if let Some(name) = before
            && let Some(backends) = self.externals.get_mut(&name)
        {
            backends.remove(key);
            self.has_other_externals |= !is_wanted_by(namespace, backends);
            if backends.is_empty() {
                self.externals.remove(&name);
            }
        }
        if let Some(name) = now {
            let backends = self.externals.entry(name).or_default();
            self.has_other_externals |= !is_wanted_by(namespace, backends);
            backends.insert(key.clone());
        }
    }

    /// The external names to be looked up.
    pub(super) fn externals(&self) -> impl Iterator<Item = &str> {
        self.externals.keys().map(|name| &**name)
    }

    /// The external names to be looked up and the namespaces that want each, if they are others than when this was
    /// asked last.
    pub(super) fn take_externals(&mut self) -> Option<Names> {
        let namespaces = |backends: &BTreeSet<BackendKey>| {
            let backends = backends.iter();
            backends.map(|key| key.service.namespace.clone()).collect()
        };
        let externals = self.externals.iter();
        std::mem::take(&mut self.has_other_externals).then(|| {
            externals
                .map(|(name, backends)| (name.clone(), namespaces(backends)))
                .collect()
        })
    }

    /// The Secrets to be followed by name.
    pub(super) fn named_secrets(&self) -> impl Iterator<Item = &ObjectName> {
        self.named.iter().flat_map(Named::followed)
    }

    /// The Secrets to be followed by name, if they are others than when this was asked last.
    pub(super) fn take_named_secrets(&mut self) -> Option<BTreeSet<ObjectName>> {
        self.named.as_mut()?.take()
    }

    /// The Secrets that were told since this was asked last, or that others name than before.
    pub(super) fn take_touched_secrets(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.touched)
    }

    /// Whether the certificate of that Secret is served, for somebody who names it.
    pub(super) fn serves_secret(&self, name: &ObjectName) -> bool {
        let used = self.secrets.get(name);
        let is_named = |used: &&Used<Known>| {
            !used.by.is_empty() || self.settings.default_certificate.as_ref() == Some(name)
        };
        let found = used.filter(is_named).and_then(|used| used.found.as_ref());
        found.is_some_and(Known::is_served)
    }

    /// Chooses again which Secrets are followed by name; what is known of those that differ is to
    /// be looked at.
    fn choose_named(&mut self, index: &Index, dirty: &mut Dirty) {
        let Some(named) = &mut self.named else {
            return;
        };
        let default = self.settings.default_certificate.as_ref();
        for name in &dirty.secrets {
            let used = self.secrets.get(name);
            let is_used = used.is_some_and(|used| !used.by.is_empty()) || default == Some(name);
            let unread = index.objects.secrets.unread(name);
            let is_there = index.whole_secret(name).is_some() || unread.is_some();
            let is_wanted = is_used && !is_there;
            let is_bare = index.bare_secret(name).is_some();
            named.want(name, is_wanted && !is_bare);
            named.want_read(name, is_wanted && is_bare);
        }
        dirty.secrets.extend(named.choose(default));
    }

    fn look_up_secrets(&mut self, index: &Index, dirty: &mut Dirty, update: &mut Update) {
        self.choose_named(index, dirty);
        self.touched.extend(dirty.secrets.iter().cloned());
        // Each once: one may name thousands of Secrets and of hosts.
        let mut naming = BTreeSet::new();
        for name in std::mem::take(&mut dirty.secrets) {
            let topic = Topic::Certificate(name.clone());
            let is_default = self.settings.default_certificate.as_ref() == Some(&name);
            let Some(used) = self.secrets.get_mut(&name) else {
                continue;
            };
            let good = |known: &Option<Known>| {
                let good = known.as_ref().and_then(|known| known.good.as_ref());
                good.map(|good| Arc::clone(&good.certificate))
            };
            let before = good(&used.found);
            let is_told = dirty.told.contains(&name);
            if used.by.is_empty() && !is_default {
                if is_told {
                    // No host is to keep what may have been taken back.
                    dirty.hosts.extend(holders(&self.held, &name));
                    self.forget(&name, update);
                } else {
                    self.unused.insert(name);
                }
                continue;
            }
            let named = self.named.as_ref();
            let is_followed = named.is_some_and(|named| named.follows(&name));
            let by_name = || index.named_secret(&name).filter(|_| is_followed);
            let item = index.whole_secret(&name).or_else(by_name);
            let unread_by_name = || index.unread_named(&name).filter(|_| is_followed);
            let unread = index.objects.secrets.unread(&name);
            let unread = unread.or_else(unread_by_name);
            let lacks_room = || named.is_some_and(|named| named.lacks_room(&name));
            let known = match item {
                // Whatever is known of it stays: it is there, and about to be read.
                None if let Some(bare) = index.bare_secret(&name)
                    && unread.is_none() =>
                {
                    Known::waiting(bare, lacks_room(), used.found.clone())
                }
                None if lacks_room() => Known::unfollowed(),
                None if is_followed && !index.has_asked_for(&name) => {
                    Known::unread(used.found.clone().filter(|_| !is_told))
                }
                None if let Some(unread) = unread => Known::unreadable(unread, used.found.clone()),
                item => Known::read(&name, item, used.found.clone()),
            };
            let namespace = &name.namespace;
            let size_before = used.found.as_ref().map_or(0, Known::size);
            let rooms = &mut self.certificate_rooms;
            // The operator's own has room.
            let known = if is_default || rooms.fits(namespace, size_before, known.size()) {
                self.crowded.remove(&name);
                known
            } else {
                self.crowded.insert(name.clone(), known.size());
                known.crowded(used.found.clone())
            };
            rooms.change(namespace, size_before, known.size());
            if known.size() < size_before {
                self.roomier.insert(namespace.clone());
            }
            let mut problems = item.map_or_else(Vec::new, |item| known.problems(item, &name));
            let stays = item.is_some() || known.good.is_some();
            problems.extend(unread.map(|it| it.problem::<Secret>(&name, stays)));
            let known = Some(known);
            // Whatever it says now may change who serves a host, or what is said of it. Often
            // nothing: one of many that name it has changed.
            if used.found != known {
                for by in &used.by {
                    if !naming.contains(by) {
                        naming.insert(by.clone());
                    }
                }
                dirty.hosts.extend(holders(&self.held, &name));
                if is_default {
                    dirty.hosts.insert(HostPattern::Any);
                }
            }
            used.found = known;
            let now = good(&used.found);
            if now != before {
                update.certificates.push((name, now));
            }
            self.note(topic, problems);
        }
        let naming = naming.iter().filter_map(|name| self.claims.get(name));
        let hosts = naming.flat_map(|claim| claim.hosts());
        dirty.hosts.extend(hosts.cloned());
    }

    /// The Secrets for whose certificates there was no room, and is now. Others are not looked at: most have to be
    /// read again for it.
    fn take_fitting(&mut self) -> BTreeSet<ObjectName> {
        let mut fitting = BTreeSet::new();
        for namespace in std::mem::take(&mut self.roomier) {
            let first = ObjectName::new(namespace.clone(), "");
            let theirs = self.crowded.range(first..);
            let mut sum = 0;
            for (name, size) in theirs.take_while(|(name, _)| name.namespace == namespace) {
                let found = self.secrets.get(name).and_then(|used| used.found.as_ref());
                let before = found.map_or(0, Known::size);
                if self.certificate_rooms.fits(&namespace, before, sum + size) {
                    sum += size.saturating_sub(before);
                    fitting.insert(name.clone());
                }
            }
        }
        fitting
    }

    /// Forgets the Secrets that neither a claim names nor a host keeps.
    fn forget_unused(&mut self, update: &mut Update) {
        if self.unused.is_empty() {
            return;
        }
        let held: BTreeSet<_> = self.held.values().collect();
        let (kept, mut unused): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.unused)
            .into_iter()
            .partition(|name| held.contains(name));
        self.unused = kept;
        unused.retain(|name| {
            let used = self.secrets.get(name);
            used.is_some_and(|used| used.by.is_empty())
        });
        for name in unused {
            self.forget(&name, update);
        }
    }

    fn forget(&mut self, secret: &ObjectName, update: &mut Update) {
        let known = self.secrets.remove(secret).and_then(|used| used.found);
        let size = known.as_ref().map_or(0, Known::size);
        self.certificate_rooms.change(&secret.namespace, size, 0);
        self.crowded.remove(secret);
        if size > 0 {
            self.roomier.insert(secret.namespace.clone());
        }
        if known.is_some_and(|known| known.good.is_some()) {
            update.certificates.push((secret.clone(), None));
        }
        self.note(Topic::Certificate(secret.clone()), Vec::new());
    }

    /// Ranks the rules of each dirty host again. Wildcards go first: whether one has TLS matters
    /// to the hosts below it.
    fn rank_hosts(&mut self, dirty: &mut Dirty, update: &mut Update) {
        let is_wildcard = |host: &HostPattern| matches!(host, HostPattern::Wildcard(_));
        let hosts = std::mem::take(&mut dirty.hosts);
        let (wildcards, mut others): (BTreeSet<_>, BTreeSet<_>) =
            hosts.into_iter().partition(is_wildcard);
        let mut flipped = BTreeSet::new();
        for host in wildcards {
            let before = self.own_tls(&host).cloned();
            self.rank(&host, update);
            if self.own_tls(&host) != before.as_ref() {
                flipped.insert(host);
            }
        }
        if !flipped.is_empty() {
            let is_below = |host: &&HostPattern| {
                let above = host.wildcard_above();
                above.is_some_and(|above| flipped.contains(&above))
            };
            others.extend(self.hosts.keys().filter(is_below).cloned());
        }
        for host in others {
            self.rank(&host, update);
        }
        if !update.hosts.is_empty() {
            self.patterns.forget_some();
        }
    }

    /// Ranks the hosts again that had no room, once there is some: whatever makes it may have
    /// nothing to do with them. The proxy gives up old rules later than this state, so that every
    /// change is a time to look.
    fn rank_cramped(&mut self, update: &mut Update) {
        if self.cramped.is_empty() || !self.patterns.make_room() {
            return;
        }
        let hosts = std::mem::take(&mut self.cramped);
        let mut again = Update::default();
        for host in &hosts {
            self.rank(host, &mut again);
        }
        let changed: BTreeSet<_> = again.hosts.iter().map(|(host, _)| host).collect();
        update.hosts.retain(|(host, _)| !changed.contains(host));
        update.hosts.extend(again.hosts);
    }

    /// Who has the host, if that has a TLS entry of its own.
    fn own_tls(&self, host: &HostPattern) -> Option<&Seniority> {
        let served = self.hosts.get(host).filter(|served| served.tls);
        served?.owner.as_ref()
    }

    /// Whether the wildcard above a host has TLS, and says so for this host, too: one that came later
    /// and is another tenant's does not.
    fn tls_above(&self, host: &HostPattern, owner: Option<&Claim>) -> Option<bool> {
        let above = host.wildcard_above()?;
        let by = self.own_tls(&above)?;
        let owner = owner?;
        let namespace = &owner.source.name.namespace;
        Some(by.namespace() == namespace || *by < owner.seniority())
    }

    fn rank(&mut self, host: &HostPattern, update: &mut Update) {
        let topic = Topic::Host(host.clone());
        self.held.remove(host);
        let none = BTreeMap::new();
        let claims = self.claims_of.get(host).unwrap_or(&none).values();
        let claims = with_a_say(claims.map(|claim| &**claim));
        #[cfg(test)]
        {
            let rules = claims.iter().map(|claim| claim.rules(host).len().max(1));
            self.ranked += rules.sum::<usize>();
        }
        let default = self.settings.default_certificate.as_ref();
        let default = default.filter(|_| *host == HostPattern::Any);
        if claims.is_empty() && default.is_none() {
            self.cramped.remove(host);
            if self.hosts.remove(host).is_some() {
                update.hosts.push((host.clone(), None));
            }
            return self.note(topic, Vec::new());
        }
        let mut problems = Vec::new();
        let known = |name: &ObjectName| self.secrets.get(name)?.found.as_ref();
        let before = self.hosts.get(host);
        let before = before.and_then(|before| before.rules.policy.certificate.as_ref());
        let offers = &mut self.offers;
        let served = certificates::serve(host, &claims, before, known, offers, &mut problems);
        if let Some(secret) = served.secret.as_ref().filter(|_| served.is_held) {
            self.held.insert(host.clone(), secret.clone());
        }
        let names = |claim: &&Claim| claim.content.hosts.contains_key(host);
        let owner = claims.iter().copied().find(names);
        let above = self.tls_above(host, owner);
        let policy = HostPolicy {
            tls: served.tls || above == Some(true),
            certificate: served.secret.or_else(|| default.cloned()),
            ignores_wildcard: above == Some(false),
        };
        let owner = owner.map(Claim::seniority);
        let rules = host::rules(host, &claims, policy, &mut self.patterns, &mut problems);
        if self.patterns.take_refused() {
            self.cramped.insert(host.clone());
        } else {
            self.cramped.remove(host);
        }
        let before = self.hosts.get(host);
        let rules = match before {
            Some(before) if *before.rules == rules => Arc::clone(&before.rules),
            _ => {
                let rules = Arc::new(rules);
                update.hosts.push((host.clone(), Some(Arc::clone(&rules))));
                rules
            }
        };
        let tls = served.tls;
        let served = Served { rules, tls, owner };
        self.hosts.insert(host.clone(), served);
        self.note(topic, problems);
    }
}

/// All but those that are refused and change nothing: the hosts are kept by others, and closed by others if at
/// all.
fn with_a_say<'c>(claims: impl Iterator<Item = &'c Claim>) -> Vec<&'c Claim> {
    let mut having: Vec<&Claim> = Vec::new();
    let mut closed = BTreeSet::new();
    for claim in claims {
        let closes = claim.content.denies_hosts.is_some();
        if !claim.is_refused
            || having.is_empty()
            || closes && closed.insert(&claim.source.name.namespace)
        {
            having.push(claim);
        }
    }
    having
}

/// What was said last of each.
fn keep_last<K: Ord + Clone, V>(said: &mut Vec<(K, V)>) {
    let mut seen = BTreeSet::new();
    said.reverse();
    said.retain(|(of, _)| seen.insert(of.clone()));
    said.reverse();
}

/// The hosts that keep the certificate of that Secret.
fn holders(
    held: &BTreeMap<HostPattern, ObjectName>,
    secret: &ObjectName,
) -> impl Iterator<Item = HostPattern> {
    let held = held.iter().filter(move |(_, of)| *of == secret);
    held.map(|(host, _)| host.clone())
}

/// The backends in that namespace.
fn in_namespace<'b, T>(
    backends: &'b BTreeMap<BackendKey, T>,
    namespace: &'b str,
) -> impl Iterator<Item = (&'b BackendKey, &'b T)> + Clone {
    let first = BackendKey {
        service: ObjectName::new(namespace, ""),
        port: ingress_model::ServicePort::Number(0),
    };
    let next = backends.range(first..);
    next.take_while(move |(key, _)| key.service.namespace == namespace)
}

/// Whether one of the backends is in that namespace.
fn is_wanted_by(namespace: &str, backends: &BTreeSet<BackendKey>) -> bool {
    let first = BackendKey {
        service: ObjectName::new(namespace, ""),
        port: ingress_model::ServicePort::Number(0),
    };
    let next = backends.range(first..).next();
    next.is_some_and(|key| key.service.namespace == namespace)
}

/// What can be read of an Ingress that cannot be read.
fn outline<'i>(index: &'i Index, name: &ObjectName) -> Option<&'i Outline> {
    let unread = index.objects.ingresses.unread(name)?;
    unread.outline.as_deref()
}

/// The Ingresses that depend on an IngressClass.
fn of_class<'i>(index: &'i Index, class: &'i ObjectName) -> impl Iterator<Item = ObjectName> + 'i {
    let ingresses = &index.objects.ingresses;
    let depends = move |name: &&ObjectName| {
        let outline = outline(index, name).map(|outline| &*outline.ingress);
        let item = ingresses.find(name).map(|item| &*item.object);
        item.or(outline).and_then(class::class) == Some(&class.name)
    };
    ingresses.names().filter(depends).cloned()
}

#[cfg(test)]
mod tests;
