//! Builds a route table from a snapshot. Pure: no I/O and no clock.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast;

use ingress_model::{
    HostMap, HostPattern, Origin, PathKind, Problem, Route, RouteAction, Snapshot, Subject,
    TlsRedirect,
};

use super::lookup::{Entry, HostRoutes, RouteTable};
use crate::{
    metrics::{Registry, RouteLabels},
    upstream::Upstreams,
};

/// Upper bound of one compiled regex, in bytes. A pattern that needs more is refused.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

impl RouteTable {
    /// Compiles what the cluster says into what a worker looks up.
    ///
    /// Each route is compiled alone: one that cannot be becomes a problem and harms no other. Where
    /// two routes claim the same host and path, the older Ingress has it (ingress-nginx: creation
    /// time, on a tie the greater `namespace/name`) and the other one gets a problem.
    ///
    /// Endpoints are no part of it: an entry names its upstream, which `upstreams` has adopted from
    /// the same snapshot. What is counted for a route goes on from the last table in `metrics`.
    pub fn compile(
        snapshot: &Snapshot,
        upstreams: &Upstreams,
        metrics: &Registry,
    ) -> (Self, Vec<Problem>) {
        let mut compiler = Compiler {
            upstreams,
            metrics,
            tls: snapshot.tls_hosts.iter().map(|host| (host, ())).collect(),
            entries: Vec::new(),
            problems: Vec::new(),
        };

        let mut by_host: BTreeMap<&HostPattern, Vec<&Route>> = BTreeMap::new();
        for route in &snapshot.routes {
            by_host.entry(&route.host).or_default().push(route);
        }
        let mut table = Self::default();
        for (host, mut routes) in by_host {
            routes.sort_by_cached_key(|route| route.seniority());
            let routes = compiler.host(&routes);
            table.hosts.get_or_insert_with(host, || routes);
        }
        table.entries = compiler.entries;
        (table, compiler.problems)
    }
}

struct Compiler<'s> {
    upstreams: &'s Upstreams,
    metrics: &'s Registry,
    /// Hosts with a TLS entry.
    tls: HostMap<()>,
    entries: Vec<Arc<Entry>>,
    problems: Vec<Problem>,
}

impl Compiler<'_> {
    /// Compiles the routes of one host, oldest first.
    fn host(&mut self, routes: &[&Route]) -> HostRoutes {
        let regex_mode = routes.iter().any(|route| asks_for_regex(route));
        let mut compiled = HostRoutes::default();
        let mut claimed: AHashMap<(&str, Option<PathKind>), &Route> = AHashMap::new();
        let mut fallbacks = Vec::new();
        for &route in routes {
            if route.origin == Origin::DefaultBackend {
                fallbacks.push(route);
                continue;
            }
            let claim = claim(route, regex_mode);
            if let Some(owner) = claimed.get(&claim) {
                self.problems.push(already_claimed(route, owner));
                continue;
            }
            let Some(entry) = self.entry(route, regex_mode) else {
                continue;
            };
            claimed.insert(claim, route);
            match route.path.kind() {
                _ if regex_mode => compiled.regex.push(entry),
                PathKind::Exact => drop(compiled.exact.insert(claim.0.as_bytes().into(), entry)),
                PathKind::Prefix | PathKind::Regex => {
                    compiled.prefix.insert(claim.0.as_bytes(), entry)
                }
            }
        }
        // ingress-nginx: the longest text first, then byte order descending, then the oldest.
        compiled.regex.sort_by_key(|entry| {
            let path = entry.route.path.as_str();
            (Reverse(path.len()), Reverse(path.to_owned()))
        });
        compiled.fallback = fallbacks
            .into_iter()
            .filter_map(|route| self.entry(route, false))
            .collect();
        compiled
    }

    fn entry(&mut self, route: &Route, regex_mode: bool) -> Option<Arc<Entry>> {
        let regex = if regex_mode {
            Some(self.regex(route)?)
        } else {
            None
        };
        let upstream = Arc::clone(self.upstreams.find(&route.backend)?);
        let redirect_to_https = match route.policy.route.tls_redirect {
            TlsRedirect::Never => false,
            TlsRedirect::WithTls => self.tls.covers(&route.host),
            TlsRedirect::Always => true,
        };
        let entry = Arc::new(Entry {
            index: self.entries.len(),
            counters: self.metrics.route(labels(route)),
            route: route.clone(),
            upstream,
            redirect_to_https,
            regex,
        });
        self.entries.push(Arc::clone(&entry));
        Some(entry)
    }

    /// The regex of a rule's path; without one, a problem.
    ///
    /// A denied rule closes whatever its regex could have matched: if it fell away, the next rule
    /// that fits would open what its Ingress wanted protected.
    fn regex(&mut self, route: &Route) -> Option<Regex> {
        let path = route.path.as_str();
        let error = match compile_regex(path) {
            Ok(regex) => return Some(regex),
            Err(error) => error,
        };
        let mut message = format!("path is not a usable regex: {error}");
        let closed = match route.action {
            RouteAction::Forward => None,
            RouteAction::Deny(_) => {
                let start = literal_start(path);
                message.push_str(&format!("; all paths that begin with {start:?} get 503"));
                compile_regex(&regex::escape(start)).ok()
            }
        };
        self.problems
            .push(subject(route).error(field(route), message));
        closed
    }
}

