//! Which Secrets are followed by name: those that somebody names and that are not among the ones
//! of the watch that selects by type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ingress_model::ObjectName;

/// Secrets that are followed by name at most. Each takes a connection to the API server, and a
/// tenant can name as many as it likes.
pub(super) const LIMIT: usize = 256;

/// Longest name of a Secret, in bytes (RFC 1123 subdomain).
const NAME: usize = 253;
/// Longest name of a namespace, in bytes (RFC 1123 label).
const NAMESPACE: usize = 63;

/// Secrets of which only the name is kept that are read at a time. They have room of their own: each gives it back
/// within milliseconds, where a Secret that nobody makes never does.
pub(super) const READS: usize = 64;

/// The Secrets that are wanted by name, and those of them that are followed.
#[derive(Debug)]
pub(super) struct Named {
    /// To be followed as long as somebody names them.
    lasting: Pool,
    /// To be read.
    brief: Pool,
    /// Of both.
    followed: BTreeSet<ObjectName>,
    /// Others are followed than were taken last.
    has_other_followed: bool,
}

/// Secrets of which so many are followed.
#[derive(Debug)]
struct Pool {
    limit: usize,
    /// By namespace; none is empty.
    wanted: BTreeMap<String, BTreeSet<ObjectName>>,
    chosen: BTreeSet<ObjectName>,
    /// Others are wanted than when they were chosen.
    has_other_wanted: bool,
}

impl Default for Named {
    fn default() -> Self {
        Self {
            lasting: Pool::new(LIMIT),
            brief: Pool::new(READS),
            followed: BTreeSet::new(),
            has_other_followed: false,
        }
    }
}

impl Named {
    /// Notes whether `secret` is wanted. A name that no object can have never is: a watch of it
    /// could ask for something else.
    pub(super) fn want(&mut self, secret: &ObjectName, is_wanted: bool) {
        self.lasting.want(secret, is_wanted);
    }

    /// Notes whether `secret`, which is known to be there, is to be read.
    pub(super) fn want_read(&mut self, secret: &ObjectName, is_wanted: bool) {
        self.brief.want(secret, is_wanted);
    }

    /// Chooses those that are followed, and gives those that were not before or are no longer:
    /// `first`, which is the operator's, then one of each namespace in turn, by name. So who names
    /// thousands loses only its own, and the same names give the same choice.
    pub(super) fn choose(&mut self, first: Option<&ObjectName>) -> Vec<ObjectName> {
        let has_other = [&mut self.lasting, &mut self.brief].map(|pool| pool.choose(first));
        if has_other == [false, false] {
            return Vec::new();
        }
        let followed = &self.lasting.chosen | &self.brief.chosen;
        let differ = followed.symmetric_difference(&self.followed);
        let differ: Vec<_> = differ.cloned().collect();
        self.followed = followed;
        self.has_other_followed |= !differ.is_empty();
        differ
    }

    /// Whether `secret` is followed.
    pub(super) fn follows(&self, secret: &ObjectName) -> bool {
        self.followed.contains(secret)
    }

    /// Whether `secret` would be followed if there were room.
    pub(super) fn lacks_room(&self, secret: &ObjectName) -> bool {
        let is_wanted = self.lasting.wants(secret) || self.brief.wants(secret);
        is_wanted && !self.follows(secret)
    }

    /// Those that are followed.
    pub(super) fn followed(&self) -> &BTreeSet<ObjectName> {
        &self.followed
    }

    /// Those that are followed, if they are others than when this was asked last.
    pub(super) fn take(&mut self) -> Option<BTreeSet<ObjectName>> {
        std::mem::take(&mut self.has_other_followed).then(|| self.followed.clone())
    }
}

impl Pool {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            wanted: BTreeMap::new(),
            chosen: BTreeSet::new(),
            has_other_wanted: false,
        }
    }

    fn want(&mut self, secret: &ObjectName, is_wanted: bool) {
        if is_wanted && can_exist(secret) {
            let theirs = self.wanted.entry(secret.namespace.clone()).or_default();
            self.has_other_wanted |= theirs.insert(secret.clone());
        } else if let Some(theirs) = self.wanted.get_mut(&secret.namespace) {
            self.has_other_wanted |= theirs.remove(secret);
            if theirs.is_empty() {
                self.wanted.remove(&secret.namespace);
            }
        }
    }

    /// Tells whether others were wanted, and a choice was made.
    fn choose(&mut self, first: Option<&ObjectName>) -> bool {
        if !std::mem::take(&mut self.has_other_wanted) {
            return false;
        }
        let first = first.filter(|first| self.wants(first));
        let mut chosen: BTreeSet<_> = first.cloned().into_iter().collect();
        let mut turns: VecDeque<_> = self.wanted.values().map(BTreeSet::iter).collect();
        while chosen.len() < self.limit
            && let Some(mut theirs) = turns.pop_front()
        {
            if let Some(secret) = theirs.next() {
                chosen.insert(secret.clone());
                turns.push_back(theirs);
            }
        }
        self.chosen = chosen;
        true
    }

    fn wants(&self, secret: &ObjectName) -> bool {
        let theirs = self.wanted.get(&secret.namespace);
        theirs.is_some_and(|theirs| theirs.contains(secret))
    }
}

