//! One request and the head of its response over one connection.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use super::{
    Download, ForwardError, Lease, Upload,
    response::{self, Framing, Head},
    upload::{Waiting, poll_send},
};

/// How much is read at once while a head is awaited.
const HEAD_READ: usize = 4 * 1024;

/// How long a request may stand still. Each counts from the last byte that moved.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the endpoint to send a part of the response.
    pub read: Duration,
    /// For the endpoint to take a part of the request.
    pub send: Duration,
    /// For the client to send a part of the body.
    pub body: Duration,
}

/// What an exchange has to know of the request besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The method is HEAD: the response has no body.
    pub head: bool,
    /// An upgrade to a WebSocket is asked for.
    pub upgrade: bool,
    /// When the request began.
    pub started: Instant,
    /// How long it may stand still.
    pub timeouts: Timeouts,
}

/// A response whose head has arrived.
#[derive(Debug)]
pub struct Answer {
    /// Its status; the fields are in the map that [`exchange`] was given.
    pub status: StatusCode,
    /// Its body, or the connection it became.
    pub body: ReplyBody,
}

/// What follows the head of a response.
#[derive(Debug)]
pub enum ReplyBody {
    /// Nothing, or all of a body that came with its head; the connection is already free.
    Whole(Bytes),
    /// A body that is still arriving.
    Streamed(Download),
    /// 101: the connection, and what the endpoint has sent on it.
    Switched(TcpStream, BytesMut),
}