fn labels(route: &Route) -> RouteLabels {
    RouteLabels {
        namespace: route.ingress.namespace.clone(),
        ingress: route.ingress.name.clone(),
        service: route.backend.service.name.clone(),
    }
}

/// Whether this route turns its whole host into regex mode (ingress-nginx: `use-regex`, or a
/// rewrite to something else than the path itself).
fn asks_for_regex(route: &Route) -> bool {
    let rewrites = route
        .policy
        .route
        .rewrite_target
        .as_deref()
        .is_some_and(|target| target != route.path.as_str());
    route.origin == Origin::Rule
        && (route.policy.route.use_regex || rewrites || route.path.kind() == PathKind::Regex)
}

/// What a rule takes for itself on its host.
///
/// `/foo` and `/foo/` are the same prefix (Kubernetes Ingress, "Examples"). In regex mode the kind
/// no longer tells two rules apart: both would be the same regex.
fn claim(route: &Route, regex_mode: bool) -> (&str, Option<PathKind>) {
    let path = route.path.as_str();
    match route.path.kind() {
        _ if regex_mode => (path, None),
        PathKind::Prefix => (
            path.strip_suffix('/').unwrap_or(path),
            Some(PathKind::Prefix),
        ),
        kind => (path, Some(kind)),
    }
}

/// nginx's `~* "^path"`: case is ignored and the end is open.
///
/// As in nginx, `.` is any byte and case is that of ASCII, so that paths which are not UTF-8 match
/// and can be rewritten. Only a class of other characters, such as `[é]`, has no meaning byte by
/// byte; such a regex is read as text.
fn compile_regex(path: &str) -> Result<Regex, RegexError> {
    let path = path.strip_prefix('^').unwrap_or(path);
    // Alone first: `/a)|(/b` must not end the group that the anchor needs.
    ast::parse::Parser::new()
        .parse(path)
        .map_err(|error| RegexError::Syntax(error.kind().to_string()))?;
    let build = |unicode| {
        RegexBuilder::new(&format!("^(?:{path})"))
            .case_insensitive(true)
            .unicode(unicode)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
    };
    build(false)
        .or_else(|error| build(true).map_err(|_| error))
        .map_err(RegexError::Build)
}

/// The text with which everything begins that a regex can match, whether it can be compiled or not.
fn literal_start(path: &str) -> &str {
    let path = path.strip_prefix('^').unwrap_or(path);
    if path.contains('|') {
        return "";
    }
    let Some(end) = path.find(META) else {
        return path;
    };
    let (start, rest) = path.split_at(end);
    let may_be_absent = rest.starts_with(['*', '?', '{']);
    let last = start.chars().next_back().map_or(0, char::len_utf8);
    let start = &start[..end - if may_be_absent { last } else { 0 }];
    // A longer one could need more memory than a regex may have.
    &start[..start.floor_char_boundary(256)]
}

/// What is not itself in a regex.
const META: [char; 14] = [
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// Why a path cannot be used as a regex.
#[derive(Debug, thiserror::Error)]
enum RegexError {
    /// It is not one by itself.
    #[error("{0}")]
    Syntax(String),
    /// It asks for too much memory, or for what bytes do not have.
    #[error(transparent)]
    Build(regex::Error),
}

fn already_claimed(route: &Route, owner: &Route) -> Problem {
    let message = format!(
        "host {} and path {} already belong to Ingress {}; this rule is ignored",
        route.host,
        route.path.as_str(),
        owner.ingress
    );
    subject(route).warning(field(route), message)
}

fn subject(route: &Route) -> Subject {
    Subject::object("Ingress", &route.ingress)
}

fn field(route: &Route) -> String {
    format!("spec.rules: {}{}", route.host, route.path.as_str())
}

#[cfg(test)]
mod tests;
