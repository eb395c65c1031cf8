//! What one proxy cost in one round of one row.

/// One proxy in one round of one row.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// In the row's unit.
    pub(super) cost: f64,
    /// Requests, connections or messages per second; none where nothing is repeated.
    pub(super) rate: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    /// What failed or was answered otherwise than it should be.
    pub(super) failed: u64,
}
