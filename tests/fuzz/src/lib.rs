//! What the targets share: `oracle` reads HTTP/1.1 on its own, `site` runs a worker between a client
//! and an endpoint, `pace` cuts what they send, `frames` writes HTTP/2, `forwarded` says what may
//! reach the endpoint.

pub mod forwarded;
pub mod frames;
pub mod oracle;
pub mod pace;
pub mod site;
