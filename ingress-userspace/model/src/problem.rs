//! Something wrong with one object, said where its owner will look.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of the object still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is served; a part of it is ignored.
    Warning,
    /// The object, or the rule named by the field, is not served, or its last good version is.
    Error,
}

/// What is wrong, in which field of which object, and where that object came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// How much still works.
    pub severity: Severity,
    /// `Ingress shop/web`, or empty where no object could be read at all.
    pub object: String,
    /// Path of the field, such as `spec.rules[0].host`; may be empty.
    pub field: String,
    /// File (and line) of a folder of manifests; `None` for a cluster.
    pub file: Option<String>,
    /// Lower case, no full stop; says what to do where that is not plain.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.file.as_deref().unwrap_or(""),
            &self.object,
            &self.field,
        ];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}
