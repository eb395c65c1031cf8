//! The bodies of responses, as a sender takes them.

use std::task::{Context, Poll};

use crate::{
    http1::{Source, each_trailer},
    upstream::{Download, ForwardError, RequestBody},
    worker::state::Worker,
};

/// The body of an endpoint's response.
pub(super) struct Response<'w, B> {
    pub(super) worker: &'w Worker,
    /// `None` where all of it is with the sender.
    pub(super) download: Option<Download<B>>,
    pub(super) takes_trailers: bool,
}

impl<B: RequestBody> Source for Response<'_, B> {
    type Error = ForwardError;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, ForwardError>> {
        match &mut self.download {
            Some(download) => download.poll_data(self.worker.now(), cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(download) = &mut self.download {
            download.consume(count);
        }
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        if let Some(download) = self.download.as_ref().filter(|_| self.takes_trailers) {
            write_trailers(download.trailers(), out);
        }
    }
}

/// Appends the trailers that may go on.
pub(super) fn write_trailers(section: &[u8], out: &mut Vec<u8>) {
    // The section was checked when it arrived.
    let _ = each_trailer(section, |name, value| {
        for piece in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(piece);
        }
    });
}

/// No body.
pub(super) struct Nothing;

impl Source for Nothing {
    type Error = std::convert::Infallible;

    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Self::Error>> {
        Poll::Ready(Ok(None))
    }

    fn consume(&mut self, _: usize) {}

    fn write_trailers(&self, _: &mut Vec<u8>) {}
}
