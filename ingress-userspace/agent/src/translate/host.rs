//! All claims to one host → its rules: who wins what, and how paths match.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{
    claim::{Claim, Draft},
    patterns::Patterns,
};
use ingress_model::{
    Action, Conditions, HostPattern, HostPolicy, HostRules, PathKind, PathRegex, Problem, Rule,
    literal_start,
};

/// A rule on its way to its place.
struct Candidate<'c> {
    claim: &'c Claim,
    draft: &'c Draft,
    action: Action,
}

/// Ranks the rules of `host`; `claims` are all that name it, the oldest first.
///
/// Where two rules claim the same path, the older Ingress has it (ingress-nginx: creation time, on
/// a tie the greater `namespace/name`), and the other one gets a problem and no say: it does not
/// turn the host into regex mode either.
pub(super) fn rules(
    host: &HostPattern,
    claims: &[&Claim],
    policy: HostPolicy,
    patterns: &mut Patterns,
    problems: &mut Vec<Problem>,
) -> HostRules {
    let closers = Closers::new(host, claims);
    let mut candidates = Vec::new();
    for &claim in claims {
        for draft in claim.rules(host) {
            candidates.push(Candidate {
                claim,
                draft,
                action: action(host, claim, draft, &closers, problems),
            });
        }
    }
    let mut candidates = unique(host, candidates, path_and_kind, problems);
    let regex_mode = candidates
        .iter()
        .any(|candidate| asks_for_regex(candidate.draft));
    if regex_mode {
        // The kind no longer tells two rules apart: both would be the same regex.
        candidates = unique(
            host,
            candidates,
            |draft| (draft.path.as_str(), PathKind::Regex),
            problems,
        );
        // ingress-nginx: the longest text first, then byte order descending, then the oldest.
        candidates.sort_by_key(|candidate| {
            let path = candidate.draft.path.as_str();
            (Reverse(path.len()), Reverse(path))
        });
    }
    warn_unprotected(host, claims, &closers, problems);
    warn_merged(host, claims, &candidates, problems);
    let rules = candidates
        .into_iter()
        .filter_map(|candidate| rule(candidate, regex_mode, patterns, problems));
    HostRules {
        rules: rules.collect(),
        fallbacks: fallbacks(host, claims, &closers, problems),
        policy,
    }
}

/// What is told of those who want the host protected and cannot have it: once each, however many
/// are in their way.
fn warn_unprotected(
    host: &HostPattern,
    claims: &[&Claim],
    closers: &Closers<'_>,
    problems: &mut Vec<Problem>,
) {
    if closers.oldest.is_none() {
        return;
    }
    let is_open = |claim: &&&Claim| {
        let mut drafts = claim.rules(host).iter();
        drafts.any(|draft| !is_denied(&draft.action)) && closers.closing(claim).is_none()
    };
    let mut open = claims.iter().filter(is_open);
    let Some(first) = open.next() else { return };
    let which = match open.count() {
        0 => format!("Ingress {}", first.source.name),
        more => format!("Ingress {} and {more} more", first.source.name),
    };
    let message = format!(
        "host {host} is served without it by {which} of another namespace, which had the host first"
    );
    for by in claims.iter().filter(|by| closes(host, by).is_some()) {
        let problem = by
            .subject()
            .warning("metadata.annotations", message.as_str());
        problems.push(problem);
    }
}

