//! Problems by what they depend on, so that a change looks only at its own.

use std::collections::{BTreeMap, btree_map::Entry};

use tokio::time::Instant;

use super::{
    super::kind::Key,
    quota::{Kind, Quota},
};
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
    quota: Quota,
}

impl Topic {
    /// What all topics of its kind are called.
    fn kind(&self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Unread(_) => "unread",
            Self::Globals => "globals",
            Self::Ingress(_) => "ingress",
            Self::Host(_) => "host",
            Self::Backend(_) => "backend",
            Self::Certificate(_) => "certificate",
        }
    }
}

impl Book {
    /// Puts what is wrong with `topic` in place of what was; logs what is new and what is resolved, as
    /// far as there are lines for it.
    pub(super) fn set(&mut self, topic: Topic, mut problems: Vec<Problem>) {
        let kind = topic.kind();
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
        self.log_changes(kind, &before, &problems);
    }

    /// Logs each problem when it appears and when it is gone. Both lists are sorted.
    fn log_changes(&mut self, topic: &'static str, before: &[Problem], now: &[Problem]) {
        let absent = |from: &[Problem], problem: &Problem| from.binary_search(problem).is_err();
        let at = Instant::now();
        for problem in now.iter().filter(|problem| absent(before, problem)) {
            if self.quota.take(kind(topic, problem, false), at) {
                log(problem);
            }
        }
        for problem in before.iter().filter(|problem| absent(now, problem)) {
            if self.quota.take(kind(topic, problem, true), at) {
                tracing::info!(%problem, "problem resolved");
            }
        }
    }

    /// When [`log_left_out`](Self::log_left_out) has something to say next.
    pub(crate) fn log_due(&self) -> Option<Instant> {
        self.quota.due()
    }

    /// Logs how many lines were left out.
    pub(crate) fn log_left_out(&mut self, now: Instant) {
        for (kind, count) in self.quota.take_left_out(now) {
            let Kind {
                namespace,
                topic,
                severity,
                field,
                is_resolved,
            } = kind;
            tracing::warn!(
                count,
                namespace = &*namespace,
                topic,
                ?severity,
                field = &*field,
                is_resolved,
                "more such problems than are logged; `forebay status` shows all that there are"
            );
        }
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

/// What its line is counted with.
fn kind(topic: &'static str, problem: &Problem, is_resolved: bool) -> Kind {
    let object = problem.reference.as_ref();
    let namespace = object.map_or("", |object| &object.name.namespace);
    let field = problem.field.split('[').next().unwrap_or_default();
    Kind {
        namespace: namespace.into(),
        topic,
        severity: problem.severity,
        field: field.into(),
        is_resolved,
    }
}

fn log(problem: &Problem) {
    let Problem {
        severity,
        object,
        field,
        file,
        message,
        ..
    } = problem;
    let file = file.as_deref().unwrap_or_default();
    tracing::warn!(
        ?severity,
        object,
        field,
        file,
        problem = message,
        "object has a problem"
    );
}

#[cfg(test)]
mod tests {
    use std::{
        fmt,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use ingress_model::{ObjectRef, Subject};
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::*;

    /// The lines of the log, as far as the test looks at them.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    #[derive(Default)]
    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.push_str(&format!("{field}={value:?} "));
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn subject(namespace: &str, name: &str) -> Subject {
        let name = ObjectName::new(namespace, name);
        Subject::object(&ObjectRef::new("Ingress", name, ""))
    }

    #[test]
    fn thousands_of_problems_of_a_namespace_leave_the_log_to_others_and_are_all_in_the_status() {
        let lines = Lines::default();
        // With a single one, tracing would ask the thread that comes to a line first whether anybody wants
        // it: another test's, which has none.
        let _second = tracing::Dispatch::new(lines.clone());
        let _third = tracing::Dispatch::new(Lines::default());
        let mut book = Book::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let ignored = (0..10_000).map(|number| {
                let subject = subject("loud", &format!("web{number}"));
                subject.warning(format!("spec.rules[{number}]"), "this rule is ignored")
            });
            let host = Topic::Host("a.test".parse().unwrap());
            book.set(host.clone(), ignored.collect());
            // Other kinds, and other namespaces.
            let spoiled = subject("loud", "web").error("metadata.annotations[x]", "is no number");
            let name = ObjectName::new("loud", "web");
            book.set(Topic::Ingress(name.clone()), vec![spoiled]);
            let quiet = subject("quiet", "web").warning("spec.rules[7]", "this rule is ignored");
            book.set(Topic::Host("b.test".parse().unwrap()), vec![quiet]);
            assert_eq!(book.counts(), (10_001, 1));
            assert_eq!(book.all().len(), 10_002);
            // An edit in a loop.
            for _ in 0..1000 {
                let spoiled = subject("loud", "web").error("metadata.annotations[x]", "is odd");
                book.set(Topic::Ingress(name.clone()), vec![spoiled]);
                book.set(Topic::Ingress(name.clone()), Vec::new());
            }
            book.set(host, Vec::new());
        });
        let seen = std::mem::take(&mut *lines.0.lock().unwrap());
        assert!(seen.len() < 50, "{} lines", seen.len());
        for part in ["metadata.annotations[x]", "quiet/web", "loud/web0"] {
            let has_part = seen.iter().any(|line| line.contains(part));
            assert!(has_part, "{part} in {seen:#?}");
        }
        let due = book.log_due().expect("some were left out");
        tracing::subscriber::with_default(lines.clone(), || book.log_left_out(due));
        let seen = lines.0.lock().unwrap();
        let first = seen
            .iter()
            .find(|line| line.contains("field=\"spec.rules\""));
        let first = first.expect("those of the host are counted");
        for part in ["count=9990 ", "namespace=\"loud\"", "forebay status"] {
            assert!(first.contains(part), "{first}");
        }
        let still = book.log_due().is_none_or(|next| next > due);
        assert!(still && due <= Instant::now() + Duration::from_secs(60));
    }
}
