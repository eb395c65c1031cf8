//! Problems by what they depend on, so that a change looks only at its own.

use std::collections::{BTreeMap, btree_map::Entry};

use super::super::kind::Key;
use ingress_model::{BackendKey, HostPattern, ObjectName, Problem, Severity};

/// What problems depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// What could not be read.
    Source,
    /// An object that cannot be read; Secrets are told as certificates.
    Unread(Key),
    /// The controller's ConfigMap.
    Globals,
    /// An Ingress by itself.
    Ingress(ObjectName),
    /// The rules of a host.
    Host(HostPattern),
    /// A backend, and those who name it.
    Backend(BackendKey),
    /// A Secret with a certificate.
    Certificate(ObjectName),
}

/// All problems of the moment.
#[derive(Debug, Default)]
pub(crate) struct Book {
    topics: BTreeMap<Topic, Vec<Problem>>,
}

impl Book {
    /// Puts what is wrong with `topic` in place of what was; logs what is new and what is resolved.
    pub(super) fn set(&mut self, topic: Topic, mut problems: Vec<Problem>) {
        problems.sort();
        problems.dedup();
        let before = match self.topics.entry(topic) {
            Entry::Vacant(_) if problems.is_empty() => return,
            Entry::Vacant(free) => {
                free.insert(problems.clone());
                Vec::new()
            }
            Entry::Occupied(taken) if problems.is_empty() => taken.remove(),
            Entry::Occupied(mut taken) => taken.insert(problems.clone()),
        };
        log_changes(&before, &problems);
    }

    /// How many warnings and how many errors there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let problems = self.topics.values().flatten();
        let is_error = |problem: &&Problem| problem.severity == Severity::Error;
        let errors = problems.clone().filter(is_error).count();
        (problems.count() - errors, errors)
    }

    /// Every problem once, sorted.
    pub(crate) fn all(&self) -> Vec<Problem> {
        let mut all: Vec<_> = self.topics.values().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Logs each problem once when it appears and once when it is gone. Both lists are sorted.
fn log_changes(before: &[Problem], now: &[Problem]) {
    let absent = |from: &[Problem], problem: &Problem| from.binary_search(problem).is_err();
    for problem in now.iter().filter(|problem| absent(before, problem)) {
        let file = problem.file.as_deref().unwrap_or_default();
        let Problem {
            severity,
            object,
            field,
            message,
            ..
        } = problem;
        tracing::warn!(
            ?severity,
            object,
            field,
            file,
            problem = message,
            "object has a problem"
        );
    }
    for problem in before.iter().filter(|problem| absent(now, problem)) {
        tracing::info!(%problem, "problem resolved");
    }
}