/// Whether an API server would take the name. It becomes part of a path and of a field selector,
/// where others mean something else.
fn can_exist(secret: &ObjectName) -> bool {
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !label.starts_with('-')
            && !label.ends_with('-')
            && !label.is_empty()
            && label.bytes().all(|byte| is_plain(byte) || byte == b'-')
    };
    secret.namespace.len() <= NAMESPACE
        && is_label(&secret.namespace)
        && secret.name.len() <= NAME
        && secret.name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(namespace: &str, number: usize) -> ObjectName {
        ObjectName::new(namespace, format!("s{number:05}"))
    }

    fn of(named: &Named, namespace: &str) -> usize {
        let followed = named.followed().iter();
        followed
            .filter(|secret| secret.namespace == namespace)
            .count()
    }

    #[test]
    fn who_names_thousands_takes_nothing_from_other_namespaces() {
        let mut named = Named::default();
        for number in 0..10_000 {
            named.want(&secret("a-greedy", number), true);
        }
        assert_eq!(named.choose(None).len(), LIMIT);
        assert_eq!(of(&named, "a-greedy"), LIMIT);
        let default = secret("z-operator", 0);
        named.want(&default, true);
        for number in 0..3 {
            named.want(&secret("modest", number), true);
        }
        let differ = named.choose(Some(&default));
        assert_eq!(differ.len(), 8, "four come and four go: {differ:?}");
        assert_eq!(of(&named, "modest"), 3);
        assert!(named.follows(&default));
        assert_eq!(named.followed().len(), LIMIT);
        assert!(named.lacks_room(&secret("a-greedy", 9_999)));
        assert!(!named.lacks_room(&secret("a-greedy", 0)));
        // As many namespaces as there is room for, and the operator's all the same.
        for number in 0..1_000 {
            named.want(&secret(&format!("many{number}"), 0), true);
        }
        named.choose(Some(&default));
        assert!(named.follows(&default));
        assert_eq!(named.followed().len(), LIMIT);
    }

    #[test]
    fn the_choice_is_told_when_it_differs_and_its_room_is_given_on() {
        let mut named = Named::default();
        assert_eq!(named.choose(None), []);
        assert_eq!(named.take(), None);
        for number in 0..=LIMIT {
            named.want(&secret("a", number), true);
        }
        named.choose(None);
        assert_eq!(named.take().unwrap().len(), LIMIT);
        assert_eq!(named.take(), None);
        named.want(&secret("a", 7), false);
        assert_eq!(named.choose(None), [secret("a", 7), secret("a", LIMIT)]);
        assert!(named.take().unwrap().contains(&secret("a", LIMIT)));
        for number in 0..=LIMIT {
            named.want(&secret("a", number), false);
        }
        named.choose(None);
        assert_eq!(named.take(), Some(BTreeSet::new()));
        assert!(named.lasting.wanted.is_empty());
    }

    #[test]
    fn names_that_no_secret_can_have_are_not_asked_for() {
        let long = ["a"; 127].join(".");
        for (namespace, name, can) in [
            ("default", "tls", true),
            ("default", "a.b-c.0", true),
            ("default", &*long, true),
            ("default", &format!("{long}.a"), false),
            ("default", "", false),
            ("default", "a,metadata.namespace=b", false),
            ("default", "a=b", false),
            ("default", "a!", false),
            ("default", "a\\", false),
            ("default", "a/b", false),
            ("default", "..", false),
            ("default", "A", false),
            ("default", "-a", false),
            ("default", "a-.b", false),
            ("default", "a b", false),
            ("default", "a\n", false),
            ("default", "ä", false),
            ("", "tls", false),
            ("..", "tls", false),
            ("a/../b", "tls", false),
            ("a.b", "tls", false),
            ("a?x=", "tls", false),
        ] {
            let mut named = Named::default();
            named.want(&ObjectName::new(namespace, name), true);
            assert_eq!(named.choose(None).len() == 1, can, "{namespace:?} {name:?}");
        }
    }
}