/// Sends the head in [`Lease::head`] and the body in `upload`, and awaits the head of the response.
///
/// A response may come before the request is all sent; then the rest of the request is sent while
/// the response's body is read. `headers` is cleared and filled once a head has arrived.
///
/// # Errors
/// See [`ForwardError`]; `upload` is left in place unless a response has begun.
///
/// # Cancel safety
/// Dropping the future closes the connection, which tells the endpoint to stop.
pub async fn exchange(
    mut lease: Lease,
    upload: &mut Option<Upload>,
    headers: &mut HeaderMap,
    ask: Ask,
) -> Result<Answer, ForwardError> {
    let mut sending = true;
    let mut waiting = Waiting::Response;
    let mut armed = None;
    let head = poll_fn(|cx| {
        let mut progress = false;
        let mut failure = None;
        if sending {
            match poll_send(&mut lease, upload, &mut waiting, &mut progress, cx) {
                Poll::Ready(Ok(())) => (sending, waiting) = (false, Waiting::Response),
                // The endpoint may have answered before it stopped reading.
                Poll::Ready(Err(error @ ForwardError::Unanswered { .. })) => failure = Some(error),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        match (poll_head(&mut lease, headers, ask, cx), failure) {
            (Poll::Ready(Ok(head)), None) => Poll::Ready(Ok(head)),
            (Poll::Ready(Ok(head)), Some(_)) => {
                *upload = None;
                sending = false;
                Poll::Ready(Ok(Head {
                    keep_alive: false,
                    ..head
                }))
            }
            (_, Some(error)) => Poll::Ready(Err(error)),
            (Poll::Ready(Err(error)), None) => Poll::Ready(Err(error)),
            (Poll::Pending, None) => {
                if armed.is_none() && !sending {
                    // A request without a body asks for no other time than that it began at.
                    lease
                        .connection
                        .deadline
                        .set(ask.started + ask.timeouts.read);
                } else if progress || armed != Some(waiting) {
                    lease
                        .connection
                        .deadline
                        .set(Instant::now() + ask.timeouts.of(waiting));
                }
                armed = Some(waiting);
                lease
                    .connection
                    .deadline
                    .poll(cx)
                    .map(|()| Err(timeout(&lease, waiting)))
            }
        }
    })
    .await?;
    Ok(answer(lease, head, upload.take().filter(|_| sending), ask))
}

fn answer(mut lease: Lease, head: Head, upload: Option<Upload>, ask: Ask) -> Answer {
    let status = head.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let (stream, received) = lease.into_stream();
        return Answer {
            status,
            body: ReplyBody::Switched(stream, received),
        };
    }
    if let (Framing::Length(length), None) = (&head.framing, &upload)
        && let Ok(length) = usize::try_from(*length)
        && lease.connection.inbound.len() >= length
    {
        let body = lease.connection.inbound.split_to(length).freeze();
        if head.keep_alive {
            lease.give_back(ask.started);
        }
        return Answer {
            status,
            body: ReplyBody::Whole(body),
        };
    }
    Answer {
        status,
        body: ReplyBody::Streamed(Download::new(lease, head, upload, ask.timeouts)),
    }
}

fn poll_head(
    lease: &mut Lease,
    headers: &mut HeaderMap,
    ask: Ask,
    cx: &mut Context<'_>,
) -> Poll<Result<Head, ForwardError>> {
    let endpoint = lease.address();
    let context = response::Context {
        head: ask.head,
        upgrade: ask.upgrade,
    };
    loop {
        let received = match poll_receive(lease, HEAD_READ, cx) {
            Poll::Ready(received) => received,
            Poll::Pending => return Poll::Pending,
        };
        let connection = &mut *lease.connection;
        match received {
            Ok(0) if connection.inbound.is_empty() => {
                return Poll::Ready(Err(ForwardError::Unanswered {
                    endpoint,
                    source: None,
                }));
            }
            Err(error) if connection.inbound.is_empty() => {
                return Poll::Ready(Err(ForwardError::Unanswered {
                    endpoint,
                    source: Some(error),
                }));
            }
            Ok(0) => {
                return Poll::Ready(Err(ForwardError::Truncated {
                    endpoint,
                    source: None,
                }));
            }
            Err(error) => {
                return Poll::Ready(Err(ForwardError::Truncated {
                    endpoint,
                    source: Some(error),
                }));
            }
            Ok(_) => {}
        }
        let head = response::take_head(
            &mut connection.inbound,
            &mut connection.spans,
            headers,
            context,
        )
        .map_err(|source| ForwardError::Response { endpoint, source })?;
        if let Some(head) = head {
            return Poll::Ready(Ok(head));
        }
    }
}

/// Reads up to `size` bytes into the connection's buffer; 0 is the end.
pub(super) fn poll_receive(
    lease: &mut Lease,
    size: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let connection = &mut *lease.connection;
    connection.inbound.reserve(size);
    // The future holds no state between polls.
    pin!(connection.stream.read_buf(&mut connection.inbound)).poll(cx)
}

pub(super) fn timeout(lease: &Lease, waiting: Waiting) -> ForwardError {
    let endpoint = lease.address();
    match waiting {
        Waiting::Client => ForwardError::BodyTimeout,
        Waiting::Socket => ForwardError::SendTimeout { endpoint },
        Waiting::Response => ForwardError::ReadTimeout { endpoint },
    }
}

impl Timeouts {
    pub(super) fn of(&self, waiting: Waiting) -> Duration {
        match waiting {
            Waiting::Client => self.body,
            Waiting::Socket => self.send,
            Waiting::Response => self.read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use socket2::SockRef;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::{super::Pool, *};

    /// An endpoint that answers without reading, over sockets so small that the head does not fit.
    async fn answered_early(response: &[u8]) -> (Pool, Rc<super::super::EndpointPool>, Answer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(listener.local_addr().unwrap());
        let (stream, accepted) =
            tokio::join!(TcpStream::connect(endpoint.address()), listener.accept());
        let (stream, mut server) = (stream.unwrap(), accepted.unwrap().0);
        SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        server.write_all(response).await.unwrap();
        stream.readable().await.unwrap();
        let mut lease = endpoint.adopt(stream);
        lease.head().extend_from_slice(&[b'x'; 1 << 20]);
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            read: second,
            send: second,
            body: second,
        };
        let ask = Ask {
            head: false,
            upgrade: false,
            started: Instant::now(),
            timeouts,
        };
        let answer = exchange(lease, &mut None, &mut HeaderMap::new(), ask)
            .await
            .unwrap();
        drop(server);
        (pool, endpoint, answer)
    }

    #[tokio::test]
    async fn a_connection_with_a_head_half_sent_carries_no_other_request() {
        for response in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            let (pool, _endpoint, answer) = answered_early(response).await;
            if let ReplyBody::Streamed(mut download) = answer.body {
                use http_body::Body;
                while poll_fn(|cx| std::pin::Pin::new(&mut download).poll_frame(cx))
                    .await
                    .is_some()
                {}
            }
            assert_eq!(pool.idle(), 0, "{}", String::from_utf8_lossy(response));
        }
    }
}
