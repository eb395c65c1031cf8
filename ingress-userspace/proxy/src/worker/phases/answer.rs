//! Answers that a route gives itself: denied rules, redirects.

use super::{reply::Reply, request_id::RequestId, sanitize::Sanitized};
use crate::{table::Entry, worker::client::Client};
use ingress_model::Action;

/// Where certificate authorities look for proofs of ownership: never redirected.
const ACME_CHALLENGES: &[u8] = b"/.well-known/acme-challenge";

/// The route's own answer, if it has one.
pub(super) fn answer(
    client: &Client,
    entry: &Entry,
    request: &Sanitized<'_>,
    id: &RequestId,
) -> Option<Reply> {
    match &entry.rule.action {
        Action::Deny(_) => return Some(Reply::status(503, id.clone())),
        Action::Respond(status) => return Some(Reply::status(*status, id.clone())),
        Action::Redirect(redirect) => {
            let location = redirect.location.to_string();
            return Some(Reply::redirect(redirect.status, location, id.clone()));
        }
        Action::Forward(_) => {}
    }
    let location = redirect_to_https(client, entry, request)?;
    Some(Reply::redirect(308, location, id.clone()))
}

/// Where to send a plain request that belongs on https: host without port, raw target, less one
/// final slash, as ingress-nginx does.
fn redirect_to_https(client: &Client, entry: &Entry, request: &Sanitized<'_>) -> Option<String> {
    let host = request.host.as_str();
    // Without a host there is nowhere to go: HTTP/1.0 requests may have none.
    if client.secure
        || !entry.redirects_to_https()
        || host.is_empty()
        || request.path.as_bytes().starts_with(ACME_CHALLENGES)
    {
        return None;
    }
    let mut location = format!("https://{host}{}", request.raw_path);
    if let Some(query) = request.query {
        location.push('?');
        location.push_str(query);
    }
    if location.ends_with('/') {
        location.pop();
    }
    Some(location)
}
