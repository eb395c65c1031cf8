//! One request and the head of its response over one connection.

use std::{
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Download, ForwardError, Head, Lease, Outgoing, RequestBody,
    request::Waiting,
    response::{self, read_head},
};
use crate::{
    http1::{Body, Fields, Framing, GATHER_LIMIT, HeadError},
    net::{Inbound, Outbound, Socket},
};

/// Most bytes of interim responses (1xx) to one request. Their number has no limit of its own, and an
/// endpoint that sends them faster than they are read keeps its deadline from being looked at.
const INTERIM_LIMIT: usize = 64 * 1024;

/// How long a request may stand still. Each counts from the last byte that moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the endpoint to send a part of the response.
    pub(crate) read: Duration,
    /// For the endpoint to take a part of the request.
    pub(crate) send: Duration,
    /// For the client to send a part of the body.
    pub(crate) body: Duration,
}

/// What an exchange has to know of the request besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// The method is HEAD: the response has no body.
    pub(crate) head: bool,
    /// An upgrade to a WebSocket is asked for.
    pub(crate) upgrade: bool,
    /// How long it may stand still.
    pub(crate) timeouts: Timeouts,
}

/// A request in exchange for a response: owns the connection and the request until it is decided
/// whether another try is needed.
#[derive(Debug)]
pub(crate) struct Exchange<B> {
    lease: Lease,
    request: Outgoing<B>,
    ask: Ask,
    waiting: Waiting,
    /// There is a deadline for that.
    waits: bool,
    /// All of the request is sent, or the endpoint wants no more of it.
    sent: bool,
    /// Sending failed: the connection carries no other request. Boxed, for it is rare and large.
    failure: Option<Box<ForwardError>>,
    /// Bytes of interim responses so far.
    interim: usize,
}

impl<B: RequestBody> Exchange<B> {
    /// Begins to send `request` over `lease`.
    pub(crate) fn new(mut lease: Lease, request: Outgoing<B>, ask: Ask) -> Self {
        lease.connection.deadline.clear();
        Self {
            lease,
            request,
            ask,
            waiting: Waiting::Socket,
            waits: false,
            sent: false,
            failure: None,
            interim: 0,
        }
    }

