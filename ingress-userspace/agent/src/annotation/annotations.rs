//! Finds an annotation by its name, whichever of our prefixes it has.

use std::collections::BTreeMap;

/// Our own prefix, which wins.
const OURS: &str = "forebay.dev";

/// The prefixes of annotations, without the slash: our own, and that of `--annotations-prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes([Box<str>; 2]);

impl Prefixes {
    /// Our own, and one more.
    pub(crate) fn with(other: &str) -> Self {
        Self([OURS.into(), other.trim_end_matches('/').into()])
    }

    /// The prefix and the name of a key; `None` where it is somebody else's.
    pub(super) fn split<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        let (prefix, name) = key.split_once('/')?;
        let is_known = self.0.iter().any(|known| **known == *prefix);
        is_known.then_some((prefix, name))
    }
}

/// The annotations of one Ingress, by their names without a prefix.
#[derive(Clone, Copy)]
pub(super) struct Annotations<'a> {
    pub(super) all: &'a BTreeMap<String, String>,
    pub(super) prefixes: &'a Prefixes,
}

impl<'a> Annotations<'a> {
    /// The key and the trimmed value of `name`, under the prefix that wins.
    pub(super) fn find(&self, name: &str) -> Option<(&'a str, &'a str)> {
        self.prefixes.0.iter().find_map(|prefix| {
            let (key, value) = self.all.get_key_value(&format!("{prefix}/{name}"))?;
            Some((key.as_str(), value.trim()))
        })
    }
}
