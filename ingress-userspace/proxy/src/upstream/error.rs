//! Why a request got no (whole) response: what `respond` turns into a status.

use std::{io, net::SocketAddr};

use super::RequestBodyError;
use crate::http1::{BodyError, FramingError, HeadError};

/// A request that could not be forwarded, or whose response broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The upstream has no endpoint that may be sent requests.
    #[error("no endpoint is ready")]
    NoEndpoint,
    /// The endpoint refused or reset the connection.
    #[error("connect to {endpoint}")]
    Connect {
        endpoint: SocketAddr,
        source: io::Error,
    },
    /// The endpoint did not accept the connection in time.
    #[error("connect to {endpoint} took too long")]
    ConnectTimeout { endpoint: SocketAddr },
    /// The endpoint closed or reset the connection before the first byte of a response; `source` is
    /// `None` for an orderly close.
    #[error("{endpoint} closed the connection before it responded")]
    Unanswered {
        endpoint: SocketAddr,
        source: Option<io::Error>,
    },
    /// The endpoint took no byte of the request for too long.
    #[error("{endpoint} took too long to read the request")]
    SendTimeout { endpoint: SocketAddr },
    /// The endpoint sent no byte of the response for too long.
    #[error("{endpoint} took too long to respond")]
    ReadTimeout { endpoint: SocketAddr },
    /// What the endpoint sent is no HTTP/1 response.
    #[error("response of {endpoint} is not valid")]
    Response {
        endpoint: SocketAddr,
        source: ResponseError,
    },
    /// The connection broke after the head of the response had begun; `source` is `None` for an
    /// orderly close.
    #[error("response of {endpoint} broke off")]
    Truncated {
        endpoint: SocketAddr,
        source: Option<io::Error>,
    },
    /// The request's body is larger than its route allows.
    #[error("request body is over the limit")]
    BodyTooLarge,
    /// The request's body broke off or is badly framed.
    #[error("request body could not be read")]
    Body(#[from] RequestBodyError),
    /// The client sent no byte of the body for too long.
    #[error("request body came too slowly")]
    BodyTimeout,
    /// The client went away while its request was served.
    #[error("client closed the connection")]
    ClientGone,
}

/// Which side a failure is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
    /// Ours, or the configuration's.
    Internal,
}

impl ForwardError {
    /// Which side failed.
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::NoEndpoint => Side::Internal,
            Self::BodyTooLarge | Self::Body(_) | Self::BodyTimeout | Self::ClientGone => {
                Side::Downstream
            }
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Unanswered { .. }
            | Self::SendTimeout { .. }
            | Self::ReadTimeout { .. }
            | Self::Response { .. }
            | Self::Truncated { .. } => Side::Upstream,
        }
    }
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResponseError {
    /// Its head is malformed or too large.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Its fields do not say where it ends.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Its body breaks its framing.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// 101 that nobody asked for.
    #[error("switches protocols unasked")]
    Unasked,
}
