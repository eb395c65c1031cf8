//! One rule as workers use it.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::path::CanonicalPath;
use crate::{metrics::RouteMetrics, upstream::Upstream};
use ingress_model::{Action, Condition, Conditions, Rule};

/// One rule as workers use it.
#[derive(Debug)]
pub struct Entry {
    /// Where workers keep what belongs to it. Given again once the entry has left the table.
    pub(super) slot: usize,
    /// It has left the table.
    pub(super) retired: AtomicBool,
    /// The rule.
    pub rule: Rule,
    /// The upstreams of its targets, in their order; none if it does not forward. Their endpoints
    /// change without the table.
    pub(super) upstreams: Box<[Arc<Upstream>]>,
    /// The weights of its targets, added up; empty where there is no choice.
    pub(super) weights: Box<[u32]>,
    /// Its counters, separate for each worker.
    pub(crate) counters: Arc<RouteMetrics>,
    /// Whether plain HTTP gets 308 to https, from the annotations and the host's TLS entry.
    pub(super) redirect_to_https: bool,
}

/// What the conditions of a rule are held against.
pub(crate) trait Request {
    /// The method.
    fn method(&self) -> &[u8];

    /// Whether a header of this name, in lower case, has this value.
    fn has_header(&self, name: &[u8], value: &[u8]) -> bool;

    /// The query as it came.
    fn query(&self) -> Option<&str>;
}

/// Places for what workers keep of each entry.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    free: Vec<usize>,
    all: usize,
}

impl Slots {
    pub(super) fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.all += 1;
            self.all - 1
        })
    }

    pub(super) fn give_back(&mut self, slot: usize) {
        self.free.push(slot);
    }
}

impl Entry {
    /// Where workers keep what belongs to it.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Whether it has left the table: workers let go of it.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// The upstreams of its targets; none if it does not forward.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Whether plain HTTP gets 308 to https.
    pub fn redirects_to_https(&self) -> bool {
        self.redirect_to_https
    }

    /// Why requests get 503, before any redirect, where the rule is denied.
    pub fn denied(&self) -> Option<&str> {
        match &self.rule.action {
            Action::Deny(reason) => Some(reason),
            Action::Forward(_) | Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    /// Whether it has an answer other than 503 for want of endpoints.
    pub(super) fn can_answer(&self) -> bool {
        self.upstreams.is_empty()
            || self
                .upstreams
                .iter()
                .any(|upstream| upstream.has_endpoints())
    }

    /// The target that one request goes to, by weight: a place in its upstreams.
    pub(crate) fn choose(&self) -> usize {
        match self.weights.last() {
            None => 0,
            Some(&total) => {
                let point = fastrand::u32(..total);
                self.weights.partition_point(|&sum| sum <= point)
            }
        }
    }

    /// Whether a request meets its conditions.
    pub(super) fn meets(&self, request: &impl Request) -> bool {
        let conditions = &self.rule.conditions;
        conditions.is_empty() || meets(conditions, request)
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
        let target = self.rule.policy.rewrite_target.as_deref()?;
        let path = path.as_bytes();
        let captures = self.rule.regex.as_ref()?.captures(path)?;
        let mut rewritten = Vec::with_capacity(1 + target.len() + path.len());
        let mut bytes = target.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let digit = bytes.next_if(|next| byte == b'$' && next.is_ascii_digit());
            match digit {
                Some(digit) => {
                    let group = captures.get_group(usize::from(digit - b'0'));
                    let text = group.and_then(|group| path.get(group.range()));
                    rewritten.extend_from_slice(text.unwrap_or_default());
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

fn meets(conditions: &Conditions, request: &impl Request) -> bool {
    let Conditions {
        methods,
        headers,
        query,
    } = conditions;
    let method = |method: &str| method.as_bytes() == request.method();
    let header =
        |header: &Condition| request.has_header(header.name.as_bytes(), header.value.as_bytes());
    let pairs = || {
        request
            .query()
            .into_iter()
            .flat_map(|query| query.split('&'))
    };
    let parameter = |wanted: &Condition| {
        pairs().any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            *name == *wanted.name && *value == *wanted.value
        })
    };
    (methods.is_empty() || methods.iter().any(|own| method(own)))
        && headers.iter().all(header)
        && query.iter().all(parameter)
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
