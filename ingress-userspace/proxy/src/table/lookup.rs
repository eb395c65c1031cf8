//! Finds the route of a request.

use std::{borrow::Cow, sync::Arc};

use ahash::AHashMap;
use regex::bytes::Regex;

use ingress_model::{HostMap, Route, RouteAction};

use super::{host::CanonicalHost, path::CanonicalPath};
use crate::{metrics::RouteMetrics, upstream::Upstream};

/// All routes of one snapshot. Immutable; the same snapshot gives the same table.
#[derive(Debug, Default)]
pub struct RouteTable {
    pub(super) hosts: HostMap<HostRoutes>,
    pub(super) entries: Vec<Arc<Entry>>,
}

/// One route as a worker uses it.
#[derive(Debug)]
pub struct Entry {
    /// Place in [`RouteTable::entries`].
    pub(super) index: usize,
    /// The route.
    pub route: Route,
    /// The upstream, shared by all routes to the same Service port. Its endpoints change without
    /// the table.
    pub upstream: Arc<Upstream>,
    /// Its counters, separate for each worker.
    pub counters: Arc<RouteMetrics>,
    /// Whether plain HTTP gets 308 to https, from the annotations and the host's TLS entry.
    pub redirect_to_https: bool,
    /// The rule's path as a case-insensitive regex, where the host is in regex mode.
    pub(super) regex: Option<Regex>,
}

/// The routes of one host.
#[derive(Debug, Default)]
pub(super) struct HostRoutes {
    /// Whole paths, without regex mode.
    pub(super) exact: AHashMap<Box<[u8]>, Arc<Entry>>,
    /// Prefixes by their segments, without regex mode.
    pub(super) prefix: PrefixTree,
    /// In regex mode, in the order in which they are tried.
    pub(super) regex: Vec<Arc<Entry>>,
    /// `spec.defaultBackend`, when no rule fits: the oldest Ingress first.
    pub(super) fallback: Vec<Arc<Entry>>,
}

impl RouteTable {
    /// Finds the route for a request; `None` means 404.
    ///
    /// An exact host takes precedence over a wildcard, a wildcard over rules without a host; only
    /// the first match counts. Then the longest path wins, `Exact` before `Prefix`.
    ///
    /// Source: Kubernetes Ingress, "Multiple matches"; the host rule is that of ingress-nginx.
    pub(crate) fn lookup(
        &self,
        host: &CanonicalHost<'_>,
        path: &CanonicalPath<'_>,
    ) -> Option<&Arc<Entry>> {
        self.hosts.find(host.as_str())?.lookup(path.as_bytes())
    }

    /// All routes, in an order that is stable for one snapshot.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
}

impl HostRoutes {
    /// The oldest default backend that has an endpoint, else the oldest. A denied one needs none.
    fn fallback(&self) -> Option<&Arc<Entry>> {
        let mut entries = self.fallback.iter();
        let can_answer =
            |entry: &&Arc<Entry>| entry.denied().is_some() || entry.upstream.has_endpoints();
        entries.find(can_answer).or_else(|| self.fallback.first())
    }

    fn lookup(&self, path: &[u8]) -> Option<&Arc<Entry>> {
        let by_regex = || {
            self.regex.iter().find(|entry| {
                entry
                    .regex
                    .as_ref()
                    .is_some_and(|regex| regex.is_match(path))
            })
        };
        self.exact
            .get(path)
            .or_else(|| self.prefix.longest(path))
            .or_else(by_regex)
            .or_else(|| self.fallback())
    }
}

/// Prefix rules of one host as a tree of path segments.
///
/// A look-up walks down once and hashes each segment once, so its cost is linear in the path and
/// ends where no rule goes deeper. Hashing every prefix of the path anew would be quadratic: a 30
/// KB path of slashes cost 15 ms.
#[derive(Debug, Default)]
pub(super) struct PrefixTree {
    entry: Option<Arc<Entry>>,
    children: AHashMap<Box<[u8]>, PrefixTree>,
}

impl PrefixTree {
    /// Adds a rule for `path`; `/foo` and `/foo/` are the same rule.
    pub(super) fn insert(&mut self, path: &[u8], entry: Arc<Entry>) {
        segments(path)
            .fold(self, |node, segment| {
                node.children.entry(segment.into()).or_default()
            })
            .entry = Some(entry);
    }

    /// The rule with the most segments that begins `path`: whole segments only.
    fn longest(&self, path: &[u8]) -> Option<&Arc<Entry>> {
        let mut node = self;
        let mut longest = self.entry.as_ref();
        for segment in segments(path) {
            #[cfg(test)]
            HASHED_BYTES.with(|hashed| hashed.set(hashed.get() + segment.len()));
            let Some(child) = node.children.get(segment) else {
                break;
            };
            node = child;
            longest = child.entry.as_ref().or(longest);
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

impl Entry {
    /// Place in [`RouteTable::entries`].
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Why requests get 503, before any redirect, where the route is denied.
    pub fn denied(&self) -> Option<&str> {
        match &self.route.action {
            RouteAction::Forward => None,
            RouteAction::Deny(reason) => Some(reason),
        }
    }

    /// The path that goes upstream: the raw one, or the target of a rewrite with its captures,
    /// escaped again byte by byte (RFC 3986 section 3.3).
    ///
    /// A rewrite replaces the whole path, wherever the rule's path matches.
    pub(crate) fn upstream_path<'p>(&self, raw: &'p str, path: &CanonicalPath<'_>) -> Cow<'p, str> {
        match self.rewrite(path) {
            None => Cow::Borrowed(raw),
            Some(rewritten) => {
                Cow::Owned(percent_encoding::percent_encode(&rewritten, ESCAPED).to_string())
            }
        }
    }

    fn rewrite(&self, path: &CanonicalPath<'_>) -> Option<Vec<u8>> {
        let target = self.route.policy.route.rewrite_target.as_deref()?;
        let captures = self.regex.as_ref()?.captures(path.as_bytes())?;
        let mut rewritten = Vec::with_capacity(1 + target.len() + path.as_bytes().len());
        let mut bytes = target.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let digit = bytes.next_if(|next| byte == b'$' && next.is_ascii_digit());
            match digit {
                Some(digit) => {
                    let group = captures.get(usize::from(digit - b'0'));
                    rewritten.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                }
                None => rewritten.push(byte),
            }
        }
        if !rewritten.starts_with(b"/") {
            rewritten.insert(0, b'/');
        }
        Some(rewritten)
    }
}

/// What a path segment may not carry raw. `/` stays: captures span segments.
const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
