//! Sends a request: its head, then its body as it comes, never more than one piece of it in memory.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::AsyncWrite;

use super::{ForwardError, Lease};

/// The body of a request on its way to an endpoint.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
    chunked: bool,
    /// How many more bytes the route allows; `None` is without a limit.
    left: Option<u64>,
    data: Bytes,
    /// What follows `data`: the line end of a chunk.
    tail: &'static [u8],
    ended: bool,
    touched: bool,
}

/// Whom a request in sending waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The client, for more of the body.
    Client,
    /// The endpoint's socket, to take what there is.
    Socket,
    /// The endpoint, for its response.
    Response,
}

impl Upload {
    /// Sends `body` with the framing that the head announced: `chunked`, or by its length.
    pub fn new(body: Incoming, chunked: bool, limit: Option<u64>) -> Self {
        Self {
            body,
            chunked,
            left: limit,
            data: Bytes::new(),
            tail: b"",
            ended: false,
            touched: false,
        }
    }

    /// Whether a part of the body has been taken from the client, so that it cannot be sent twice.
    pub fn touched(&self) -> bool {
        self.touched
    }

    /// Fetches the next piece once the last one is on its way; `false` while the client has none.
    fn fetch(
        &mut self,
        outbound: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<bool, ForwardError> {
        while self.data.is_empty() && self.tail.is_empty() && !self.ended {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(false);
            };
            self.touched = true;
            match frame {
                // Trailers of requests go no further.
                Some(Ok(frame)) => self.data = frame.into_data().unwrap_or_default(),
                Some(Err(source)) => return Err(ForwardError::Body(source)),
                None => {
                    self.ended = true;
                    if self.chunked {
                        outbound.extend_from_slice(b"0\r\n\r\n");
                    }
                }
            }
            self.count()?;
            if self.chunked && !self.data.is_empty() {
                // Writing to memory cannot fail.
                let _ = write!(outbound, "{:x}\r\n", self.data.len());
                self.tail = b"\r\n";
            }
        }
        Ok(true)
    }

    fn count(&mut self) -> Result<(), ForwardError> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(self.data.len() as u64)
                .ok_or(ForwardError::BodyTooLarge)?;
        }
        Ok(())
    }
}

/// Sends what there is of the request; ready once all of it is sent and `upload` is `None`.
///
/// While pending, `waiting` says for whom, and `progress` whether anything moved.
pub(super) fn poll_send(
    lease: &mut Lease,
    upload: &mut Option<Upload>,
    waiting: &mut Waiting,
    progress: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ForwardError>> {
    let address = lease.address();
    let connection = &mut *lease.connection;
    loop {
        let mut fed = true;
        if let Some(upload) = upload {
            fed = upload.fetch(&mut connection.outbound, cx)?;
        }
        let head = connection
            .outbound
            .get(connection.sent..)
            .unwrap_or_default();
        let (data, tail) = upload
            .as_ref()
            .map_or((&b""[..], &b""[..]), |upload| (&upload.data, upload.tail));
        if head.is_empty() && data.is_empty() && tail.is_empty() {
            connection.outbound.clear();
            connection.sent = 0;
            if !fed {
                *waiting = Waiting::Client;
                return Poll::Pending;
            }
            *upload = None;
            return Poll::Ready(Ok(()));
        }
        *waiting = Waiting::Socket;
        let stream = Pin::new(&mut connection.stream);
        let written = if data.is_empty() && tail.is_empty() {
            ready!(stream.poll_write(cx, head))
        } else {
            ready!(stream.poll_write_vectored(
                cx,
                &[IoSlice::new(head), IoSlice::new(data), IoSlice::new(tail)]
            ))
        };
        let mut written = match written {
            Ok(0) => return Poll::Ready(Err(unsent(address, io::ErrorKind::WriteZero.into()))),
            Ok(written) => written,
            Err(error) => return Poll::Ready(Err(unsent(address, error))),
        };
        *progress = true;
        let of_head = written.min(head.len());
        connection.sent += of_head;
        written -= of_head;
        if let Some(upload) = upload {
            let of_data = written.min(upload.data.len());
            upload.data.advance(of_data);
            upload.tail = upload.tail.get(written - of_data..).unwrap_or_default();
        }
    }
}

fn unsent(endpoint: std::net::SocketAddr, source: io::Error) -> ForwardError {
    ForwardError::Unanswered {
        endpoint,
        source: Some(source),
    }
}
