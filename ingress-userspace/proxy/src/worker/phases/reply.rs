//! An answer of our own: a status, a small page, and what else its status asks for.

use http::StatusCode;

use super::{request_id::RequestId, sanitize::Rejection};

/// The methods that a route serves.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// An answer that no endpoint gave.
#[derive(Debug)]
pub(in crate::worker) struct Reply {
    pub(in crate::worker) status: u16,
    pub(super) id: RequestId,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    /// Whether the connection ends with it: what may still come is not worth reading, or not to be
    /// trusted.
    pub(in crate::worker) closes: bool,
}

impl Reply {
    /// A page that says `status`.
    pub(super) fn status(status: u16, id: RequestId) -> Self {
        Self {
            status,
            id,
            location: None,
            closes: matches!(status, 400 | 405 | 408 | 413 | 417 | 431 | 501),
        }
    }

    /// Sends the client to `location`; with 307 and 308 the method and the body, too.
    pub(super) fn redirect(status: u16, location: String, id: RequestId) -> Self {
        Self {
            location: Some(location),
            ..Self::status(status, id)
        }
    }

    /// The answer to `OPTIONS *`.
    pub(super) fn options(id: RequestId) -> Self {
        Self::status(200, id)
    }

    /// The answer to a request that goes no further.
    pub(super) fn rejection(rejection: Rejection, id: RequestId) -> Self {
        Self::status(rejection.status(), id)
    }

    /// The answer to a head that could not be read at all.
    pub(in crate::worker) fn unreadable(status: u16) -> Self {
        Self {
            closes: true,
            ..Self::status(status, RequestId::random())
        }
    }

    /// The `Allow` field, where the status wants one.
    pub(super) fn allow(&self) -> Option<&'static str> {
        matches!(self.status, 200 | 405).then_some(ALLOWED)
    }

    /// The page.
    pub(in crate::worker) fn page(&self) -> String {
        if self.status == 200 {
            return String::new();
        }
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let id = String::from_utf8_lossy(self.id.as_bytes());
        format!(
            "{} {}\nrequest {id}\n",
            self.status,
            reason.unwrap_or("Error")
        )
    }
}