    /// Where the request goes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.lease.address()
    }

    /// Whether the connection has carried another request before.
    pub(crate) fn reused(&self) -> bool {
        self.lease.reused()
    }

    /// Whether the request can be sent again from the start.
    pub(crate) fn is_replayable(&self) -> bool {
        self.request.is_replayable()
    }

    /// Gives the request back for another try; the connection is closed.
    pub(crate) fn into_request(self) -> Outgoing<B> {
        self.request
    }

    /// Sends the request and reads the final head of the response, whose fields are [`Self::fields`];
    /// interim ones go to the client on the way.
    ///
    /// A response may come before the request is all sent. Then the rest is sent while the response's
    /// body is read; if the endpoint refuses it, the response goes on all the same.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub(crate) fn poll_head(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, ForwardError>> {
        let endpoint = self.address();
        let before = self.waiting;
        let mut progress = false;
        if !self.sent {
            let socket = &self.lease.connection.socket;
            match self
                .request
                .poll_send(socket, endpoint, &mut self.waiting, &mut progress, cx)
            {
                Poll::Ready(Ok(())) => {
                    (self.sent, self.waiting, progress) = (true, Waiting::Response, true)
                }
                // The endpoint may have answered before it stopped reading. What it sent may be there
                // before the runtime says so: it is read up to its end.
                Poll::Ready(Err(error @ ForwardError::Unanswered { .. })) => {
                    (self.sent, self.waiting, progress) = (true, Waiting::Response, true);
                    self.failure = Some(Box::new(error));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(head) = self.poll_receive_head(&mut progress, cx) {
            return Poll::Ready(
                head.map_err(|error| self.failure.take().map_or(error, |first| *first)),
            );
        }
        let connection = &mut self.lease.connection;
        let limit = self.ask.timeouts.of(self.waiting);
        if progress || before != self.waiting || !self.waits {
            self.waits = true;
            connection.wait(self.request.deadline(), now, limit);
        }
        if connection
            .poll_over(self.request.deadline(), self.waiting, now, limit, cx)
            .is_ready()
        {
            return Poll::Ready(Err(timeout(endpoint, self.waiting)));
        }
        self.request
            .poll_gone(self.waiting, cx)
            .map(|()| Err(ForwardError::ClientGone))
    }

    /// Reads the final head; an interim one that comes before it counts as `progress`.
    fn poll_receive_head(
        &mut self,
        progress: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, ForwardError>> {
        let endpoint = self.address();
        let context = response::Context {
            head: self.ask.head,
            upgrade: self.ask.upgrade,
        };
        let connection = &mut *self.lease.connection;
        loop {
            if !connection.inbound.is_empty() {
                let head = read_head(
                    connection.inbound.data(),
                    &mut connection.finder,
                    &mut connection.fields,
                    context,
                )
                .map_err(|source| ForwardError::Response { endpoint, source })?;
                match head {
                    Some(head) if head.is_interim() => {
                        *progress = true;
                        self.interim += head.length;
                        if self.interim > INTERIM_LIMIT {
                            let source = HeadError::TooLarge.into();
                            return Poll::Ready(Err(ForwardError::Response { endpoint, source }));
                        }
                        let bytes = connection
                            .inbound
                            .data()
                            .get(..head.length)
                            .unwrap_or_default();
                        let fields = Fields {
                            head: bytes,
                            fields: &connection.fields,
                        };
                        self.request.client().interim(
                            head.status,
                            head.reason.of_head(bytes),
                            fields,
                        );
                        connection.inbound.consume(head.length);
                        continue;
                    }
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => {}
                }
            }
            let socket = &connection.socket;
            let received = ready!(
                connection
                    .inbound
                    .poll_fill(cx, |cx, space| socket.poll_recv(cx, space))
            );
            let source = match received {
                Ok(count) if count > 0 => continue,
                Ok(_) => None,
                Err(error) => Some(error),
            };
            return Poll::Ready(Err(if connection.inbound.is_empty() {
                ForwardError::Unanswered { endpoint, source }
            } else {
                ForwardError::Truncated { endpoint, source }
            }));
        }
    }

    /// The fields of the head that was read last.
    pub(crate) fn fields(&self, head: &Head) -> Fields<'_> {
        let connection = &*self.lease.connection;
        let bytes = connection
            .inbound
            .data()
            .get(..head.length)
            .unwrap_or_default();
        Fields {
            head: bytes,
            fields: &connection.fields,
        }
    }

    /// Appends the body of the response whose final `head` was read to `out`, and gives the
    /// connection back: where all of it has arrived, the request is sent, and the whole of `out` is
    /// small enough for a copy to cost less than a piece of its own. Otherwise nothing has changed.
    pub(crate) fn gather(
        mut self: Box<Self>,
        head: &Head,
        now: Instant,
        out: &mut Outbound,
    ) -> Result<(), Box<Self>> {
        let inbound = &mut self.lease.connection.inbound;
        let arrived = inbound.data().get(head.length..).unwrap_or_default();
        let body = match head.framing {
            Framing::Length(length) => usize::try_from(length)
                .ok()
                .and_then(|length| arrived.get(..length)),
            Framing::Chunked | Framing::Close => None,
        };
        let is_over = self.sent && self.failure.is_none();
        let Some(body) = body.filter(|body| is_over && out.len() + body.len() <= GATHER_LIMIT)
        else {
            return Err(self);
        };
        out.put(&[body]);
        let length = head.length + body.len();
        inbound.consume(length);
        self.lease.give_back(now, head.idle_time);
        Ok(())
    }

    /// Goes on to the body of the response whose final `head` was read.
    pub(crate) fn into_download(mut self, head: &Head, now: Instant) -> Download<B> {
        self.lease.connection.inbound.consume(head.length);
        let Self {
            lease,
            request,
            ask,
            waiting,
            sent,
            failure,
            ..
        } = self;
        let idle_time = match failure {
            Some(_) => Duration::ZERO,
            None => head.idle_time,
        };
        let mut download = Download::new(
            lease,
            Body::new(head.framing),
            idle_time,
            (request, sent),
            ask.timeouts,
            waiting,
        );
        download.finish_if_empty(now);
        download
    }

    /// The connection that 101 has turned into something else, and what the endpoint sent on it.
    pub(crate) fn into_tunnel(mut self, head: &Head) -> (Socket, Inbound) {
        self.lease.connection.inbound.consume(head.length);
        self.lease.into_parts()
    }
}

pub(super) fn timeout(endpoint: SocketAddr, waiting: Waiting) -> ForwardError {
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
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        io::{Read, Write},
        net::Shutdown,
        rc::Rc,
    };

    use socket2::SockRef;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::{
        super::{
            EndpointPool, Pool, RequestBodyError,
            peer::{Peer, Protocol},
        },
        *,
    };
    use crate::{http1::Announced, net::Deadline};

    /// A body of so many bytes, all there.
    struct Whole(Vec<u8>);

    impl RequestBody for Whole {
        fn poll_data(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
            Poll::Ready(Ok(Some(&*self.0).filter(|data| !data.is_empty())))
        }

        fn consume(&mut self, count: usize) {
            self.0.drain(..count);
        }

        fn write_trailers(&self, _: &mut Vec<u8>) {}

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn interim(&mut self, _: u16, _: &[u8], _: Fields<'_>) {}
    }

    fn request(head: &[u8], body: Option<usize>) -> Outgoing<Whole> {
        let mut bytes = Outbound::new();
        bytes.extend_from_slice(head);
        let framing = if body.is_some() {
            Announced::Chunks
        } else {
            Announced::Nothing
        };
        Outgoing::new(bytes, Whole(vec![b'x'; body.unwrap_or(0)]), framing, None)
    }

    /// An endpoint that answers without reading, over sockets so small that the request does not fit.
    async fn answered_early(response: &[u8], request: Outgoing<Whole>) -> (Pool, Rc<EndpointPool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let pool = Pool::default();
        let endpoint = pool.endpoint(Peer {
            address: listener.local_addr().unwrap(),
            protocol: Protocol::Http1,
        });
        let (lease, accepted) =
            tokio::join!(endpoint.connect(Duration::from_secs(5)), listener.accept());
        let (lease, mut server) = (lease.unwrap(), accepted.unwrap().0);
        server.write_all(response).await.unwrap();
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            read: second,
            send: second,
            body: second,
        };
        let mut exchange = Exchange::new(
            lease,
            request,
            Ask {
                head: false,
                upgrade: false,
                timeouts,
            },
        );
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        let mut download = exchange.into_download(&head, now);
        while let Some(count) = poll_fn(|cx| {
            download
                .poll_data(now, cx)
                .map_ok(|data| data.map(<[u8]>::len))
        })
        .await
        .unwrap()
        {
            download.consume(count);
        }
        drop(server);
        (pool, endpoint)
    }

    #[tokio::test]
    async fn a_connection_with_a_request_half_sent_carries_no_other() {
        let length = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..];
        let chunks =
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..];
        for response in [length, chunks] {
            for (head, body) in [(4 << 20, None), (10, Some(4 << 20))] {
                let (pool, _endpoint) =
                    answered_early(response, request(&vec![b'x'; head], body)).await;
                let response = String::from_utf8_lossy(response);
                assert_eq!(
                    pool.idle(),
                    0,
                    "head of {head}, body of {body:?}, {response}"
                );
            }
            let (pool, _endpoint) =
                answered_early(response, request(b"GET / HTTP/1.1\r\n\r\n", None)).await;
            assert_eq!(pool.idle(), 1, "a request that was sent whole");
        }
    }

    /// An endpoint on a thread of its own, and a connection to it.
    async fn connected(pool: &Pool) -> (Lease, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = pool.endpoint(Peer {
            address: listener.local_addr().unwrap(),
            protocol: Protocol::Http1,
        });
        let lease = endpoint.connect(Duration::from_secs(5)).await.unwrap();
        (lease, listener.accept().unwrap().0)
    }

    fn ask(limit: Duration) -> Ask {
        Ask {
            head: false,
            upgrade: false,
            timeouts: Timeouts {
                read: limit,
                send: limit,
                body: limit,
            },
        }
    }

    #[tokio::test]
    async fn an_answer_that_came_before_a_reset_is_not_lost() {
        let pool = Pool::default();
        let (lease, mut server) = connected(&pool).await;
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        server.write_all(answer).unwrap();
        SockRef::from(&server)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(server);
        // The runtime has not looked at the socket since then: writing tells first.
        let request = request(b"POST / HTTP/1.1\r\n\r\n", Some(4 << 20));
        let asked = ask(Duration::from_secs(5));
        let mut exchange = Box::new(Exchange::new(lease, request, asked));
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        assert_eq!(head.status, 413);
        // Its connection carries no other request, though nothing of the response is missing.
        let gathered = exchange.gather(&head, now, &mut Outbound::new());
        let exchange = gathered.expect_err("the request was not sent");
        drop(exchange.into_download(&head, now));
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn a_small_response_that_is_all_there_frees_its_connection_at_once() {
        let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 4089\r\n\r\n{:4089}", "");
        let most = format!("HTTP/1.1 200 OK\r\nContent-Length: 4088\r\n\r\n{:4088}", "");
        let get = b"GET / HTTP/1.1\r\n\r\n";
        let whole = |body: &str| Some(format!("HEAD\r\n\r\n{body}"));
        for (response, unsent, gathered, kept) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                None,
                whole("ok"),
                1,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", None, whole(""), 1),
            // What follows belongs to no request.
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok?",
                None,
                whole("ok"),
                0,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                None,
                whole("ok"),
                0,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
                None,
                None,
                0,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                None,
                None,
                0,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", None, None, 0),
            // With the head before it, as long as it pays; and one byte longer.
            (&most, None, whole(&format!("{:4088}", "")), 1),
            (&large, None, None, 0),
            // The endpoint would take the next request for the rest of this one: more than the
            // kernel ever holds of it.
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some(64 << 20),
                None,
                0,
            ),
        ] {
            let pool = Pool::default();
            let (lease, mut server) = connected(&pool).await;
            let endpoint = lease.address();
            server.write_all(response.as_bytes()).unwrap();
            let asked = ask(Duration::from_secs(5));
            let mut exchange = Box::new(Exchange::new(lease, request(get, unsent), asked));
            let now = Instant::now();
            let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
            let mut out = Outbound::new();
            out.put(&[b"HEAD\r\n\r\n"]);
            let left = exchange.gather(&head, now, &mut out).err();
            let shown = response.get(..60).unwrap_or(response);
            assert_eq!(left.is_none(), gathered.is_some(), "{shown:?}");
            assert_eq!(pool.idle(), kept, "{shown:?}");
            let out = String::from_utf8_lossy(&out).into_owned();
            match (left, gathered) {
                (Some(left), _) => {
                    assert_eq!(out, "HEAD\r\n\r\n", "{shown:?}");
                    assert_eq!(left.address(), endpoint);
                    assert!(left.fields(&head).head.ends_with(b"\r\n\r\n"), "{shown:?}");
                }
                (None, gathered) => assert_eq!(Some(out), gathered, "{shown:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_time_that_a_client_takes_is_not_the_endpoints() {
        let limit = Duration::from_secs(1);
        let (lease, mut server) = connected(&Pool::default()).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok";
        server.write_all(answer).unwrap();
        let request = request(b"GET / HTTP/1.1\r\n\r\n", None);
        let mut exchange = Exchange::new(lease, request, ask(limit));
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        let mut download = exchange.into_download(&head, now);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut poll = |download: &mut Download<Whole>| {
            let polled = download.poll_data(Instant::now(), &mut cx);
            polled.map_ok(|data| data.map(<[u8]>::len))
        };
        assert!(matches!(poll(&mut download), Poll::Ready(Ok(Some(2)))));
        tokio::time::pause();
        tokio::time::advance(2 * limit).await;
        download.consume(2);
        assert!(poll(&mut download).is_pending(), "it was not asked before");
        tokio::time::advance(2 * limit).await;
        assert!(matches!(
            poll(&mut download),
            Poll::Ready(Err(ForwardError::ReadTimeout { .. }))
        ));
    }

    /// A body of one byte, whose end is told later.
    struct EndsLater {
        byte: &'static [u8],
        ended: Rc<Cell<bool>>,
    }

    impl RequestBody for EndsLater {
        fn poll_data(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
            match self.byte {
                [] if !self.ended.get() => Poll::Pending,
                byte => Poll::Ready(Ok(Some(byte).filter(|byte| !byte.is_empty()))),
            }
        }

        fn consume(&mut self, _: usize) {
            self.byte = b"";
        }

        fn write_trailers(&self, _: &mut Vec<u8>) {}

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn interim(&mut self, _: u16, _: &[u8], _: Fields<'_>) {}
    }

    #[tokio::test]
    async fn an_endpoint_has_its_own_time_from_the_end_of_the_request_on() {
        let (lease, mut server) = connected(&Pool::default()).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok";
        server.write_all(answer).unwrap();
        let mut head = Outbound::new();
        head.extend_from_slice(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
        let ended = Rc::new(Cell::new(false));
        let body = EndsLater {
            byte: b"x",
            ended: Rc::clone(&ended),
        };
        let request = Outgoing::new(head, body, Announced::Length, None);
        let second = Duration::from_secs(1);
        let mut asked = ask(second);
        asked.timeouts.read = 10 * second;
        let mut exchange = Exchange::new(lease, request, asked);
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        let mut download = exchange.into_download(&head, now);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut poll = |download: &mut Download<EndsLater>| {
            let polled = download.poll_data(Instant::now(), &mut cx);
            polled.map_ok(|data| data.map(<[u8]>::len))
        };
        assert!(matches!(poll(&mut download), Poll::Ready(Ok(Some(2)))));
        download.consume(2);
        tokio::time::pause();
        assert!(poll(&mut download).is_pending(), "the client is waited for");
        ended.set(true);
        assert!(poll(&mut download).is_pending(), "the endpoint is");
        tokio::time::advance(2 * second).await;
        let polled = poll(&mut download);
        assert!(polled.is_pending(), "{polled:?}");
        tokio::time::advance(10 * second).await;
        assert!(matches!(
            poll(&mut download),
            Poll::Ready(Err(ForwardError::ReadTimeout { .. }))
        ));
    }

    /// No body; notes the interim responses that its client is given.
    #[derive(Default)]
    struct Told(Rc<RefCell<Vec<String>>>);

    impl RequestBody for Told {
        fn poll_data(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
            Poll::Ready(Ok(None))
        }

        fn consume(&mut self, _: usize) {}

        fn write_trailers(&self, _: &mut Vec<u8>) {}

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn interim(&mut self, status: u16, reason: &[u8], fields: Fields<'_>) {
            let mut told = format!("{status} {}", String::from_utf8_lossy(reason));
            for (_, name, value) in fields.iter() {
                told += &format!(
                    " {}={}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                );
            }
            self.0.borrow_mut().push(told);
        }
    }

    fn get<B: RequestBody>(body: B) -> Outgoing<B> {
        let mut head = Outbound::new();
        head.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        Outgoing::new(head, body, Announced::Nothing, None)
    }

    #[tokio::test]
    async fn interim_responses_go_to_the_client_until_the_final_one_comes() {
        let (lease, mut server) = connected(&Pool::default()).await;
        let responses = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 \r\n\r\n\
            HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 0\r\n\r\n";
        server.write_all(responses).unwrap();
        let body = Told::default();
        let told = Rc::clone(&body.0);
        let mut exchange = Exchange::new(lease, get(body), ask(Duration::from_secs(5)));
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(exchange.fields(&head).iter().count(), 2);
        assert_eq!(*told.borrow(), ["103 Early Hints Link=</a>", "102 "]);
    }

    #[tokio::test]
    async fn interim_responses_may_have_64_kib_and_no_byte_more() {
        for more in [0, 1] {
            let (lease, mut server) = connected(&Pool::default()).await;
            let writing = std::thread::spawn(move || {
                for part in 0..64 {
                    let padding = 1024 - 28 + if part == 0 { more } else { 0 };
                    let head = format!("HTTP/1.1 102 \r\nPadding: {:x<padding$}\r\n\r\n", "");
                    server.write_all(head.as_bytes()).unwrap();
                }
                server
                    .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                    .unwrap();
                server
            });
            let mut exchange =
                Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
            let now = Instant::now();
            let head = poll_fn(|cx| exchange.poll_head(now, cx)).await;
            let server = writing.join().unwrap();
            match head {
                Ok(head) => assert_eq!((head.status, more), (204, 0)),
                Err(error) => {
                    let refused = matches!(error, ForwardError::Response { .. });
                    assert!(refused && more == 1, "{error}, {more} more");
                }
            }
            drop(server);
        }
    }

    #[tokio::test]
    async fn an_interim_response_gives_its_endpoint_the_whole_time_again() {
        let (lease, mut server) = connected(&Pool::default()).await;
        let limit = Duration::from_secs(4);
        let mut exchange = Exchange::new(lease, get(Told::default()), ask(limit));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        tokio::time::pause();
        assert!(exchange.poll_head(Instant::now(), &mut cx).is_pending());
        for _ in 0..3 {
            server.write_all(b"HTTP/1.1 102 \r\n\r\n").unwrap();
            tokio::time::advance(limit * 3 / 4).await;
            let polled = exchange.poll_head(Instant::now(), &mut cx);
            assert!(polled.is_pending(), "{polled:?}");
        }
        for _ in 0..2 {
            // Being asked gives it none.
            let polled = exchange.poll_head(Instant::now(), &mut cx);
            assert!(polled.is_pending(), "{polled:?}");
            tokio::time::advance(limit * 3 / 4).await;
        }
        assert!(matches!(
            exchange.poll_head(Instant::now(), &mut cx),
            Poll::Ready(Err(ForwardError::ReadTimeout { .. }))
        ));
    }

    #[tokio::test]
    async fn an_endpoint_that_says_nothing_is_told_from_one_that_breaks_off() {
        for (said, is_begun) in [(&b""[..], false), (b"HTTP/1.1 200 OK\r\n", true)] {
            let (lease, mut server) = connected(&Pool::default()).await;
            let mut exchange =
                Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
            server.write_all(said).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            let now = Instant::now();
            let error = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap_err();
            let is_right = match error {
                ForwardError::Unanswered { source: None, .. } => !is_begun,
                ForwardError::Truncated { source: None, .. } => is_begun,
                _ => false,
            };
            assert!(is_right, "{error} after {said:?}");
        }
    }

    #[tokio::test]
    async fn a_request_is_sent_again_from_its_start() {
        let pool = Pool::default();
        let (lease, server) = connected(&pool).await;
        let mut exchange = Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
        server.shutdown(Shutdown::Write).unwrap();
        let now = Instant::now();
        let error = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap_err();
        assert!(matches!(error, ForwardError::Unanswered { .. }), "{error}");
        let mut request = exchange.into_request();
        request.rewind();
        let (lease, mut server) = connected(&pool).await;
        server.write_all(b"HTTP/1.1 204 \r\n\r\n").unwrap();
        let mut exchange = Exchange::new(lease, request, ask(Duration::from_secs(5)));
        poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        drop(exchange);
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "GET / HTTP/1.1\r\n\r\n");
    }

    /// A body in pieces, with a timer of the client's side.
    #[derive(Default)]
    struct Timed {
        pieces: Vec<&'static [u8]>,
        deadline: Deadline,
    }

    impl RequestBody for Timed {
        fn poll_data(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
            Poll::Ready(Ok(self.pieces.first().copied()))
        }

        fn consume(&mut self, count: usize) {
            assert_eq!(self.pieces.remove(0).len(), count);
        }

        fn write_trailers(&self, _: &mut Vec<u8>) {}

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn deadline(&mut self) -> Option<&mut Deadline> {
            Some(&mut self.deadline)
        }

        fn interim(&mut self, _: u16, _: &[u8], _: Fields<'_>) {}
    }

    #[tokio::test]
    async fn a_request_waits_by_the_timer_of_its_clients_side_where_that_has_one() {
        let (lease, _server) = connected(&Pool::default()).await;
        let mut exchange = Exchange::new(lease, get(Timed::default()), ask(Duration::from_secs(1)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(exchange.poll_head(Instant::now(), &mut cx).is_pending());
        assert!(!exchange.lease.connection.deadline.is_set());
        assert!(exchange.request.client().deadline.is_set());
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_its_route_allows_and_no_byte_longer() {
        for (pieces, taken) in [
            (&[&b"abc"[..]][..], true),
            (&[b"ab", b"c"], true),
            (&[b"abcd"], false),
            (&[b"ab", b"cd"], false),
            (&[b"abc", b"d"], false),
        ] {
            let (lease, mut server) = connected(&Pool::default()).await;
            let mut head = Outbound::new();
            head.extend_from_slice(b"PUT / HTTP/1.1\r\n\r\n");
            let body = Timed {
                pieces: pieces.to_vec(),
                ..Timed::default()
            };
            let request = Outgoing::new(head, body, Announced::Length, Some(3));
            let mut exchange = Exchange::new(lease, request, ask(Duration::from_secs(5)));
            server.write_all(b"HTTP/1.1 204 \r\n\r\n").unwrap();
            let now = Instant::now();
            match poll_fn(|cx| exchange.poll_head(now, cx)).await {
                Ok(_) => assert!(taken, "{pieces:?}"),
                Err(ForwardError::BodyTooLarge) => assert!(!taken, "{pieces:?}"),
                Err(error) => panic!("{error} for {pieces:?}"),
            }
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_takes_a_part_of_the_request_gets_the_whole_time_again() {
        let (lease, mut server) = connected(&Pool::default()).await;
        server.set_nonblocking(true).unwrap();
        let limit = Duration::from_secs(4);
        let request = request(b"PUT / HTTP/1.1\r\n\r\n", Some(64 << 20));
        let mut exchange = Exchange::new(lease, request, ask(limit));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        tokio::time::pause();
        assert!(exchange.poll_head(Instant::now(), &mut cx).is_pending());
        for _ in 0..3 {
            let mut taken = 0;
            while let Ok(count @ 1..) = server.read(&mut [0; 4096]) {
                taken += count;
            }
            assert!(taken > 0);
            tokio::time::advance(limit * 3 / 4).await;
            let polled = exchange.poll_head(Instant::now(), &mut cx);
            assert!(polled.is_pending(), "{polled:?}");
        }
        // What the kernel still moves between its buffers may give it the time once more.
        let ended = async {
            loop {
                tokio::time::advance(limit * 3 / 4).await;
                if let Poll::Ready(ended) = exchange.poll_head(Instant::now(), &mut cx) {
                    return ended;
                }
            }
        };
        let ended = tokio::time::timeout(100 * limit, ended).await;
        assert!(
            matches!(ended, Ok(Err(ForwardError::SendTimeout { .. }))),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_request_is_sent_again_only_while_none_of_its_body_is_gone() {
        let pool = Pool::default();
        for (body, replayable) in [(None, true), (Some(2), false)] {
            let (lease, mut server) = connected(&pool).await;
            let request = request(b"PUT / HTTP/1.1\r\n\r\n", body);
            let mut exchange = Exchange::new(lease, request, ask(Duration::from_secs(5)));
            assert!(exchange.is_replayable());
            server.write_all(b"HTTP/1.1 204 \r\n\r\n").unwrap();
            let now = Instant::now();
            poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
            assert_eq!(exchange.is_replayable(), replayable, "{body:?}");
        }
    }

    #[tokio::test]
    async fn a_response_without_a_body_frees_its_connection_before_it_is_read() {
        let pool = Pool::default();
        let (lease, mut server) = connected(&pool).await;
        let endpoint = pool.endpoint(Peer {
            address: lease.address(),
            protocol: Protocol::Http1,
        });
        let mut lease = Some(lease);
        for reused in [false, true] {
            let now = Instant::now();
            let lease = lease.take().or_else(|| endpoint.checkout(now)).unwrap();
            let mut exchange =
                Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
            assert_eq!(exchange.reused(), reused);
            server
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
            let download = exchange.into_download(&head, now);
            assert_eq!((pool.idle(), download.length()), (1, Some(0)));
        }
    }

    #[tokio::test]
    async fn a_body_says_how_much_of_it_is_to_come_where_that_is_known() {
        let pool = Pool::default();
        for (rest, lengths, trailers) in [
            (
                "Content-Length: 3\r\n\r\nabc",
                [Some(3), Some(1), Some(0)],
                "",
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nDigest: d\r\n\r\n",
                [None, None, Some(0)],
                "Digest: d\r\n",
            ),
            ("\r\nabc", [None, None, Some(0)], ""),
        ] {
            let (lease, mut server) = connected(&pool).await;
            write!(server, "HTTP/1.1 200 OK\r\n{rest}").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            let mut exchange =
                Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
            let now = Instant::now();
            let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
            let mut download = exchange.into_download(&head, now);
            let mut said = vec![download.length()];
            for (length, taken) in [(Some(3), 2), (Some(1), 1), (None, 0)] {
                let data = poll_fn(|cx| {
                    let polled = download.poll_data(now, cx);
                    polled.map_ok(|data| data.map(<[u8]>::len))
                });
                assert_eq!(data.await.unwrap(), length, "{rest:?}");
                if taken > 0 {
                    download.consume(taken);
                }
                said.push(download.length());
            }
            assert_eq!(said[..2], lengths[..2], "{rest:?}");
            assert_eq!(said[3], lengths[2], "{rest:?}");
            let ended = String::from_utf8_lossy(download.trailers());
            assert!(ended.starts_with(trailers), "{rest:?}: {ended:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_from_one_that_ends() {
        for (head, ends) in [
            ("Content-Length: 5\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
            ("", true),
        ] {
            let (lease, mut server) = connected(&Pool::default()).await;
            write!(server, "HTTP/1.1 200 OK\r\n{head}\r\n2\r\nx").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            let mut exchange =
                Exchange::new(lease, get(Told::default()), ask(Duration::from_secs(5)));
            let now = Instant::now();
            let response = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
            let mut download = exchange.into_download(&response, now);
            let ended = loop {
                let data = poll_fn(|cx| {
                    let polled = download.poll_data(now, cx);
                    polled.map_ok(|data| data.map(<[u8]>::len))
                });
                match data.await {
                    Ok(Some(count)) => download.consume(count),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match ended {
                Ok(()) => assert!(ends, "{head:?} ends"),
                Err(ForwardError::Truncated { source: None, .. }) => assert!(!ends, "{head:?}"),
                Err(error) => panic!("{error} for {head:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_tunnel_begins_with_what_follows_its_head() {
        let (lease, mut server) = connected(&Pool::default()).await;
        let switch =
            b"HTTP/1.1 101 \r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi";
        server.write_all(switch).unwrap();
        let mut asked = ask(Duration::from_secs(5));
        asked.upgrade = true;
        let mut exchange = Exchange::new(lease, get(Told::default()), asked);
        let now = Instant::now();
        let head = poll_fn(|cx| exchange.poll_head(now, cx)).await.unwrap();
        let (_socket, inbound) = exchange.into_tunnel(&head);
        assert_eq!(inbound.data(), b"\x81\x02hi");
    }

    #[test]
    fn whoever_is_waited_for_has_a_limit_and_an_error_of_its_own() {
        let [read, send, body] = [1, 2, 3].map(Duration::from_secs);
        let timeouts = Timeouts { read, send, body };
        let endpoint = ([192, 0, 2, 1], 80).into();
        let of = |waiting| (timeouts.of(waiting), timeout(endpoint, waiting));
        assert!(matches!(
            of(Waiting::Client),
            (limit, ForwardError::BodyTimeout) if limit == body
        ));
        assert!(matches!(
            of(Waiting::Socket),
            (limit, ForwardError::SendTimeout { .. }) if limit == send
        ));
        assert!(matches!(
            of(Waiting::Response),
            (limit, ForwardError::ReadTimeout { .. }) if limit == read
        ));
    }
}