/// What is told of paths that another namespace adds to a host: once each, however many paths. As in
/// ingress-nginx they count like those of the first Ingress that names the host.
fn warn_merged(
    host: &HostPattern,
    claims: &[&Claim],
    candidates: &[Candidate<'_>],
    problems: &mut Vec<Problem>,
) {
    let names = |claim: &&&Claim| claim.content.hosts.contains_key(host);
    let (false, Some(owner)) = (*host == HostPattern::Any, claims.iter().find(names)) else {
        return;
    };
    let own = &owner.source.name;
    let is_own =
        |candidate: &&Candidate<'_>| candidate.claim.source.name.namespace == own.namespace;
    let mut guests = BTreeMap::new();
    for guest in candidates.iter().filter(|candidate| !is_own(candidate)) {
        guests.insert(guest.claim.seniority(), guest.claim);
    }
    for guest in guests.into_values() {
        let message = format!(
            "host {host} belongs to Ingress {own}, which is older and in another namespace; paths are added to it"
        );
        problems.push(guest.subject().warning("spec.rules", message));
    }
    let mut asking = candidates
        .iter()
        .filter(|candidate| asks_for_regex(candidate.draft));
    if asking.clone().any(|candidate| is_own(&candidate)) {
        return;
    }
    if let Some(guest) = asking.next() {
        let message = format!(
            "Ingress {}, of another namespace, makes all paths of host {host} regexes: they are compared as prefixes, \
             without regard to case",
            guest.claim.source.name
        );
        problems.push(owner.subject().warning("spec.rules", message));
    }
}

/// What happens to a rule's requests: its own action, unless an Ingress denies the whole host.
fn action(
    host: &HostPattern,
    claim: &Claim,
    draft: &Draft,
    closers: &Closers<'_>,
    problems: &mut Vec<Problem>,
) -> Action {
    if is_denied(&draft.action) {
        return draft.action.clone();
    }
    let Some((by, reason)) = closers.closing(claim) else {
        return draft.action.clone();
    };
    let message = format!(
        "Ingress {} denies the whole host {host}; requests get 503",
        by.source.name
    );
    problems.push(claim.subject().error("spec.rules", message));
    Action::Deny(reason.into())
}

fn is_denied(action: &Action) -> bool {
    matches!(action, Action::Deny(_))
}

/// An Ingress that denies a whole host, and why.
type Closer<'c> = (&'c Claim, &'c str);

/// Those who deny a host: for a setting that nginx has once per server, such as client certificates.
///
/// In ingress-nginx any Ingress of a host can ask. Here one of another namespace cannot close a
/// host that an older Ingress serves: its owner never asked to have it protected. Nor can it close what
/// the namespace that had the host first adds to it later, be it for a minute, as whoever renews a
/// certificate does.
struct Closers<'c> {
    /// The namespace that had the host first.
    owner: Option<&'c str>,
    oldest: Option<Closer<'c>>,
    /// The oldest of each namespace.
    of: BTreeMap<&'c str, Closer<'c>>,
}

impl<'c> Closers<'c> {
    /// Of all that name the host, the oldest first.
    fn new(host: &HostPattern, claims: &[&'c Claim]) -> Self {
        let names = |claim: &&&Claim| claim.content.hosts.contains_key(host);
        let owner = claims.iter().find(names);
        let owner = owner.filter(|_| *host != HostPattern::Any);
        let mut closers = Self {
            owner: owner.map(|claim| claim.source.name.namespace.as_str()),
            oldest: None,
            of: BTreeMap::new(),
        };
        for &claim in claims {
            if let Some(reason) = closes(host, claim) {
                let namespace = claim.source.name.namespace.as_str();
                closers.oldest.get_or_insert((claim, reason));
                closers.of.entry(namespace).or_insert((claim, reason));
            }
        }
        closers
    }

    /// The oldest that denies the rules of `claim` too.
    fn closing(&self, claim: &Claim) -> Option<Closer<'c>> {
        let namespace = claim.source.name.namespace.as_str();
        let is_older = |(by, _): &Closer<'_>| by.seniority() < claim.seniority();
        let oldest = self.oldest.filter(|_| self.owner != Some(namespace));
        let of_namespace = || self.of.get(namespace).copied();
        oldest.filter(is_older).or_else(of_namespace)
    }
}

/// Why `claim` denies the whole host, if it does: only by a rule, as in ingress-nginx. A default
/// backend is its own business.
fn closes<'c>(host: &HostPattern, claim: &'c Claim) -> Option<&'c str> {
    let reason = claim.content.denies_hosts.as_deref();
    reason.filter(|_| claim.content.hosts.contains_key(host))
}

/// `/foo` and `/foo/` are the same prefix (Kubernetes Ingress, "Examples"). A regex is what became
/// of a prefix: ingress-nginx knows no third kind.
fn path_and_kind(draft: &Draft) -> (&str, PathKind) {
    let path = draft.path.as_str();
    match draft.path.kind() {
        PathKind::Exact => (path, PathKind::Exact),
        PathKind::Prefix | PathKind::Regex => {
            (path.strip_suffix('/').unwrap_or(path), PathKind::Prefix)
        }
    }
}

