//! Values by host: the one place that knows which pattern matches a name.

use ahash::AHashMap;

use super::{HostPattern, host::parent};

/// Values by host pattern; a lookup hashes at most twice.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: AHashMap<Box<str>, T>,
    /// By what follows `*.`.
    wildcard: AHashMap<Box<str>, T>,
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

    /// Whether there is a value for `host` or, if `host` is exact, for its wildcard.
    pub fn covers(&self, host: &HostPattern) -> bool {
        match host {
            HostPattern::Exact(name) => self.find_named(name).is_some(),
            HostPattern::Wildcard(suffix) => self.wildcard.contains_key(suffix),
            HostPattern::Any => self.any.is_some(),
        }
    }

    /// The value of exactly this pattern, created by `value` if there is none.
    pub fn get_or_insert_with(&mut self, host: &HostPattern, value: impl FnOnce() -> T) -> &mut T {
        match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_insert_with(value),
            HostPattern::Wildcard(suffix) => {
                self.wildcard.entry(suffix.clone()).or_insert_with(value)
            }
            HostPattern::Any => self.any.get_or_insert_with(value),
        }
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self {
            exact: AHashMap::new(),
            wildcard: AHashMap::new(),
            any: None,
        }
    }
}

impl<'h, T> FromIterator<(&'h HostPattern, T)> for HostMap<T> {
    /// The first value of a pattern stays.
    fn from_iter<I: IntoIterator<Item = (&'h HostPattern, T)>>(values: I) -> Self {
        let mut map = Self::default();
        for (host, value) in values {
            map.get_or_insert_with(host, || value);
        }
        map
    }
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
    fn a_pattern_is_covered_by_itself_or_its_wildcard() {
        for (hosts, pattern, covered) in [
            (&["a.b.c"][..], "a.b.c", true),
            (&["*.b.c"], "a.b.c", true),
            (&["*.b.c"], "*.b.c", true),
            (&["a.b.c"], "*.b.c", false),
            (&["*.c"], "a.b.c", false),
            (&[""], "a.b.c", false),
            (&[""], "", true),
        ] {
            let pattern = pattern.parse().unwrap();
            assert_eq!(map(hosts).covers(&pattern), covered, "{hosts:?} {pattern}");
        }
    }

    #[test]
    fn the_first_value_of_a_pattern_stays() {
        let host = "a.b".parse().unwrap();
        let map: HostMap<u8> = [(&host, 1), (&host, 2)].into_iter().collect();
        assert_eq!(map.find("a.b"), Some(&1));
    }
}
