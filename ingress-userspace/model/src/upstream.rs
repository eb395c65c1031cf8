//! Where requests are sent: a Service port, spoken to in one way.

use serde::{Deserialize, Serialize};

use super::{BackendKey, UpstreamPolicy};

/// What tells upstreams apart. Two Ingresses may want one Service port spoken to in different ways:
/// then each has its own, with the same endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamKey {
    /// The Service port, whose endpoints an [`Update`](super::Update) holds.
    pub backend: BackendKey,
    /// How its endpoints are spoken to.
    pub policy: UpstreamPolicy,
}
