//! What `cargo xtask bench` measures: always beside a peer or a floor, in the same run.

pub mod http;
pub mod steer;
