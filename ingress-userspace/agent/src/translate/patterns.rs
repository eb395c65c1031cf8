//! Regexes of paths, compiled once for all hosts, and how much memory whose may take.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ingress_model::{ObjectName, ObjectRef, PathRegex, PathRegexError};

use super::claim::Claim;

/// Heap bytes that the patterns of one Ingress may take: half of what its namespace has, so that one
/// Ingress leaves room to the others. The idiom `/api(/|$)(.*)` fits in three thousand times.
const INGRESS_LIMIT: usize = 16 << 20;

/// Heap bytes that the patterns of one namespace may take, each counted once.
const NAMESPACE_LIMIT: usize = 32 << 20;

/// Heap bytes that all patterns may take.
const LIMIT: usize = 128 << 20;

/// The part of them that is left to namespaces with a few: whoever has several namespaces, and fills
/// each, must not take the room of all others.
const RESERVED: usize = 32 << 20;

/// Heap bytes of such a namespace: two hundred patterns of the everyday kind.
const FEW: usize = 1 << 20;

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
    regexes: BTreeMap<Box<str>, Paid>,
    memory: usize,
    /// Of each Ingress that pays for some.
    of_ingresses: BTreeMap<String, usize>,
    /// One was refused since room was last made. No other is compiled just to see if it fits: a
    /// host has thousands of them, and is ranked with each change.
    full: bool,
    /// The same of single Ingresses.
    full_ingresses: BTreeSet<String>,
    /// Those that cannot be compiled, why, and when each was asked for last: it takes about a
    /// millisecond to find out that one is too large.
    unusable: BTreeMap<Box<str>, (PathRegexError, u64)>,
    unusable_bytes: usize,
}

/// A regex, and who pays for it.
#[derive(Debug)]
struct Paid {
    regex: PathRegex,
    /// The Ingress whose rule had it first.
    by: Arc<ObjectRef>,
}

/// Whose room there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Ingress,
    Namespace,
    All,
}

/// Why a path has no regex.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternError {
    /// It cannot be compiled.
    #[error(transparent)]
    Regex(#[from] PathRegexError),
    /// The Ingress has no room.
    #[error("the regexes of Ingress {ingress} take more than {} MiB", INGRESS_LIMIT >> 20)]
    Ingress {
        /// Whose rule it is.
        ingress: ObjectName,
    },
    /// Its namespace has none.
    #[error("the regexes of namespace {namespace} take more than {} MiB", NAMESPACE_LIMIT >> 20)]
    Namespace {
        /// Whose rule it is.
        namespace: String,
    },
    /// There is no room at all.
    #[error("the regexes of all namespaces take more than {} MiB", (LIMIT - RESERVED) >> 20)]
    All,
}

