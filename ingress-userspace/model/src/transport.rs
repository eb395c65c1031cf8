//! What a listening socket speaks.

use serde::{Deserialize, Serialize};

/// What the connections of a listening socket carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// HTTP.
    Plain,
    /// HTTPS.
    Tls,
}
