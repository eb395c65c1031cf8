//! What a request says of its connection, and what becomes of that.

use http::Version;

use crate::{
    http1::{Name, is_keep_alive, options},
    worker::phases::RequestHead,
};

/// How a request's connection goes on.
pub(super) enum After {
    /// With the next request.
    Next,
    /// Not at all: the client has asked for that and has nothing more to say.
    Done,
    /// Not at all, once the client has seen the end.
    Close,
    /// Not at all, at once: the response is not whole, or the client is gone.
    Abort,
}

/// What a request says of its connection.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// The client wants to go on.
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl Terms {
    /// Of what could not be read.
    pub(super) const UNKNOWN: Self = Self {
        version: Version::HTTP_11,
        is_head: false,
        keep_alive: false,
        expects_continue: false,
    };

    /// Of a request whose head was read.
    pub(super) fn of(request: &RequestHead<'_>) -> Self {
        let version = request.version;
        let is_head = request.method == b"HEAD";
        let mut terms = Self {
            version,
            is_head,
            keep_alive: version == Version::HTTP_11,
            expects_continue: false,
        };
        let mut closes = false;
        for (kind, _, value) in request.fields.iter() {
            match kind {
                Name::Connection if is_keep_alive(value) => terms.keep_alive = true,
                Name::Connection => {
                    for option in options(value) {
                        closes |= option.eq_ignore_ascii_case(b"close");
                        terms.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                Name::Expect => terms.expects_continue = version == Version::HTTP_11,
                _ => {}
            }
        }
        terms.keep_alive &= !closes;
        terms
    }
}
