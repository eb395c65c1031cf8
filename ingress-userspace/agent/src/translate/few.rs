//! A map for a few entries: most Ingresses have one host and one backend, and a B-tree takes half a
//! kilobyte for its first entry.

use std::collections::BTreeMap;

/// Entries sorted by key, without duplicates. Made at once, from a B-tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<K, V>(Box<[(K, V)]>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<K, V> From<BTreeMap<K, V>> for Few<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        Self(map.into_iter().collect())
    }
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = self.0.binary_search_by(|(own, _)| own.cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_key_in_its_order() {
        let map = BTreeMap::from([(3, 'c'), (1, 'a'), (2, 'b')]);
        let mut few = Few::from(map);
        assert!(few.keys().eq(&[1, 2, 3]));
        assert_eq!((few.get(&1), few.get(&4)), (Some(&'a'), None));
        assert!(few.contains_key(&3) && !few.contains_key(&0));
        few.values_mut().for_each(|value| *value = 'x');
        assert_eq!(few.get(&2), Some(&'x'));
    }
}
