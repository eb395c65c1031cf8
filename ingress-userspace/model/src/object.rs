//! Names Kubernetes objects.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Namespace and name of a Kubernetes object; ordered by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// Names the object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// One object of a kind, as Events refer to it; ordered by kind, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "Flat")]
pub struct ObjectRef {
    /// `kind`, such as `Ingress`.
    pub kind: Cow<'static, str>,
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; empty where a manifest has none.
    pub uid: Box<str>,
}

impl ObjectRef {
    /// Refers to one object of `kind`.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        name: ObjectName,
        uid: impl Into<Box<str>>,
    ) -> Self {
        Self {
            kind: kind.into(),
            name,
            uid: uid.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Serialize for ObjectRef {
    /// As a map of `kind`, `namespace`, `name` and `uid`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut map = serializer.serialize_struct("ObjectRef", 4)?;
        map.serialize_field("kind", &self.kind)?;
        map.serialize_field("namespace", &self.name.namespace)?;
        map.serialize_field("name", &self.name.name)?;
        map.serialize_field("uid", &self.uid)?;
        map.end()
    }
}

/// The fields as they are serialized.
#[derive(Deserialize)]
struct Flat {
    kind: String,
    namespace: String,
    name: String,
    uid: Box<str>,
}

impl From<Flat> for ObjectRef {
    fn from(flat: Flat) -> Self {
        let name = ObjectName::new(flat.namespace, flat.name);
        Self::new(flat.kind, name, flat.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_namespace_has_no_slash() {
        for (namespace, text) in [("shop", "shop/web"), ("", "web")] {
            assert_eq!(ObjectName::new(namespace, "web").to_string(), text);
        }
    }
}
