//! What fuzz targets call: the parsers one by one, and a whole worker between connections in memory.
//! Compiled for them alone.

pub use crate::net::{End, Far};
pub use crate::worker::fuzz::{Serving, Site};