impl Patterns {
    /// The regex of a rule's path; the first rule of a namespace that has this path pays for it.
    pub(super) fn compile(&mut self, path: &str, claim: &Claim) -> Result<PathRegex, PatternError> {
        let source = &claim.source.name;
        let name = &source.namespace;
        if let Some(paid) = self
            .compiled
            .get(name)
            .and_then(|namespace| namespace.regexes.get(path))
        {
            return Ok(paid.regex.clone());
        }
        let calls = self.calls;
        let own = self.compiled.get_mut(name);
        if let Some((error, asked)) = own.and_then(|own| own.unusable.get_mut(path)) {
            *asked = calls;
            return Err(error.clone().into());
        }
        if let Some(full) = self.is_full(source) {
            return Err(self.refuse(source, full));
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
        if self.lacks_room(source, memory).is_some() {
            self.make_room();
        }
        if let Some(limit) = self.lacks_room(source, memory) {
            return Err(self.refuse(source, limit));
        }
        let namespace = self.compiled.entry(name.clone()).or_default();
        namespace.memory += memory;
        *namespace
            .of_ingresses
            .entry(source.name.clone())
            .or_default() += memory;
        self.total += memory;
        let paid = Paid {
            regex: regex.clone(),
            by: Arc::clone(&claim.source),
        };
        namespace.regexes.insert(path.into(), paid);
        Ok(regex)
    }

    /// Which limit another regex of so many bytes would exceed.
    fn lacks_room(&self, source: &ObjectName, memory: usize) -> Option<Limit> {
        let own = self.compiled.get(&source.namespace);
        let of_namespace = own.map_or(0, |own| own.memory);
        let of_ingress = own.and_then(|own| own.of_ingresses.get(&source.name).copied());
        let has_few = of_namespace + memory <= FEW;
        let all = if has_few { LIMIT } else { LIMIT - RESERVED };
        if of_ingress.unwrap_or_default() + memory > INGRESS_LIMIT {
            Some(Limit::Ingress)
        } else if of_namespace + memory > NAMESPACE_LIMIT {
            Some(Limit::Namespace)
        } else if self.total + memory > all {
            Some(Limit::All)
        } else {
            None
        }
    }

    /// Which limit one was refused for since room was last made.
    fn is_full(&self, source: &ObjectName) -> Option<Limit> {
        let own = self.compiled.get(&source.namespace)?;
        if own.full {
            // Whoever is nowhere near its own limit hears of the other one.
            let is_own = own.memory > NAMESPACE_LIMIT / 2;
            Some(if is_own { Limit::Namespace } else { Limit::All })
        } else {
            let is_full = own.full_ingresses.contains(&source.name);
            is_full.then_some(Limit::Ingress)
        }
    }

    fn refuse(&mut self, source: &ObjectName, limit: Limit) -> PatternError {
        self.refused = true;
        let own = self.compiled.entry(source.namespace.clone()).or_default();
        match limit {
            Limit::Ingress => {
                own.full_ingresses.insert(source.name.clone());
                PatternError::Ingress {
                    ingress: source.clone(),
                }
            }
            Limit::Namespace => {
                own.full = true;
                PatternError::Namespace {
                    namespace: source.namespace.clone(),
                }
            }
            Limit::All => {
                own.full = true;
                PatternError::All
            }
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
            let (memory, of_ingresses) = (&mut namespace.memory, &mut namespace.of_ingresses);
            namespace.regexes.retain(|path, paid| {
                let stays = paid.regex.is_shared();
                if !stays {
                    let freed = paid.regex.memory() + path.len();
                    *memory -= freed;
                    *total -= freed;
                    if let Some(memory) = of_ingresses.get_mut(&paid.by.name.name) {
                        *memory -= freed;
                    }
                }
                stays
            });
            of_ingresses.retain(|_, memory| *memory > 0);
        }
        let freed = self.total < before;
        if freed {
            for namespace in self.compiled.values_mut() {
                namespace.full = false;
                namespace.full_ingresses.clear();
            }
        }
        self.compiled.retain(|_, own| {
            let is_full = own.full || !own.full_ingresses.is_empty();
            is_full || !own.regexes.is_empty() || !own.unusable.is_empty()
        });
        freed
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::Ingress;

    use super::{super::super::kept::Item, *};

    fn claim(namespace: &str) -> Claim {
        let item = Item {
            object: Arc::new(Ingress::default()),
            file: None,
        };
        Claim::empty(&ObjectName::new(namespace, "web"), &item)
    }

    #[test]
    fn namespaces_that_fill_all_room_leave_some_to_those_with_a_few_regexes() {
        let mut patterns = Patterns::default();
        let (modest, greedy) = (claim("modest"), claim("greedy"));
        let mut held = Vec::new();
        let mut fill = |patterns: &mut Patterns, claim: &Claim, round: u32| {
            let path = |number| format!("/{round}/{number}/.{{0,500}}");
            let compiled = |number| patterns.compile(&path(number), claim).ok();
            let before = held.len();
            held.extend((0..200).map_while(compiled));
            held.len() - before
        };
        assert_eq!(fill(&mut patterns, &greedy, 0), 200);
        // Others, whatever they are called, have all the rest.
        patterns.total = LIMIT - RESERVED;
        assert_eq!(fill(&mut patterns, &greedy, 1), 0);
        let few = fill(&mut patterns, &modest, 2);
        assert!((1..200).contains(&few), "{few}");
        patterns.total = LIMIT;
        assert_eq!(fill(&mut patterns, &claim("late"), 3), 0);
    }
}
