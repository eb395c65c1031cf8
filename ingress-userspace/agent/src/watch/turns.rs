//! Whose look-up comes next: `names` asks.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// Names that wait for a look-up, by the namespaces that want them.
///
/// The namespace that has the fewest look-ups at the moment comes first, so that none waits for the
/// thousands of names of another; then the name that has waited longest: those that are not answered
/// are due again so soon that they would keep all others out.
#[derive(Default)]
pub(super) struct Turns(BTreeMap<String, Namespace>);

#[derive(Default)]
struct Namespace {
    /// Look-ups at the moment.
    busy: usize,
    /// When each name is due.
    queue: BTreeSet<(Instant, Box<str>)>,
}

impl Turns {
    /// Lets a name wait until it is `due`.
    pub(super) fn add(&mut self, due: Instant, name: &str, namespaces: &BTreeSet<String>) {
        for namespace in namespaces {
            let turns = self.0.entry(namespace.clone()).or_default();
            turns.queue.insert((due, name.into()));
        }
    }

    /// Lets a name that was added like this wait no longer.
    pub(super) fn remove(&mut self, due: Instant, name: &str, namespaces: &BTreeSet<String>) {
        let entry = (due, Box::from(name));
        self.change(namespaces, |turns| {
            turns.queue.remove(&entry);
        });
    }

    /// Counts a look-up.
    pub(super) fn begin(&mut self, namespaces: &BTreeSet<String>) {
        for namespace in namespaces {
            self.0.entry(namespace.clone()).or_default().busy += 1;
        }
    }

    /// Counts it no longer.
    pub(super) fn end(&mut self, namespaces: &BTreeSet<String>) {
        self.change(namespaces, |turns| turns.busy -= 1);
    }

    /// The name to be looked up now; it goes on waiting. Costs a step per namespace, not per name.
    pub(super) fn next(&self, now: Instant) -> Option<&str> {
        let first = self.0.values().filter_map(|turns| {
            let (due, name) = turns.queue.first().filter(|(due, _)| *due <= now)?;
            Some(((turns.busy, due), name))
        });
        first
            .min_by_key(|(order, _)| *order)
            .map(|(_, name)| &**name)
    }

    /// When the next name is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.0.values().filter_map(|turns| turns.queue.first());
        first.map(|(due, _)| *due).min()
    }

    fn change(&mut self, namespaces: &BTreeSet<String>, mut change: impl FnMut(&mut Namespace)) {
        for namespace in namespaces {
            if let Some(turns) = self.0.get_mut(namespace) {
                change(turns);
                if turns.busy == 0 && turns.queue.is_empty() {
                    self.0.remove(namespace);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_has_the_fewest_look_ups_comes_first_and_then_whoever_waits_longest() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (greedy, modest, both) = (of(&["greedy"]), of(&["modest"]), of(&["greedy", "modest"]));
        let mut turns = Turns::default();
        assert_eq!((turns.next(now), turns.due()), (None, None));
        turns.add(at(1), "a", &greedy);
        turns.add(at(2), "b", &greedy);
        turns.add(at(3), "c", &both);
        turns.add(at(4), "d", &modest);
        assert_eq!((turns.next(now), turns.due()), (None, Some(at(1))));
        assert_eq!(turns.next(at(9)), Some("a"));
        turns.begin(&greedy);
        assert_eq!(turns.next(at(9)), Some("c"), "modest has none");
        assert_eq!(turns.next(at(2)), Some("a"), "nothing of modest is due");
        turns.remove(at(3), "c", &both);
        assert_eq!(turns.next(at(9)), Some("d"));
        turns.begin(&modest);
        assert_eq!(turns.next(at(9)), Some("a"), "both have one");
        turns.remove(at(1), "a", &greedy);
        turns.remove(at(2), "b", &greedy);
        turns.remove(at(4), "d", &modest);
        assert_eq!(turns.due(), None);
        turns.end(&greedy);
        turns.end(&modest);
        assert!(turns.0.is_empty(), "nothing is kept of who wants nothing");
    }
}
