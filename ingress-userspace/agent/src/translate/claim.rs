//! What one Ingress claims: rules by host, TLS entries, and what is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::networking::v1::Ingress;

use super::{super::kept::Item, few::Few};
use ingress_model::{
    Action, BackendKey, HostPattern, ObjectName, ObjectRef, PathPattern, Problem, RoutePolicy,
    Seniority, Subject,
};

/// An Ingress that is ours to serve, translated by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) source: Arc<ObjectRef>,
    /// Seconds since the Unix epoch; 0 where a manifest does not say.
    pub(super) created: i64,
    /// `path:line` in a folder.
    pub(super) file: Option<Arc<str>>,
    pub(super) content: Content,
    /// What it said before, where it is denied and has a value that cannot be read: that counts again
    /// once nothing denies it.
    pub(super) last_good: Option<Box<Content>>,
    /// There is no room for its rules: it only keeps its hosts.
    pub(super) is_refused: bool,
}

/// What an Ingress says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Its rules by host. A host without rules is one whose rules cannot be served: it is kept, so
    /// that nobody's wildcard answers for it.
    pub(super) hosts: Few<HostPattern, Vec<Draft>>,
    /// `spec.defaultBackend` for the hosts of its rules.
    pub(super) fallback: Option<Draft>,
    /// `spec.defaultBackend` for hosts that nobody names.
    pub(super) catch_all: Option<Draft>,
    pub(super) tls: Tls,
    /// Why all of its hosts must be denied, not only its own rules.
    pub(super) denies_hosts: Option<Box<str>>,
    /// The backends of its rules, and the first field that names each.
    pub(super) backends: Few<BackendKey, Box<str>>,
}

/// A rule before the rules of its host are ranked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) path: PathPattern,
    pub(super) policy: Arc<RoutePolicy>,
    pub(super) action: Action,
    /// Where it is written.
    pub(super) field: Box<str>,
}

/// `spec.tls`, so that what it says of one host is found without a look at every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    entries: Box<[TlsEntry]>,
    /// The first entry that lists a host which the Ingress has rules for.
    listed: Few<HostPattern, usize>,
    /// The first entry of each Secret, in their order.
    distinct: Box<[usize]>,
    /// The first entry that lists no host: it is meant for all of the Ingress.
    for_all: Option<usize>,
}

/// One entry of `spec.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsEntry {
    /// In the Ingress's own namespace: a name is never looked up elsewhere.
    pub(super) secret: Option<ObjectName>,
    /// Where it is written.
    pub(super) field: String,
}

