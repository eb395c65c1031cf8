//! Bodies between hyper's form and ours.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::streams::Progress;
use crate::{
    http1::{Fields, each_trailer, is_barred_from_trailers},
    upstream::{self, ForwardError, RequestBody, RequestBodyError},
    worker::{record::Record, state::Worker},
};

/// Most bytes of a response that are handed to hyper at once: a frame of the default size (RFC 9113
/// section 6.5.2). It asks again when most of them have left, so that a slow client which shares its
/// connection among many streams is not taken for one that stands still.
const PIECE: usize = 16 * 1024;

/// The body of a request.
#[derive(Debug)]
pub(super) struct RequestStream {
    incoming: Incoming,
    data: Bytes,
    trailers: HeaderMap,
    /// The request says `TE: trailers`: its own go on.
    pub(super) takes_trailers: bool,
    ended: bool,
}

impl RequestStream {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            data: Bytes::new(),
            trailers: HeaderMap::new(),
            takes_trailers: false,
            ended: false,
        }
    }

    /// Whether it may have a byte.
    pub(super) fn has_data(&self) -> bool {
        !self.incoming.is_end_stream()
    }
}

impl RequestBody for RequestStream {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
        while self.data.is_empty() && !self.ended {
            let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
            match frame
                .transpose()
                .map_err(RequestBodyError::Stream)?
                .map(Frame::into_data)
            {
                Some(Ok(data)) => self.data = data,
                Some(Err(frame)) => self.trailers = frame.into_trailers().unwrap_or_default(),
                None if self.incoming.is_end_stream() => self.ended = true,
                // hyper takes NO_ERROR, sent by the client or by its own keep-alive, for an end. Only
                // END_STREAM is one (RFC 9113 section 8.1): what came is not whole.
                None => return Poll::Ready(Err(RequestBodyError::Gone(None))),
            }
        }
        Poll::Ready(Ok(Some(&*self.data).filter(|data| !data.is_empty())))
    }

    fn consume(&mut self, count: usize) {
        self.data.advance(count.min(self.data.len()));
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        for (name, value) in self.trailers.iter().filter(|_| self.takes_trailers) {
            if !is_barred_from_trailers(name.as_str().as_bytes()) {
                for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    out.extend_from_slice(piece);
                }
            }
        }
    }

    /// hyper drops the request's future when its stream is reset.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// hyper's server has no way to send one.
    fn interim(&mut self, _: u16, _: &[u8], _: Fields<'_>) {}
}

/// The body of an endpoint's response.
pub(super) struct Download {
    worker: Rc<Worker>,
    download: upstream::Download<RequestStream>,
    ended: bool,
    /// What is to be said after the piece that was there before it.
    failed: Option<ForwardError>,
}

impl Download {
    pub(super) fn new(worker: Rc<Worker>, download: upstream::Download<RequestStream>) -> Self {
        let ended = download.length() == Some(0);
        Self {
            worker,
            download,
            ended,
            failed: None,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        if let Some(error) = self.failed.take() {
            return self.fail(error);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.poll_piece(cx)) {
            Ok(piece) => piece,
            Err(error) => return self.fail(error),
        };
        if piece.is_empty() {
            self.ended = true;
            let trailers = trailers(self.download.trailers());
            return Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    /// All that is there, up to a limit; empty at the end. Chunks that came together leave together:
    /// clients end a connection that brings very many small frames.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, ForwardError>> {
        let now = self.worker.now();
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            match self.download.poll_data(now, cx) {
                Poll::Ready(Ok(Some(data))) => {
                    let data = data.get(..PIECE - piece.len()).unwrap_or(data);
                    let count = data.len();
                    piece.extend_from_slice(data);
                    self.download.consume(count);
                }
                Poll::Ready(Ok(None)) => {
                    // Known at once, the end goes along with the last piece.
                    self.ended = self.download.trailers().is_empty();
                    break;
                }
                Poll::Ready(Err(error)) if piece.is_empty() => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                Poll::Pending if piece.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if piece.len() == PIECE && self.download.length() == Some(0) {
            self.ended = matches!(self.download.poll_data(now, cx), Poll::Ready(Ok(None)));
        }
        Poll::Ready(Ok(piece))
    }

    fn fail(&mut self, error: ForwardError) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "response broke off"
        );
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

fn trailers(section: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // The section was checked when it arrived.
    let _ = each_trailer(section, |name, value| {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            trailers.append(name, value);
        }
    });
    trailers
}

/// The body of a response, with the record of its request.
pub(super) struct Payload {
    content: Content,
    record: Record,
    progress: Rc<Progress>,
}

enum Content {
    /// All of it; empty once it has been taken.
    Whole(Bytes),
    /// As it comes from the endpoint.
    Streamed(Box<Download>),
}

impl Payload {
    pub(super) fn whole(page: Bytes, mut record: Record, progress: Rc<Progress>) -> Self {
        if page.is_empty() {
            record.complete();
            progress.served();
        } else {
            progress.handed_over(record.now());
        }
        Self {
            content: Content::Whole(page),
            record,
            progress,
        }
    }

    pub(super) fn streamed(download: Download, mut record: Record, progress: Rc<Progress>) -> Self {
        if download.ended {
            record.complete();
            progress.served();
        } else {
            // Until hyper asks for the body, the client has left no room for it.
            progress.handed_over(record.now());
        }
        Self {
            content: Content::Streamed(Box::new(download)),
            record,
            progress,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        let this = self.get_mut();
        // Asked for more, hyper has passed on what it had.
        this.progress.taken();
        let frame = match &mut this.content {
            Content::Whole(page) if page.is_empty() => None,
            Content::Whole(page) => Some(Ok(Frame::data(std::mem::take(page)))),
            Content::Streamed(download) => ready!(download.poll_frame(cx)),
        };
        if let Some(Ok(frame)) = &frame {
            this.record
                .sent(frame.data_ref().map_or(0, |data| data.len() as u64));
            this.progress.handed_over(this.record.now());
        }
        if this.is_end_stream() {
            this.progress.served();
            if !matches!(frame, Some(Err(_))) {
                this.record.complete();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(page) => page.is_empty(),
            Content::Streamed(download) => download.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(page) => SizeHint::with_exact(page.len() as u64),
            Content::Streamed(download) => download
                .download
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
