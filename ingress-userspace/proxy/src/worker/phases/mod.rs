//! A request's life: phases in a fixed order, that of ingress-nginx. Each is a file.
//!
//! `sanitize` → `select` → `answer` → `protect` → `forward` → `respond`; `record` lives beside them.
//!
//! What does not need an endpoint is decided without waiting ([`decide`]). Nothing here knows which
//! protocol the client speaks.

mod answer;
mod forward;
mod protect;
mod reply;
mod request_id;
mod respond;
mod sanitize;
mod select;

use std::rc::Rc;

pub(super) use self::{
    forward::{Forwarded, Plan, forward},
    reply::Reply,
    respond::{HeadWriter, error, interim, own, response},
    sanitize::{Rejection, RequestHead, Target, target},
};
use self::{request_id::RequestId, sanitize::sanitize};
use super::{client::Client, record::Record};
use crate::http1::Framing;

/// What is to be done with a request.
pub(super) enum Decision {
    /// Answer it; no endpoint is needed. With the framing of its body, which nobody has read: what
    /// is not known to end counts as [`Framing::Close`].
    Answer(Reply, Framing),
    /// Send it to an endpoint.
    Forward(Plan),
}

/// Takes a request through the phases that need no endpoint.
pub(super) fn decide(client: &Rc<Client>, head: &RequestHead<'_>, record: &mut Record) -> Decision {
    let request = match sanitize(head) {
        Ok(request) => request,
        Err(rejection) => {
            tracing::trace!(%rejection, "request rejected");
            return Decision::Answer(
                Reply::rejection(rejection, RequestId::random()),
                Framing::Close,
            );
        }
    };
    let id = RequestId::of(&request);
    if request.is_for_server {
        return Decision::Answer(Reply::options(id), request.framing);
    }
    let Some(entry) = select::select(client, head, &request) else {
        return Decision::Answer(Reply::status(404, id), request.framing);
    };
    record.route(&entry);
    let answer = protect::declared_length(&entry, &request, &id)
        .or_else(|| answer::answer(client, &entry, &request, &id));
    match answer {
        Some(reply) => Decision::Answer(reply, request.framing),
        None => Decision::Forward(forward::plan(client, entry, head, request, id)),
    }
}