impl Tls {
    /// Of each entry the hosts that it lists and the Ingress has rules for, and whether it lists none.
    pub(super) fn of(entries: Vec<(BTreeSet<HostPattern>, bool, TlsEntry)>) -> Self {
        let (mut listed, mut secrets) = (BTreeMap::new(), BTreeSet::new());
        let mut distinct = Vec::new();
        let mut for_all = None;
        for (at, (hosts, lists_none, entry)) in entries.iter().enumerate() {
            for host in hosts {
                listed.entry(host.clone()).or_insert(at);
            }
            if *lists_none {
                for_all.get_or_insert(at);
            }
            if entry
                .secret
                .as_ref()
                .is_some_and(|secret| secrets.insert(secret))
            {
                distinct.push(at);
            }
        }
        Self {
            listed: listed.into(),
            distinct: distinct.into(),
            for_all,
            entries: entries.into_iter().map(|(.., entry)| entry).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry that lists `host`.
    pub(super) fn listing(&self, host: &HostPattern) -> Option<&TlsEntry> {
        self.entries.get(*self.listed.get(host)?)
    }

    /// The first entry of each Secret, in their order.
    pub(super) fn distinct(&self) -> impl Iterator<Item = &TlsEntry> {
        self.distinct.iter().filter_map(|at| self.entries.get(*at))
    }

    /// The one of them at that place.
    pub(super) fn distinct_at(&self, place: usize) -> Option<&TlsEntry> {
        self.entries.get(*self.distinct.get(place)?)
    }

    /// The first entry that lists no host.
    pub(super) fn for_all(&self) -> Option<&TlsEntry> {
        self.entries.get(self.for_all?)
    }
}

impl Content {
    /// How many rules it has; a host without any counts as one.
    pub(super) fn size(&self) -> usize {
        let rules = self.hosts.values().map(|drafts| drafts.len().max(1));
        rules.sum::<usize>() + usize::from(self.catch_all.is_some())
    }

    /// Whether it says anything but which hosts it has.
    pub(super) fn says_something(&self) -> bool {
        let mut drafts = self.hosts.values().flatten();
        drafts.next().is_some()
            || self.fallback.is_some()
            || self.catch_all.is_some()
            || self.denies_hosts.is_some()
    }

    fn restricts_access(&self) -> bool {
        let drafts = self.hosts.values().flatten();
        let mut drafts = drafts.chain(&self.fallback);
        self.denies_hosts.is_some() || drafts.any(|draft| matches!(draft.action, Action::Deny(_)))
    }

    /// Whether all says the same that is no rule for one host.
    pub(super) fn differs_in_rules_alone(&self, other: &Self) -> bool {
        let Self {
            hosts: _,
            backends: _,
            fallback,
            catch_all,
            tls,
            denies_hosts,
        } = self;
        (fallback, catch_all, tls, denies_hosts)
            == (
                &other.fallback,
                &other.catch_all,
                &other.tls,
                &other.denies_hosts,
            )
    }

    /// Keeps the hosts and nothing else: nobody's wildcard shall answer for them.
    pub(super) fn serve_nothing(&mut self) {
        let mut hosts = std::mem::take(&mut self.hosts);
        hosts.values_mut().for_each(Vec::clear);
        *self = Self {
            hosts,
            ..Self::default()
        };
    }
}

impl Claim {
    /// An Ingress of which nothing is known but that it is ours, and which hosts it names.
    pub(super) fn closed(name: &ObjectName, item: &Item<Ingress>) -> Self {
        let rules = item
            .object
            .spec
            .iter()
            .flat_map(|spec| &spec.rules)
            .flatten();
        let hosts = rules.filter_map(|rule| {
            let host = rule.host.as_deref().unwrap_or_default();
            host.parse::<HostPattern>().ok()
        });
        let hosts: BTreeMap<_, _> = hosts.map(|host| (host, Vec::new())).collect();
        let mut claim = Self::empty(name, item);
        claim.content.hosts = hosts.into();
        claim
    }

    /// An Ingress of which nothing is known but that it is ours.
    pub(super) fn empty(name: &ObjectName, item: &Item<Ingress>) -> Self {
        let created = item.object.metadata.creation_timestamp.as_ref();
        Self {
            source: Arc::new(item.reference(name)),
            created: created.map_or(0, |time| time.0.as_second()),
            file: item.file.clone(),
            content: Content::default(),
            last_good: None,
            is_refused: false,
        }
    }

    /// Serves none of its rules, for want of room. If one restricts access, nothing that its namespace says is
    /// served on its hosts: it could be what that rule is to protect.
    pub(super) fn refuse(&mut self) {
        let whole = self.content.clone();
        self.content.serve_nothing();
        if whole.restricts_access() {
            let reason = "there is no room for an Ingress of this host that restricts access";
            self.content.denies_hosts = Some(reason.into());
        }
        self.last_good.get_or_insert_with(|| Box::new(whole));
        self.is_refused = true;
    }

    pub(super) fn seniority(&self) -> Seniority {
        Seniority::new(self.created, self.source.name.clone())
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::object(&self.source).read_from(self.file.as_deref())
    }

    /// The hosts whose rules depend on it.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        let any = self.content.catch_all.as_ref().map(|_| &HostPattern::Any);
        self.content.hosts.keys().chain(any)
    }

    /// The Secrets that it names, each once.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &ObjectName> {
        let entries = self.content.tls.distinct();
        entries.filter_map(|entry| entry.secret.as_ref())
    }

    /// The hosts whose rules are others than `before` made them.
    pub(super) fn hosts_unlike<'c>(&'c self, before: &'c Self) -> Vec<&'c HostPattern> {
        let all = |claim: &'c Self| claim.hosts();
        let same = self.source == before.source
            && self.created == before.created
            && self.file == before.file
            && self.is_refused == before.is_refused
            && self.content.differs_in_rules_alone(&before.content);
        if !same {
            return all(self).chain(all(before)).collect();
        }
        let (now, then) = (&self.content.hosts, &before.content.hosts);
        let changed = now
            .iter()
            .filter(|(host, rules)| then.get(host) != Some(rules));
        let gone = then.keys().filter(|host| !now.contains_key(host));
        changed.map(|(host, _)| host).chain(gone).collect()
    }

    /// Its rules for `host`.
    pub(super) fn rules(&self, host: &HostPattern) -> &[Draft] {
        self.content.hosts.get(host).map_or(&[], Vec::as_slice)
    }
}

/// What became of one Ingress.
pub(super) struct Translated {
    pub(super) claim: Claim,
    pub(super) problems: Vec<Problem>,
    /// It has a value for which no default would be safe: its last good version stays in force.
    pub(super) spoiled: bool,
    /// Unless it is denied: closed as it asks now is better than open as it was.
    pub(super) denied: bool,
}
