//! HTTP/1.1 with a client: one request after the other, until one side has had enough.
//!
//! The loop is: wait for a head (no memory is held meanwhile), decide, answer or forward, relay.
//! Everything of a request runs in the task of its connection.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::{
    client::Client,
    drain::Member,
    phases::{self, Decision, Forwarded, HeadWriter, Plan, Reply, RequestHead},
    record::Record,
    stall::Stall,
    state::Worker,
    stream::Stream,
    tunnel,
};
use crate::{
    http1::{
        Announced, Body, Fields, Framing, HeadError, HeadFinder, Name, Next, SendError, Sender,
        Source, Step, check_request_start, each_trailer, options, parse_request,
    },
    net::{Deadline, Inbound, Outbound, Socket},
    upstream::{Download, ForwardError, RequestBody, RequestBodyError},
};

/// Largest head of a request; larger ones get 431.
pub(super) const HEAD_LIMIT: usize = 32 * 1024;
/// How long a client may take to notice that its connection has ended.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of what it still sends is read meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// How a request's connection goes on.
enum After {
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
struct Terms {
    version: Version,
    is_head: bool,
    /// The client wants to go on.
    keep_alive: bool,
    expects_continue: bool,
}

/// One client's connection.
pub(super) struct Connection {
    pub(super) client: Rc<Client>,
    pub(super) stream: Stream,
    pub(super) inbound: Inbound,
    pub(super) deadline: Deadline,
    pub(super) member: Member,
    /// Interim responses that are not sent yet; what is left of them goes before the final one.
    pub(super) notice: RefCell<Vec<u8>>,
}

impl Connection {
    /// Serves the connection until it ends.
    ///
    /// # Errors
    /// The connection broke, or the client took nothing for too long.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        loop {
            let after = match self.head().await? {
                // Apart, since it is large: the task of an idle client would hold the space for it.
                Awaited::Head(length) => Box::pin(self.request(length)).await?,
                Awaited::Bad(status) => Box::pin(self.refuse(status)).await?,
                Awaited::End => return Ok(()),
            };
            match after {
                After::Next => {}
                After::Close => return Box::pin(self.linger()).await,
                After::Done => {
                    // TLS says goodbye, as far as the client takes it.
                    poll_fn(|cx| {
                        let _ = self.stream.poll_shut_down(cx);
                        Poll::Ready(())
                    })
                    .await;
                    return Ok(());
                }
                After::Abort => return Ok(()),
            }
        }
    }

    fn worker(&self) -> &Worker {
        &self.client.worker
    }

    /// Waits for the next head: for its first byte as long as a connection may be idle, from there on
    /// for a time of its own.
    async fn head(&mut self) -> io::Result<Awaited> {
        let Self {
            client,
            stream,
            inbound,
            deadline,
            member,
            ..
        } = self;
        let worker = &client.worker;
        let settings = &worker.settings;
        let mut finder = HeadFinder::default();
        let mut begun: Option<Instant> = None;
        let mut line_checked = false;
        deadline.set(worker.now() + settings.idle_timeout);
        poll_fn(|cx| {
            loop {
                skip_empty_lines(inbound);
                let data = inbound.data();
                if let Some(first) = data.first() {
                    if begun.is_none() {
                        begun = Some(worker.now());
                        member.asked();
                    }
                    match finder.find(data) {
                        Some(length) if length <= HEAD_LIMIT => {
                            return Poll::Ready(Ok(Awaited::Head(length)));
                        }
                        Some(_) => return Poll::Ready(Ok(Awaited::Bad(431))),
                        None if data.len() > HEAD_LIMIT => {
                            return Poll::Ready(Ok(Awaited::Bad(431)));
                        }
                        None => {}
                    }
                    // What cannot become a request is not waited for: a TLS handshake, say.
                    if finder.has_line() && !line_checked {
                        line_checked = true;
                        if let Err(error) = check_request_start(data) {
                            return Poll::Ready(Ok(Awaited::Bad(status_of(error))));
                        }
                    } else if !first.is_ascii_graphic() && *first != b'\r' {
                        return Poll::Ready(Ok(Awaited::Bad(400)));
                    }
                }
                match inbound.poll_fill(cx, |cx, space| stream.poll_recv(cx, space)) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Awaited::End)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
                return match begun {
                    Some(begun) => {
                        deadline.set(begun + settings.head_timeout);
                        deadline.poll(cx).map(|()| Ok(Awaited::Bad(408)))
                    }
                    None if deadline.poll(cx).is_ready() || member.poll_idle_end(cx) => {
                        Poll::Ready(Ok(Awaited::End))
                    }
                    None => Poll::Pending,
                };
            }
        })
        .await
    }

    /// Serves the request whose head of `length` bytes has arrived.
    async fn request(&mut self, length: usize) -> io::Result<After> {
        let mut record = Record::new(&self.client.worker);
        let decided = self.decide(length, &mut record);
        self.inbound.consume(length);
        match decided {
            Ok((terms, Decision::Answer(reply, unread))) => {
                self.answer(&reply, terms, unread, &mut record).await
            }
            Ok((terms, Decision::Forward(mut plan))) => {
                let mut body = Body::new(plan.framing);
                match self.forward(&mut plan, terms, &mut body, &mut record).await {
                    Ok(after) => Ok(after),
                    // Rare, and large.
                    Err(detour) => {
                        Box::pin(self.detour(*detour, &plan, terms, body, &mut record)).await
                    }
                }
            }
            Err(status) => {
                self.answer(
                    &Reply::unreadable(status),
                    Terms::UNKNOWN,
                    Framing::Close,
                    &mut record,
                )
                .await
            }
        }
    }

    /// Parses the head and takes it through the phases that do not wait; an error is a status.
    fn decide(&self, length: usize, record: &mut Record) -> Result<(Terms, Decision), u16> {
        let head = self.inbound.data().get(..length).unwrap_or_default();
        let slot = &self.client.worker.fields;
        let mut fields = slot.take();
        let decided = parse_request(head, &mut fields)
            .map_err(status_of)
            .map(|line| {
                let fields = Fields {
                    head,
                    fields: &fields,
                };
                let target = phases::target(line.target.of_head(head));
                let method = line.method.of_head(head);
                let request = RequestHead {
                    version: line.version,
                    method,
                    target,
                    fields,
                    has_body: None,
                };
                (
                    Terms::of(&request),
                    phases::decide(&self.client, &request, record),
                )
            });
        slot.set(fields);
        decided
    }

    /// Answers what is no request and ends the connection.
    async fn refuse(&mut self, status: u16) -> io::Result<After> {
        let mut record = Record::new(&self.client.worker);
        self.answer(
            &Reply::unreadable(status),
            Terms::UNKNOWN,
            Framing::Close,
            &mut record,
        )
        .await
    }

    /// Sends an answer of our own. `unread` is what is left of the request's body: if it has not
    /// arrived, it is not waited for, and the connection ends.
    async fn answer(
        &mut self,
        reply: &Reply,
        terms: Terms,
        unread: Framing,
        record: &mut Record,
    ) -> io::Result<After> {
        let is_read = matches!(unread, Framing::Length(length) if self.skip(length));
        let keep_alive = terms.keep_alive && !reply.closes && is_read && !self.member.is_ending();
        let page = reply.page();
        let mut out = Outbound::new();
        out.put(&[&self.notice.take()]);
        phases::own(&self.client, reply, &page, record, &mut Http1Head(&mut out));
        end_head(&mut out, terms.version, keep_alive, false);
        if !terms.is_head {
            out.put(&[page.as_bytes()]);
        }
        let mut sender = Sender::response(out, Announced::Nothing);
        match self.relay(&mut sender, &mut Nothing, record).await {
            Ok(()) => record.complete(),
            Err(SendError::Source(never)) => match never {},
            Err(SendError::Socket(error)) => return Err(error),
        }
        Ok(if keep_alive {
            After::Next
        } else {
            After::Close
        })
    }

    /// Takes a body of `length` bytes out of what has arrived; `false` if it is not all there.
    fn skip(&mut self, length: u64) -> bool {
        let is_there = self.inbound.data().len() as u64 >= length;
        if is_there {
            self.inbound
                .consume(usize::try_from(length).unwrap_or(usize::MAX));
        }
        is_there
    }

    /// Sends the request to an endpoint and its response to the client.
    async fn forward(
        &mut self,
        plan: &mut Plan,
        terms: Terms,
        body: &mut Body,
        record: &mut Record,
    ) -> Result<After, Box<Detour>> {
        let client_body = ClientBody {
            stream: &self.stream,
            inbound: &mut self.inbound,
            body: &mut *body,
            notice: &self.notice,
            expects_continue: terms.expects_continue,
            takes_interim: terms.version == Version::HTTP_11,
            takes_trailers: plan.trailers,
        };
        let client = Rc::clone(&self.client);
        let forwarded = phases::forward(&client, plan, client_body, record).await;
        let is_ending = self.member.is_ending();
        let mut begun = Begun::new(
            forwarded,
            &client,
            plan,
            &self.notice,
            terms,
            is_ending,
            record,
        );
        let relayed = match &mut begun {
            Begun::Response { sender, source, .. } => {
                let (worker, stream) = (&client.worker, &self.stream);
                relay(worker, stream, &mut self.deadline, sender, source, record).await
            }
            Begun::Switched { .. } | Begun::Failed(_) => Ok(()),
        };
        let keeps = begun.end(relayed, &self.notice)?;
        record.complete();
        let is_read = matches!(body.next(&mut self.inbound), Ok(Next::End));
        Ok(match is_read {
            true if keeps => After::Next,
            true if !terms.keep_alive && self.inbound.is_empty() => After::Done,
            _ => After::Close,
        })
    }

    /// Goes on where the client has not got a whole response.
    async fn detour(
        &mut self,
        detour: Detour,
        plan: &Plan,
        terms: Terms,
        mut body: Body,
        record: &mut Record,
    ) -> io::Result<After> {
        let failure = match detour {
            Detour::Lost(error) => return Err(error),
            Detour::Switched { head, endpoint } => {
                let idle = plan.entry.route.policy.upstream.read_timeout;
                return self.switch(head, endpoint, idle, record).await;
            }
            Detour::Broken {
                mut sender,
                resets,
                error,
            } => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(upstream = %plan.entry.upstream.key(), error, "response broke off");
                self.break_off(&mut sender, resets).await;
                return Ok(After::Abort);
            }
            // Nothing has gone out yet: the client may hear what happened.
            Detour::Failed(error) => error,
        };
        record.forget_status();
        let Some(reply) = phases::error(&failure, plan) else {
            return Ok(After::Abort);
        };
        let is_read = matches!(body.next(&mut self.inbound), Ok(Next::End));
        let unread = if is_read {
            Framing::Length(0)
        } else {
            Framing::Close
        };
        self.answer(&reply, terms, unread, record).await
    }

    /// Ends a response that is not whole so that the client can tell. One that ends with its
    /// connection has only a reset for that.
    async fn break_off(&mut self, sender: &mut Sender, ends_with_connection: bool) {
        if ends_with_connection {
            self.stream.reset_on_close();
            return;
        }
        let stream = &self.stream;
        poll_fn(|cx| {
            // What waited for more to go along; no matter whether it can be sent now.
            let _ = stream.poll_send(cx, &[IoSlice::new(sender.unsent())]);
            let _ = stream.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Answers 101 and moves bytes until the tunnel ends.
    async fn switch(
        &mut self,
        head: Outbound,
        endpoint: (Socket, Inbound),
        idle: Duration,
        record: &mut Record,
    ) -> io::Result<After> {
        let mut sender = Sender::response(head, Announced::Nothing);
        if let Err(SendError::Socket(error)) = self.relay(&mut sender, &mut Nothing, record).await {
            return Err(error);
        }
        record.complete();
        let from_client = std::mem::take(&mut self.inbound);
        Box::pin(tunnel::run(
            self.worker(),
            (&self.stream, from_client),
            endpoint,
            idle,
        ))
        .await?;
        Ok(After::Abort)
    }

    async fn relay<S: Source>(
        &mut self,
        sender: &mut Sender,
        source: &mut S,
        record: &mut Record,
    ) -> Result<(), SendError<S::Error>> {
        relay(
            &self.client.worker,
            &self.stream,
            &mut self.deadline,
            sender,
            source,
            record,
        )
        .await
    }

    /// Ends the connection so that the client gets all that was sent to it: what it still sends would
    /// otherwise be answered with a reset, which may overtake the response.
    async fn linger(mut self) -> io::Result<()> {
        let mut left = LINGER_BYTES;
        self.deadline.set(self.worker().now() + LINGER_TIME);
        let Self {
            stream,
            inbound,
            deadline,
            ..
        } = &mut self;
        let mut shut = false;
        poll_fn(|cx| {
            if !shut {
                shut = stream.poll_shut_down(cx)?.is_ready();
            }
            loop {
                let unread = inbound.data().len();
                inbound.consume(unread);
                match inbound.poll_fill(cx, |cx, space| stream.poll_recv(cx, space)) {
                    Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => return deadline.poll(cx).map(Ok),
                }
            }
        })
        .await
    }
}

/// What came of a request that was sent to an endpoint.
enum Begun<'w, B> {
    /// A response, of which the head has arrived.
    Response {
        sender: Sender,
        source: Response<'w, B>,
        /// The client's connection stays open afterwards.
        keeps: bool,
        /// The response has no other end than that of the connection.
        ends_with_connection: bool,
        /// How much of what is sent first is interim responses, in bytes.
        noticed: u32,
    },
    /// The endpoint speaks another protocol from here on.
    Switched {
        head: Outbound,
        endpoint: (Socket, Inbound),
    },
    /// No response.
    Failed(ForwardError),
}

/// What takes the place of a whole response.
enum Detour {
    /// The head of a 101 is to be sent, and then whatever comes.
    Switched {
        head: Outbound,
        endpoint: (Socket, Inbound),
    },
    /// There is no response, and nothing was sent to the client.
    Failed(ForwardError),
    /// The response broke off in its middle; `resets` is for one that ends with its connection.
    Broken {
        sender: Sender,
        resets: bool,
        error: ForwardError,
    },
    /// The client is gone.
    Lost(io::Error),
}

impl<'w, B: RequestBody> Begun<'w, B> {
    /// Writes the head for the client, behind the interim responses that are left in `notice`.
    fn new(
        forwarded: Result<Forwarded<B>, ForwardError>,
        client: &'w Rc<Client>,
        plan: &Plan,
        notice: &RefCell<Vec<u8>>,
        terms: Terms,
        is_ending: bool,
        record: &mut Record,
    ) -> Self {
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded,
            Err(error) => return Self::Failed(error),
        };
        let mut out = Outbound::new();
        out.put(&[&notice.take()]);
        let noticed = u32::try_from(out.len()).unwrap_or(u32::MAX);
        phases::response(client, plan, &forwarded, record, &mut Http1Head(&mut out));
        let Forwarded { exchange, head } = forwarded;
        if head.status == 101 {
            out.put(&[b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"]);
            return Self::Switched {
                head: out,
                endpoint: exchange.into_tunnel(&head),
            };
        }
        let ends_with_connection = matches!(head.framing, Framing::Chunked | Framing::Close)
            && terms.version == Version::HTTP_10;
        let announced = match head.framing {
            Framing::Length(0) => Announced::Nothing,
            Framing::Length(_) => Announced::Length,
            Framing::Chunked | Framing::Close if ends_with_connection => Announced::Length,
            Framing::Chunked | Framing::Close => {
                out.put(&[b"Transfer-Encoding: chunked\r\n"]);
                Announced::Chunks
            }
        };
        let keeps = terms.keep_alive && !is_ending && !ends_with_connection;
        end_head(&mut out, terms.version, keeps, head.status == 426);
        Self::Response {
            sender: Sender::response(out, announced),
            source: Response {
                worker: &client.worker,
                download: exchange.into_download(&head, client.worker.now()),
                takes_trailers: plan.trailers,
            },
            keeps,
            ends_with_connection,
            noticed,
        }
    }

    /// Lets go of the endpoint, and tells whether the client's connection stays open after its
    /// response.
    ///
    /// Interim responses that were to go along with one that failed are put back into `notice`.
    fn end(
        self,
        relayed: Result<(), SendError<ForwardError>>,
        notice: &RefCell<Vec<u8>>,
    ) -> Result<bool, Detour> {
        Err(match (self, relayed) {
            (Self::Response { keeps, .. }, Ok(())) => return Ok(keeps),
            (
                Self::Response {
                    sender, noticed, ..
                },
                Err(SendError::Source(error)),
            ) if sender.is_unsent() => {
                let unsent = sender.unsent().get(..noticed as usize);
                notice
                    .borrow_mut()
                    .extend_from_slice(unsent.unwrap_or_default());
                Detour::Failed(error)
            }
            (
                Self::Response {
                    sender,
                    ends_with_connection: resets,
                    ..
                },
                Err(SendError::Source(error)),
            ) => Detour::Broken {
                sender,
                resets,
                error,
            },
            (_, Err(SendError::Socket(error))) => Detour::Lost(error),
            (Self::Switched { head, endpoint }, _) => Detour::Switched { head, endpoint },
            (Self::Failed(error), _) => Detour::Failed(error),
        })
    }
}

/// What came while a head was awaited.
enum Awaited {
    /// One of so many bytes.
    Head(usize),
    /// Something else, which this status answers.
    Bad(u16),
    /// The end of the connection, or of our patience with an idle one.
    End,
}

/// Sends a message to the client; fails if the client takes nothing for too long.
async fn relay<S: Source>(
    worker: &Worker,
    stream: &Stream,
    deadline: &mut Deadline,
    sender: &mut Sender,
    source: &mut S,
    record: &mut Record,
) -> Result<(), SendError<S::Error>> {
    let mut stall = Stall::default();
    poll_fn(|cx| {
        let mut moved = 0;
        let step = sender.poll(source, &mut moved, cx, |cx, pieces| {
            stream.poll_send(cx, pieces)
        });
        record.sent(moved);
        let blocked = match step {
            Ok(Step::Done) => match stream.poll_flush(cx) {
                Poll::Ready(flushed) => return Poll::Ready(flushed.map_err(SendError::Socket)),
                Poll::Pending => true,
            },
            Ok(Step::Starved) => stream
                .poll_flush(cx)
                .map_err(SendError::Socket)?
                .is_pending(),
            Ok(Step::Blocked) => true,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if !blocked || moved > 0 {
            stall.clear();
        }
        if !blocked {
            return Poll::Pending;
        }
        let limit = worker.settings.write_timeout;
        stall
            .poll(stream, deadline, worker.now(), limit, cx)
            .map(|error| Err(SendError::Socket(error)))
    })
    .await
}

/// What answers a head that cannot be read.
fn status_of(error: HeadError) -> u16 {
    match error {
        HeadError::TooLarge => 431,
        HeadError::Syntax => 400,
    }
}

/// RFC 9112 section 2.2: empty lines before a request are no part of it.
fn skip_empty_lines(inbound: &mut Inbound) {
    loop {
        match inbound.data() {
            [b'\r', b'\n', ..] => inbound.consume(2),
            [b'\n', ..] => inbound.consume(1),
            _ => return,
        }
    }
}

/// Writes what the head says of the connection, and its end.
fn end_head(out: &mut Outbound, version: Version, keep_alive: bool, upgrade: bool) {
    let connection: &[u8] = match (keep_alive, upgrade) {
        (true, true) => b"Connection: upgrade\r\n",
        (false, true) => b"Connection: upgrade, close\r\n",
        (false, false) => b"Connection: close\r\n",
        (true, false) if version == Version::HTTP_10 => b"Connection: keep-alive\r\n",
        (true, false) => b"",
    };
    out.put(&[connection, b"\r\n"]);
}

impl Terms {
    /// Of what could not be read.
    const UNKNOWN: Self = Self {
        version: Version::HTTP_11,
        is_head: false,
        keep_alive: false,
        expects_continue: false,
    };

    fn of(request: &RequestHead<'_>) -> Self {
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

/// Writes a head as HTTP/1.1.
struct Http1Head<'o>(&'o mut Outbound);

impl HeadWriter for Http1Head<'_> {
    fn start(&mut self, status: u16, reason: &[u8]) {
        let digits = [
            b'0' + (status / 100 % 10) as u8,
            b'0' + (status / 10 % 10) as u8,
            b'0' + (status % 10) as u8,
        ];
        let reason = if reason.is_empty() {
            let known = StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason());
            known.unwrap_or_default().as_bytes()
        } else {
            reason
        };
        self.0.put(&[b"HTTP/1.1 ", &digits, b" ", reason, b"\r\n"]);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.put(&[name, b": ", value, b"\r\n"]);
    }
}

/// The client's side of a request that is being forwarded.
struct ClientBody<'c> {
    stream: &'c Stream,
    inbound: &'c mut Inbound,
    body: &'c mut Body,
    /// Interim responses that are not sent yet; what is left of them goes before the final one.
    notice: &'c RefCell<Vec<u8>>,
    /// The client waits for 100 before it sends its body.
    expects_continue: bool,
    takes_interim: bool,
    takes_trailers: bool,
}

impl ClientBody<'_> {
    /// Sends interim responses as far as the client takes them. A failure shows at the next read.
    fn flush_notice(&mut self, cx: &mut Context<'_>) {
        let mut notice = self.notice.borrow_mut();
        while !notice.is_empty() {
            match self.stream.poll_send(cx, &[IoSlice::new(&notice)]) {
                Poll::Ready(Ok(sent)) => drop(notice.drain(..sent)),
                Poll::Ready(Err(_)) => notice.clear(),
                Poll::Pending => return,
            }
        }
        let _ = self.stream.poll_flush(cx);
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = self.stream;
        self.inbound
            .poll_fill(cx, |cx, space| stream.poll_recv(cx, space))
    }

    fn say_continue(&mut self) {
        self.expects_continue = false;
        self.notice
            .borrow_mut()
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
}

impl RequestBody for ClientBody<'_> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, RequestBodyError>> {
        let count = loop {
            match self
                .body
                .next(self.inbound)
                .map_err(RequestBodyError::Framing)?
            {
                Next::Data(count) => break count,
                Next::End => return Poll::Ready(Ok(None)),
                Next::Starved => {}
            }
            if self.expects_continue {
                self.say_continue();
            }
            self.flush_notice(cx);
            match ready!(self.poll_receive(cx)) {
                Ok(0) => return Poll::Ready(Err(RequestBodyError::Gone(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(RequestBodyError::Gone(Some(error)))),
            }
        };
        Poll::Ready(Ok(self.inbound.data().get(..count)))
    }

    fn consume(&mut self, count: usize) {
        self.body.take(self.inbound, count);
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        if self.takes_trailers {
            write_trailers(self.body.trailers(), out);
        }
    }

    /// Reads on, so that the end of the connection is seen. What comes is the rest of the body or the
    /// next request; both wait in the buffer, and no more of them than fits there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush_notice(cx);
        while !self.inbound.is_full() {
            if !matches!(ready!(self.poll_receive(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, status: u16, reason: &[u8], fields: Fields<'_>) {
        if status == 100 {
            if self.expects_continue {
                self.say_continue();
            }
        } else if self.takes_interim {
            let mut out = Outbound::new();
            phases::interim(status, reason, fields, &mut Http1Head(&mut out));
            let mut notice = self.notice.borrow_mut();
            // An endpoint that sends without end is not heard beyond a head's length.
            if notice.len() + out.len() <= HEAD_LIMIT {
                notice.extend_from_slice(&out);
                notice.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// The body of an endpoint's response.
struct Response<'w, B> {
    worker: &'w Worker,
    download: Download<B>,
    takes_trailers: bool,
}

impl<B: RequestBody> Source for Response<'_, B> {
    type Error = ForwardError;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, ForwardError>> {
        self.download.poll_data(self.worker.now(), cx)
    }

    fn consume(&mut self, count: usize) {
        self.download.consume(count);
    }

    fn write_trailers(&self, out: &mut Vec<u8>) {
        if self.takes_trailers {
            write_trailers(self.download.trailers(), out);
        }
    }
}

fn write_trailers(section: &[u8], out: &mut Vec<u8>) {
    // The section was checked when it arrived.
    let _ = each_trailer(section, |name, value| {
        for piece in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(piece);
        }
    });
}

/// No body.
struct Nothing;

impl Source for Nothing {
    type Error = std::convert::Infallible;

    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Self::Error>> {
        Poll::Ready(Ok(None))
    }

    fn consume(&mut self, _: usize) {}

    fn write_trailers(&self, _: &mut Vec<u8>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the future of a function of two holds, in bytes.
    fn future_size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_fits_into_what_an_allocator_takes_for_a_small_object() {
        let size = future_size(Connection::request);
        assert!(
            size <= 1024,
            "{size} bytes: what is rare belongs into a box of its own"
        );
    }
}
