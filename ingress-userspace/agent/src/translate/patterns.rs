//! Regexes of paths, compiled once for all hosts, and how much memory whose may take.

use std::collections::BTreeMap;

use ingress_model::{PathRegex, PathRegexError};

use super::claim::Claim;

/// Heap bytes that the patterns of one namespace may take, each counted once.
const NAMESPACE_LIMIT: usize = 32 << 20;

/// Heap bytes that all patterns may take.
const LIMIT: usize = 128 << 20;

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
}

#[derive(Debug, Default)]
struct Namespace {
    regexes: BTreeMap<Box<str>, PathRegex>,
    memory: usize,
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
        let regex = PathRegex::new(path)?;
        let memory = regex.memory() + path.len();
        let taken = |patterns: &Self| {
            let namespace = patterns.compiled.get(name);
            namespace.map_or(0, |namespace| namespace.memory)
        };
        if taken(self) + memory > NAMESPACE_LIMIT || self.total + memory > LIMIT {
            self.forget_unused();
        }
        let namespace = self.compiled.entry(name.clone()).or_default();
        if namespace.memory + memory > NAMESPACE_LIMIT {
            return Err(PatternError::Namespace {
                namespace: name.clone(),
            });
        }
        if self.total + memory > LIMIT {
            return Err(PatternError::All);
        }
        namespace.memory += memory;
        self.total += memory;
        namespace.regexes.insert(path.into(), regex.clone());
        Ok(regex)
    }

    /// Frees what no rule has any more, now and then: a look at all costs more than most changes.
    pub(super) fn forget_some(&mut self) {
        self.calls += 1;
        if self.calls.is_multiple_of(SOME) {
            self.forget_unused();
        }
    }

    fn forget_unused(&mut self) {
        let total = &mut self.total;
        self.compiled.retain(|_, namespace| {
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
            !namespace.regexes.is_empty()
        });
    }
}
