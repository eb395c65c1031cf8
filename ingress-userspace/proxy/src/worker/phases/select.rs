//! Which rule a request takes: host, then path, then what else the rule asks for.

use super::sanitize::{RequestHead, Sanitized};
use crate::{
    table::Request,
    worker::{client::Client, route::Route},
};

/// The route, or `None` where 404 is the answer.
pub(super) fn select(
    client: &Client,
    head: &RequestHead<'_>,
    request: &Sanitized<'_>,
) -> Option<Route> {
    let asked = Asked { head, request };
    client.worker.lookup(&request.host, &request.path, &asked)
}

/// What rules with conditions ask of a request.
struct Asked<'a> {
    head: &'a RequestHead<'a>,
    request: &'a Sanitized<'a>,
}

impl Request for Asked<'_> {
    fn method(&self) -> &[u8] {
        self.head.method
    }

    fn has_header(&self, name: &[u8], value: &[u8]) -> bool {
        let mut fields = self.head.fields.iter();
        fields.any(|(_, own, content)| own.eq_ignore_ascii_case(name) && content == value)
    }

    fn query(&self) -> Option<&str> {
        self.request.query
    }
}
