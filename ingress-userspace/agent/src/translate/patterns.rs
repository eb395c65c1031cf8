//! Regexes of paths, compiled once for all hosts, and how much memory whose may take.

use std::collections::BTreeMap;

use ingress_model::{PathRegex, PathRegexError};

use super::claim::Claim;

/// Heap bytes that the patterns of one namespace may take, each counted once.
const NAMESPACE_LIMIT: usize = 32 << 20;

/// Heap bytes that all patterns may take.
const LIMIT: usize = 128 << 20;

/// Bytes of paths without a usable regex that are remembered per namespace: a few Ingresses of the
/// largest size.
const UNUSABLE_LIMIT: usize = 8 << 20;

/// Unused regexes are looked for once in this many changes.
const SOME: u64 = 256;

/// Every regex in use.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// By namespace, then by text. A namespace pays for what it names even if another has the same:
    /// else it would depend on others whether a rule can be served.
    compiled: BTreeMap<String, Namespace>,
    total: usize,
    calls: u64,
    /// Since [`take_refused`](Self::take_refused).
    refused: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    regexes: BTreeMap<Box<str>, PathRegex>,
    memory: usize,
    /// One was refused since room was last made. No other is compiled just to see if it fits: a
    /// host has thousands of them, and is ranked with each change.
    full: bool,
    /// Those that cannot be compiled, why, and when each was asked for last: it takes about a
    /// millisecond to find out that one is too large.
    unusable: BTreeMap<Box<str>, (PathRegexError, u64)>,
    unusable_bytes: usize,
}

/// Why a path has no regex.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    /// It cannot be compiled.
    #[error(transparent)]
    Regex(#[from] PathRegexError),
    /// There is no room.
    #[error("the regexes of namespace {namespace} take more than {} MiB", NAMESPACE_LIMIT >> 20)]
    Namespace {
        /// Whose rule it is.
        namespace: String,
    },
    /// There is no room at all.
    #[error("the regexes of all namespaces take more than {} MiB", LIMIT >> 20)]
    All,
}

impl Patterns {
    /// The regex of a rule's path; the first rule of a namespace that has this path pays for it.
    pub(super) fn compile(&mut self, path: &str, claim: &Claim) -> Result<PathRegex, PatternError> {
        let name = &claim.source.name.namespace;
        if let Some(regex) = self
            .compiled
            .get(name)
            .and_then(|namespace| namespace.regexes.get(path))
        {
            return Ok(regex.clone());
        }
        let calls = self.calls;
        let own = self.compiled.get_mut(name);
        if let Some((error, asked)) = own.and_then(|own| own.unusable.get_mut(path)) {
            *asked = calls;
            return Err(error.clone().into());
        }
        let is_full = self.compiled.get(name).is_some_and(|own| own.full);
        if is_full {
            return Err(self.refuse(name));
        }
        let regex = PathRegex::new(path).inspect_err(|error| {
            let own = self.compiled.entry(name.clone()).or_default();
            own.unusable_bytes += path.len();
            if own.unusable_bytes > UNUSABLE_LIMIT {
                own.unusable.clear();
                own.unusable_bytes = path.len();
            }
            own.unusable.insert(path.into(), (error.clone(), calls));
        })?;
        let memory = regex.memory() + path.len();
        if !self.has_room(name, memory) {
            self.make_room();
        }
        if !self.has_room(name, memory) {
            return Err(self.refuse(name));
        }
        let namespace = self.compiled.entry(name.clone()).or_default();
        namespace.memory += memory;
        self.total += memory;
        namespace.regexes.insert(path.into(), regex.clone());
        Ok(regex)
    }

    fn has_room(&self, namespace: &str, memory: usize) -> bool {
        let own = self.compiled.get(namespace).map_or(0, |own| own.memory);
        own + memory <= NAMESPACE_LIMIT && self.total + memory <= LIMIT
    }

    fn refuse(&mut self, namespace: &str) -> PatternError {
        self.refused = true;
        let own = self.compiled.entry(namespace.to_owned()).or_default();
        own.full = true;
        // Whoever is nowhere near its own limit hears of the other one.
        if own.memory > NAMESPACE_LIMIT / 2 {
            PatternError::Namespace {
                namespace: namespace.to_owned(),
            }
        } else {
            PatternError::All
        }
    }

    /// Whether a regex was refused for want of room since this was last asked.
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Frees what no rule has any more, now and then: a look at all costs more than most changes.
    pub(super) fn forget_some(&mut self) {
        self.calls += 1;
        if self.calls.is_multiple_of(SOME) {
            for namespace in self.compiled.values_mut() {
                let unusable = &mut namespace.unusable;
                unusable.retain(|_, (_, asked)| *asked + SOME > self.calls);
                namespace.unusable_bytes = unusable.keys().map(|path| path.len()).sum();
            }
            self.make_room();
        }
    }

    /// Frees what no rule has any more; whether that was anything.
    pub(super) fn make_room(&mut self) -> bool {
        let before = self.total;
        let total = &mut self.total;
        for namespace in self.compiled.values_mut() {
            let memory = &mut namespace.memory;
            namespace.regexes.retain(|path, regex| {
                let stays = regex.is_shared();
                if !stays {
                    let freed = regex.memory() + path.len();
                    *memory -= freed;
                    *total -= freed;
                }
                stays
            });
        }
        let freed = self.total < before;
        if freed {
            for namespace in self.compiled.values_mut() {
                namespace.full = false;
            }
        }
        self.compiled
            .retain(|_, own| own.full || !own.regexes.is_empty() || !own.unusable.is_empty());
        freed
    }
}
