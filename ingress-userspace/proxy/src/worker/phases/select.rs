//! Which route a request takes: host, then path.

use std::{rc::Rc, sync::Arc};

use super::sanitize::Sanitized;
use crate::{table::Entry, worker::client::Client};

/// The route, or `None` where 404 is the answer.
pub(super) fn select(client: &Rc<Client>, request: &Sanitized<'_>) -> Option<Arc<Entry>> {
    client
        .worker
        .table()
        .lookup(&request.host, &request.path)
        .cloned()
}
