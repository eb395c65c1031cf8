//! Why a request got no (whole) response: what `worker::respond` turns into a status.

use std::{io, net::SocketAddr};

/// A request that could not be forwarded, or whose response broke off.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The backend has no endpoint that may be sent requests.
    #[error("no endpoint is ready")]
    NoEndpoint,
    /// The endpoint refused or reset the connection.
    #[error("connect to {endpoint}")]
    Connect {
        /// Where to.
        endpoint: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The endpoint did not accept the connection in time.
    #[error("connect to {endpoint} took too long")]
    ConnectTimeout {
        /// Where to.
        endpoint: SocketAddr,
    },
    /// The endpoint closed or reset the connection before the first byte of a response.
    #[error("{endpoint} closed the connection before it responded")]
    Unanswered {
        /// Where to.
        endpoint: SocketAddr,
        /// What the kernel said; `None` for an orderly close.
        source: Option<io::Error>,
    },
    /// The endpoint took no byte of the request for too long.
    #[error("{endpoint} took too long to read the request")]
    SendTimeout {
        /// Where to.
        endpoint: SocketAddr,
    },
    /// The endpoint sent no byte of the response for too long.
    #[error("{endpoint} took too long to respond")]
    ReadTimeout {
        /// Where to.
        endpoint: SocketAddr,
    },
    /// What the endpoint sent is no HTTP/1 response.
    #[error("response of {endpoint} is not valid")]
    Response {
        /// Where from.
        endpoint: SocketAddr,
        /// What is wrong.
        source: ResponseError,
    },
    /// The connection broke after the head of the response.
    #[error("response of {endpoint} broke off")]
    Truncated {
        /// Where from.
        endpoint: SocketAddr,
        /// What the kernel said; `None` for an orderly close.
        source: Option<io::Error>,
    },
    /// The request's body is larger than its route allows.
    #[error("request body is over the limit")]
    BodyTooLarge,
    /// The request's body broke off or is badly framed.
    #[error("request body could not be read")]
    Body(#[source] hyper::Error),
    /// The client sent no byte of the body for too long.
    #[error("request body came too slowly")]
    BodyTimeout,
}

/// Which side a failure is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
    /// Ours, or the configuration's.
    Internal,
}

impl ForwardError {
    /// Which side failed.
    pub fn side(&self) -> Side {
        match self {
            Self::NoEndpoint => Side::Internal,
            Self::BodyTooLarge | Self::Body(_) | Self::BodyTimeout => Side::Downstream,
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Unanswered { .. }
            | Self::SendTimeout { .. }
            | Self::ReadTimeout { .. }
            | Self::Response { .. }
            | Self::Truncated { .. } => Side::Upstream,
        }
    }

    /// Whether no connection could be made, so that no endpoint has seen the request.
    pub fn unsent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not the syntax of RFC 9112.
    #[error("malformed head")]
    Head,
    /// Head over 64 KiB, or more than 100 fields.
    #[error("head is too large")]
    TooLarge,
    /// Content-Length fields that differ or are no number.
    #[error("content-length is not one number")]
    ContentLength,
    /// A transfer coding other than `chunked`.
    #[error("transfer coding is not chunked")]
    TransferEncoding,
    /// 101 that nobody asked for.
    #[error("switches protocols unasked")]
    Unasked,
    /// Chunk sizes or line ends are wrong.
    #[error("malformed chunk")]
    Chunk,
}
