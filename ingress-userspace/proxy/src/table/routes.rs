//! The rules of one host, as they are looked up.

use std::sync::Arc;

use ahash::AHashMap;

use super::entry::{Entry, Request};
use ingress_model::{HostRules, PathKind};

/// The rules of one host.
#[derive(Debug)]
pub(super) struct HostRoutes {
    /// What it was compiled from.
    pub(super) rules: Arc<HostRules>,
    /// Every entry: the rules in their order, then the default backends.
    pub(super) entries: Vec<Arc<Entry>>,
    /// Whole paths, without regex mode.
    exact: AHashMap<Box<[u8]>, Candidates>,
    /// Prefixes by their segments, without regex mode.
    prefix: PrefixTree,
    /// In regex mode, in the order in which they are tried.
    regex: Vec<Arc<Entry>>,
    /// For requests that no rule fits, in order of precedence.
    fallback: Vec<Arc<Entry>>,
}

/// Rules of one path that differ in their conditions, in order of precedence.
#[derive(Debug, Default)]
struct Candidates {
    /// Most paths have one rule.
    first: Option<Arc<Entry>>,
    others: Vec<Arc<Entry>>,
}

impl Candidates {
    fn push(&mut self, entry: Arc<Entry>) {
        match &self.first {
            None => self.first = Some(entry),
            Some(_) => self.others.push(entry),
        }
    }

    fn find(&self, request: &impl Request) -> Option<&Arc<Entry>> {
        let fits = |entry: &&Arc<Entry>| entry.meets(request);
        let first = self.first.as_ref();
        first.filter(fits).or_else(|| self.others.iter().find(fits))
    }
}

impl HostRoutes {
    /// Puts the rules of a host into their places; `entry` makes what workers use of one.
    pub(super) fn new(
        rules: Arc<HostRules>,
        mut entry: impl FnMut(&ingress_model::Rule) -> Arc<Entry>,
    ) -> Self {
        let mut routes = Self {
            rules: Arc::clone(&rules),
            entries: Vec::with_capacity(rules.rules.len() + rules.fallbacks.len()),
            exact: AHashMap::new(),
            prefix: PrefixTree::default(),
            regex: Vec::new(),
            fallback: Vec::new(),
        };
        for rule in &rules.rules {
            let entry = entry(rule);
            routes.entries.push(Arc::clone(&entry));
            let path = rule.path.as_str().as_bytes();
            match rule.path.kind() {
                _ if rule.regex.is_some() => routes.regex.push(entry),
                PathKind::Exact => routes.exact.entry(path.into()).or_default().push(entry),
                PathKind::Prefix | PathKind::Regex => routes.prefix.insert(path, entry),
            }
        }
        for rule in &rules.fallbacks {
            let entry = entry(rule);
            routes.entries.push(Arc::clone(&entry));
            routes.fallback.push(entry);
        }
        routes
    }

    pub(super) fn lookup(&self, path: &[u8], request: &impl Request) -> Option<&Arc<Entry>> {
        let by_regex = || {
            let fits = |entry: &&Arc<Entry>| {
                let regex = entry.rule.regex.as_ref();
                regex.is_some_and(|regex| regex.is_match(path)) && entry.meets(request)
            };
            self.regex.iter().find(fits)
        };
        self.exact
            .get(path)
            .and_then(|candidates| candidates.find(request))
            .or_else(|| self.prefix.longest(path, request))
            .or_else(by_regex)
            .or_else(|| self.fallback())
    }

    /// The first default backend that has an endpoint, else the first. A denied one needs none.
    fn fallback(&self) -> Option<&Arc<Entry>> {
        let mut entries = self.fallback.iter();
        entries
            .find(|entry| entry.can_answer())
            .or_else(|| self.fallback.first())
    }
}

/// Prefix rules of one host as a tree of path segments.
///
/// A look-up walks down once and hashes each segment once, so its cost is linear in the path and
/// ends where no rule goes deeper. Hashing every prefix of the path anew would be quadratic: a 30
/// KB path of slashes cost 15 ms.
#[derive(Debug, Default)]
struct PrefixTree {
    candidates: Candidates,
    children: AHashMap<Box<[u8]>, PrefixTree>,
}

impl PrefixTree {
    /// Adds a rule for `path`; `/foo` and `/foo/` are the same path.
    fn insert(&mut self, path: &[u8], entry: Arc<Entry>) {
        segments(path)
            .fold(self, |node, segment| {
                node.children.entry(segment.into()).or_default()
            })
            .candidates
            .push(entry);
    }

    /// The rule with the most segments that begins `path`, whole segments only, and whose conditions
    /// are met.
    fn longest(&self, path: &[u8], request: &impl Request) -> Option<&Arc<Entry>> {
        let mut node = self;
        let mut longest = self.candidates.find(request);
        for segment in segments(path) {
            #[cfg(test)]
            HASHED_BYTES.with(|hashed| hashed.set(hashed.get() + segment.len()));
            let Some(child) = node.children.get(segment) else {
                break;
            };
            node = child;
            longest = child.candidates.find(request).or(longest);
        }
        longest
    }
}

/// `/a/b` and `/a/b/` have the segments `a` and `b`; `/` has none.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.split(|&byte| byte == b'/')
        .filter(move |_| !path.is_empty())
}

#[cfg(test)]
thread_local! {
    /// What look-ups of this thread have hashed.
    pub(super) static HASHED_BYTES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