/// Leaves the first of those that claim the same.
fn unique<'c>(
    host: &HostPattern,
    candidates: Vec<Candidate<'c>>,
    claimed: impl Fn(&'c Draft) -> (&'c str, PathKind),
    problems: &mut Vec<Problem>,
) -> Vec<Candidate<'c>> {
    let mut owners: BTreeMap<(&str, PathKind), &Claim> = BTreeMap::new();
    let mut kept = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let key = claimed(candidate.draft);
        if let Some(owner) = owners.get(&key) {
            let message = format!(
                "host {host} and path {} already belong to Ingress {}; this rule is ignored",
                candidate.draft.path.as_str(),
                owner.source.name
            );
            let subject = candidate.claim.subject();
            problems.push(subject.warning(&*candidate.draft.field, message));
            continue;
        }
        owners.insert(key, candidate.claim);
        kept.push(candidate);
    }
    kept
}

/// Whether a rule turns its whole host into regex mode (ingress-nginx: `use-regex`, or a rewrite to
/// something else than the path itself).
fn asks_for_regex(draft: &Draft) -> bool {
    let target = draft.policy.rewrite_target.as_deref();
    let rewrites = target.is_some_and(|target| target != draft.path.as_str());
    draft.policy.use_regex || rewrites || draft.path.kind() == PathKind::Regex
}

fn rule(
    candidate: Candidate<'_>,
    regex_mode: bool,
    patterns: &mut Patterns,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let Candidate {
        claim,
        draft,
        action,
    } = candidate;
    let mut regex = None;
    if regex_mode {
        let path = draft.path.as_str();
        let start = literal_start(path);
        // Most hosts in regex mode have only a few paths that are regexes. The others take no room:
        // else whoever turns a host into regex mode could use up that of its owner.
        let compiled = if start == path && draft.policy.rewrite_target.is_none() {
            Ok(PathRegex::literal(path))
        } else {
            patterns.compile(path, claim)
        };
        regex = match compiled {
            Ok(regex) => Some(regex),
            Err(error) => {
                let mut message = format!("path is not a usable regex: {error}");
                let mut stays = None;
                if is_denied(&action) {
                    // A denied rule closes whatever its regex could have matched: if it fell away,
                    // the next rule that fits would open what its Ingress wanted protected.
                    message.push_str(&format!("; all paths that begin with {start:?} get 503"));
                    stays = Some(PathRegex::literal(start));
                } else if !asks_for_regex(draft) {
                    // Another Ingress turned the host into regex mode.
                    message.push_str("; it is compared as text");
                    stays = Some(PathRegex::literal(path));
                }
                problems.push(claim.subject().error(&*draft.field, message));
                Some(stays?)
            }
        };
    }
    Some(Rule {
        source: Arc::clone(&claim.source),
        path: draft.path.clone(),
        regex,
        conditions: Conditions::default(),
        policy: Arc::clone(&draft.policy),
        action,
    })
}

/// Default backends: of a named host that of the first Ingress to name it, as in ingress-nginx; of
/// hosts that nobody names all of them, oldest first.
fn fallbacks(
    host: &HostPattern,
    claims: &[&Claim],
    closers: &Closers<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let names = |claim: &&&Claim| claim.content.hosts.contains_key(host);
    let drafts: Vec<_> = match host {
        HostPattern::Any => claims
            .iter()
            .filter_map(|claim| Some((*claim, claim.content.catch_all.as_ref()?)))
            .collect(),
        _ => claims
            .iter()
            .find(names)
            .and_then(|claim| Some((*claim, claim.content.fallback.as_ref()?)))
            .into_iter()
            .collect(),
    };
    drafts
        .into_iter()
        .map(|(claim, draft)| Rule {
            source: Arc::clone(&claim.source),
            path: draft.path.clone(),
            regex: None,
            conditions: Conditions::default(),
            policy: Arc::clone(&draft.policy),
            action: action(host, claim, draft, closers, problems),
        })
        .collect()
}
