//! Finds an annotation by its name, whichever of our prefixes it has.

use std::collections::BTreeMap;

/// Prefixes, the one that wins first.
pub(super) const PREFIXES: [&str; 2] = ["forebay.dev/", "nginx.ingress.kubernetes.io/"];

/// The annotations of one Ingress, by their names without a prefix.
#[derive(Clone, Copy)]
pub(super) struct Annotations<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Annotations<'a> {
    /// The key and the trimmed value of `name`, under the prefix that wins.
    pub(super) fn find(&self, name: &str) -> Option<(&'a str, &'a str)> {
        PREFIXES.iter().find_map(|prefix| {
            let (key, value) = self.0.get_key_value(&format!("{prefix}{name}"))?;
            Some((key.as_str(), value.trim()))
        })
    }
}
