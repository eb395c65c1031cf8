//! Values by host: the one place that knows which pattern matches a name.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use super::{HostPattern, host::parent};

/// Parts of a map. A change copies one of them, of ten thousand hosts about forty; a copy of the
/// whole map copies none.
const SHARDS: usize = 256;

/// Values by host pattern, in a map whose copies share what they have in common. A lookup hashes at
/// most twice.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: Names<T>,
    /// By what follows `*.`.
    wildcard: Names<T>,
    any: Option<T>,
}

impl<T> HostMap<T> {
    /// The value for a request to `host`: lower case, no port, no trailing dot.
    ///
    /// An exact host takes precedence over a wildcard, a wildcard over [`HostPattern::Any`]. Only
    /// the first match counts, as in ingress-nginx.
    pub fn find(&self, host: &str) -> Option<&T> {
        self.find_named(host).or(self.any.as_ref())
    }

    /// The same without [`HostPattern::Any`].
    pub fn find_named(&self, host: &str) -> Option<&T> {
        self.exact
            .get(host)
            .or_else(|| self.wildcard.get(parent(host)?))
    }

    /// The value of exactly this pattern.
    pub fn get(&self, host: &HostPattern) -> Option<&T> {
        match host {
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard(suffix) => self.wildcard.get(suffix),
            HostPattern::Any => self.any.as_ref(),
        }
    }

    /// All patterns with their values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (HostPattern, &T)> {
        let exact = self.exact.iter();
        let wildcard = self.wildcard.iter();
        exact
            .map(|(name, value)| (HostPattern::Exact(name.into()), value))
            .chain(wildcard.map(|(suffix, value)| (HostPattern::Wildcard(suffix.into()), value)))
            .chain(self.any.iter().map(|value| (HostPattern::Any, value)))
    }
}

impl<T: Clone> HostMap<T> {
    /// Puts another value, or none, in place of that of exactly this pattern, which it gives back.
    pub fn set(&mut self, host: &HostPattern, value: Option<T>) -> Option<T> {
        match host {
            HostPattern::Exact(name) => self.exact.set(name, value),
            HostPattern::Wildcard(suffix) => self.wildcard.set(suffix, value),
            HostPattern::Any => std::mem::replace(&mut self.any, value),
        }
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self {
            exact: Names::default(),
            wildcard: Names::default(),
            any: None,
        }
    }
}

impl<'h, T: Clone> FromIterator<(&'h HostPattern, T)> for HostMap<T> {
    /// The last value of a pattern stays.
    fn from_iter<I: IntoIterator<Item = (&'h HostPattern, T)>>(values: I) -> Self {
        let mut map = Self::default();
        for (host, value) in values {
            map.set(host, Some(value));
        }
        map
    }
}

/// Names that share a hash value's last bits, with their values.
type Shard<T> = HashTable<(Arc<str>, T)>;

/// Values by name.
#[derive(Clone, Debug)]
struct Names<T> {
    shards: Arc<[Arc<Shard<T>>]>,
    hasher: RandomState,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        let empty = Arc::new(Shard::new());
        Self {
            shards: vec![empty; SHARDS].into(),
            hasher: RandomState::new(),
        }
    }
}

impl<T> Names<T> {
    fn get(&self, name: &str) -> Option<&T> {
        let hash = self.hasher.hash_one(name);
        let shard = self.shards.get(place(hash))?;
        let found = shard.find(hash, |(own, _)| **own == *name)?;
        Some(&found.1)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.iter().map(|(name, value)| (&**name, value)))
    }
}

impl<T: Clone> Names<T> {
    fn set(&mut self, name: &str, value: Option<T>) -> Option<T> {
        let hash = self.hasher.hash_one(name);
        let shard = Arc::make_mut(&mut self.shards).get_mut(place(hash))?;
        let shard = Arc::make_mut(shard);
        match (shard.find_mut(hash, |(own, _)| **own == *name), value) {
            (Some((_, own)), Some(value)) => Some(std::mem::replace(own, value)),
            (Some(_), None) => {
                let found = shard.find_entry(hash, |(own, _)| **own == *name);
                found.ok().map(|entry| entry.remove().0.1)
            }
            (None, Some(value)) => {
                let hasher = &self.hasher;
                let rehash = |(name, _): &(Arc<str>, T)| hasher.hash_one(&**name);
                shard.insert_unique(hash, (name.into(), value), rehash);
                None
            }
            (None, None) => None,
        }
    }
}

/// Which shard: by bits in the middle, since the table itself goes by both ends.
fn place(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(hosts: &[&str]) -> HostMap<String> {
        let patterns: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        patterns
            .iter()
            .map(|host| (host, host.to_string()))
            .collect()
    }

    #[test]
    fn exact_goes_before_wildcard_before_any() {
        let map = map(&["a.example.com", "*.example.com", ""]);
        for (host, found) in [
            ("a.example.com", "a.example.com"),
            ("b.example.com", "*.example.com"),
            ("b.b.example.com", "*"),
            ("example.com", "*"),
            (".example.com", "*"),
            ("", "*"),
        ] {
            assert_eq!(map.find(host).map(String::as_str), Some(found), "{host}");
            let named = map.find_named(host).map(String::as_str);
            assert_eq!(named, Some(found).filter(|name| *name != "*"), "{host}");
        }
    }

    #[test]
    fn a_value_is_set_replaced_and_removed_for_one_pattern_alone() {
        for host in ["a.b", "*.b", ""] {
            let host: HostPattern = host.parse().unwrap();
            let mut map = map(&["x.y", "*.y"]);
            let value = |text: &str| Some(text.to_owned());
            assert_eq!(map.set(&host, value("1")), None);
            assert_eq!(map.set(&host, value("2")), value("1"));
            assert_eq!(map.get(&host), value("2").as_ref());
            assert_eq!(map.iter().count(), 3);
            assert_eq!(map.set(&host, None), value("2"));
            assert_eq!(map.set(&host, None), None);
            assert_eq!(map.get(&host), None);
            assert_eq!(map.iter().count(), 2);
        }
    }

    #[test]
    fn a_copy_keeps_its_values_and_shares_all_parts_but_the_changed_one() {
        let hosts: Vec<HostPattern> = (0..2000)
            .map(|number| format!("h{number}.test").parse().unwrap())
            .collect();
        let mut map: HostMap<usize> = hosts.iter().zip(0..).collect();
        let copy = map.clone();
        map.set(&hosts[7], Some(0));
        assert_eq!(
            (map.get(&hosts[7]), copy.get(&hosts[7])),
            (Some(&0), Some(&7))
        );
        let pairs = map.exact.shards.iter().zip(copy.exact.shards.iter());
        let other = pairs.filter(|(now, before)| !Arc::ptr_eq(now, before));
        assert_eq!(other.count(), 1);
        for (number, host) in hosts.iter().enumerate() {
            assert_eq!(copy.get(host), Some(&number));
        }
        // A part has eight of them on the average: a change copies no more than a few.
        let largest = copy.exact.shards.iter().map(|shard| shard.len()).max();
        assert!(largest < Some(64), "{largest:?}");
    }
}
