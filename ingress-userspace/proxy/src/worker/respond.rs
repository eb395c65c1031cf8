//! What the client gets: a forwarded response, or the status for what went wrong.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};

use super::request::RequestId;
use crate::upstream::{Download, ForwardError};

/// Who answers: what endpoints call themselves is nobody's business.
const SERVER: HeaderValue = HeaderValue::from_static("forebay");

/// The body of a response.
#[derive(Debug)]
pub(super) enum Payload {
    /// All of it; `None` once it has been taken.
    Whole(Option<Bytes>),
    /// As it comes from the endpoint.
    Streamed(Download),
}

impl Payload {
    pub(super) fn whole(body: Bytes) -> Self {
        Self::Whole(Some(body).filter(|body| !body.is_empty()))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Streamed(download) => Pin::new(download).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Streamed(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Self::Streamed(download) => download.size_hint(),
        }
    }
}

/// Passes on what an endpoint answered.
pub(super) fn forwarded(
    status: StatusCode,
    mut headers: HeaderMap,
    payload: Payload,
) -> Response<Payload> {
    headers.insert(header::SERVER, SERVER);
    let mut response = Response::new(payload);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Answers for an endpoint that did not.
pub(super) fn error(error: &ForwardError, id: &RequestId, version: Version) -> Response<Payload> {
    let code = match error {
        ForwardError::NoEndpoint => StatusCode::SERVICE_UNAVAILABLE,
        ForwardError::Connect { .. }
        | ForwardError::Unanswered { .. }
        | ForwardError::Response { .. }
        | ForwardError::Truncated { .. } => StatusCode::BAD_GATEWAY,
        ForwardError::ConnectTimeout { .. }
        | ForwardError::SendTimeout { .. }
        | ForwardError::ReadTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        ForwardError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ForwardError::Body(_) => StatusCode::BAD_REQUEST,
        ForwardError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
    };
    status(code, id, version)
}

/// A small page with the status and the request's identity.
pub(super) fn status(code: StatusCode, id: &RequestId, version: Version) -> Response<Payload> {
    let reason = code.canonical_reason().unwrap_or("Error");
    let page = format!(
        "{} {reason}\nrequest {}\n",
        code.as_str(),
        String::from_utf8_lossy(id.as_bytes())
    );
    let mut response = Response::new(Payload::whole(page.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::SERVER, SERVER);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if code == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    if closes(code) && version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether what may still come on the connection is not worth reading, or not to be trusted.
fn closes(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::BAD_REQUEST
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::EXPECTATION_FAILED
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// 308: the method and the body are to be sent again, to https.
pub(super) fn redirect(location: String, id: &RequestId, version: Version) -> Response<Payload> {
    let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) else {
        return status(StatusCode::BAD_REQUEST, id, version);
    };
    let mut response = status(StatusCode::PERMANENT_REDIRECT, id, version);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_failure_has_its_status() {
        let endpoint = ([192, 0, 2, 1], 80).into();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let id = RequestId::Made([b'0'; 32]);
        for (failure, code) in [
            (ForwardError::NoEndpoint, 503),
            (
                ForwardError::Connect {
                    endpoint,
                    source: refused(),
                },
                502,
            ),
            (ForwardError::ConnectTimeout { endpoint }, 504),
            (
                ForwardError::Unanswered {
                    endpoint,
                    source: None,
                },
                502,
            ),
            (ForwardError::SendTimeout { endpoint }, 504),
            (ForwardError::ReadTimeout { endpoint }, 504),
            (ForwardError::BodyTooLarge, 413),
            (ForwardError::BodyTimeout, 408),
        ] {
            let response = error(&failure, &id, Version::HTTP_11);
            assert_eq!(response.status(), code, "{failure}");
            assert_eq!(
                response.headers().contains_key("connection"),
                matches!(code, 408 | 413),
                "{failure}"
            );
            assert!(
                !error(&failure, &id, Version::HTTP_2)
                    .headers()
                    .contains_key("connection"),
                "{failure}"
            );
        }
    }
}
