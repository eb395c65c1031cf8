//! Objects as a server sends them, without `metadata.managedFields`.
//!
//! Nobody here reads who owns which field. Whoever may write an object may write there what the
//! library cannot read, such as a time at the end of the year 9999, and the server says it to
//! everybody: one object would keep all of its kind back.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, IntoDeserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};

/// An object that is read that way.
#[derive(Clone, Debug)]
pub(super) struct Lean<K>(pub(super) K);

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let level = Level::Object;
        K::deserialize(At(level, deserializer)).map(Self)
    }
}

/// Where in an object something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Object,
    Metadata,
}

/// A deserializer, visitor or seed of serde's for what is at that level.
struct At<T>(Level, T);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for At<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.deserialize_any(At(self.0, visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.deserialize_option(At(self.0, visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for At<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.1.deserialize(At(self.0, deserializer))
    }
}

/// Neither an object nor its metadata is anything but a map, or missing.
impl<'de, V: Visitor<'de>> Visitor<'de> for At<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.1.visit_map(Fields {
            level: self.0,
            map,
            is_metadata: false,
        })
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.1.visit_some(At(self.0, deserializer))
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.1.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.1.visit_unit()
    }
}

/// The fields of an object or of its metadata.
struct Fields<A> {
    level: Level,
    map: A,
    /// Of the value that comes next.
    is_metadata: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if self.level == Level::Metadata && key == "managedFields" {
                self.map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.is_metadata = self.level == Level::Object && key == "metadata";
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.is_metadata {
            self.map.next_value_seed(At(Level::Metadata, seed))
        } else {
            self.map.next_value_seed(seed)
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::super::super::kind::{self, Kind, Visitor},
        *,
    };

    /// Reads each of them as an object of every kind.
    struct Reads([Value; 4]);

    impl Visitor for Reads {
        fn visit<K: Kind>(&mut self) {
            for value in &self.0 {
                let lean = serde_json::from_value::<Lean<K>>(value.clone());
                let mut whole = serde_json::from_value::<K>(value.clone());
                if let Ok(object) = &mut whole {
                    object.meta_mut().managed_fields = None;
                }
                assert_eq!(lean.map(|lean| lean.0).ok(), whole.ok(), "{value}");
            }
        }
    }

    #[test]
    fn all_else_is_read_as_the_library_reads_it() {
        let metadata = json!({
            "name": "a", "namespace": "b", "uid": "c", "resourceVersion": "1", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"metadata": "managedFields"},
            "managedFields": [{"manager": "me", "time": "2026-01-01T00:00:00Z"}],
            "finalizers": ["managedFields"], "annotations": null, "unknown": {"metadata": {}},
        });
        kind::visit_all(&mut Reads([
            json!({"kind": "K", "metadata": metadata, "spec": null, "type": "t", "other": [{}]}),
            json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]}),
            json!({"metadata": "a"}),
            json!({}),
        ]));
    }
}
