//! What a route does not let through.

use super::{reply::Reply, request_id::RequestId, sanitize::Sanitized};
use crate::{http1::Framing, table::Entry};

/// 413 for a body that says itself that it is too long. Before the redirect to https, as with nginx,
/// which decides it when it has found the location; chunked bodies are counted on their way.
pub(super) fn declared_length(
    entry: &Entry,
    request: &Sanitized<'_>,
    id: &RequestId,
) -> Option<Reply> {
    match (entry.rule.policy.body_limit, request.framing) {
        (Some(limit), Framing::Length(length)) if length > limit => {
            Some(Reply::status(413, id.clone()))
        }
        _ => None,
    }
}
