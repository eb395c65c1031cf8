//! An Ingress that is ours to serve.

use k8s_openapi::api::networking::v1::Ingress;

use super::super::kept::Item;
use ingress_model::{ObjectName, Seniority, Subject};

/// An Ingress that is ours to serve.
pub(super) struct Claim<'a> {
    pub(super) name: &'a ObjectName,
    /// Seconds since the Unix epoch; 0 where a manifest does not say.
    pub(super) created: i64,
    pub(super) item: &'a Item<Ingress>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(name: &'a ObjectName, item: &'a Item<Ingress>) -> Self {
        let created = item.object.metadata.creation_timestamp.as_ref();
        Self {
            name,
            created: created.map_or(0, |time| time.0.as_second()),
            item,
        }
    }

    pub(super) fn seniority(&self) -> Seniority {
        Seniority::new(self.created, self.name.clone())
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::object("Ingress", self.name).read_from(self.item.file.as_deref())
    }
}
