//! What Forebay tells about itself: logs and metrics. Every module may record here; it imports
//! none.

pub mod log;
pub mod metrics;
