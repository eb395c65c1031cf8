//! Which route a request takes: host, then path.

use super::sanitize::Sanitized;
use crate::worker::{client::Client, route::Route};

/// The route, or `None` where 404 is the answer.
pub(super) fn select(client: &Client, request: &Sanitized<'_>) -> Option<Route> {
    client.worker.lookup(&request.host, &request.path)
}
