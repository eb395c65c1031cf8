//! A client's TLS connection: records on the side of its socket, what they say on the other.
//!
//! The session has no buffers of its own. Records lie in memory that is borrowed from the thread,
//! for as long as there are any: a connection that waits holds none.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    Error, ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

use crate::net::{INBOUND_SIZE, Inbound, Outbound, Room, Socket};

/// What one record says at the most (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;
/// Most bytes that are encrypted at a time: what one read of a body takes, and what frames it. Their
/// records fit into memory that the thread keeps.
const BATCH: usize = INBOUND_SIZE + 512;
/// Up to this size, a piece is copied together with others: a copy costs less than a record does.
const GATHER_LIMIT: usize = 8 * 1024;

/// A client's connection after its handshake.
pub(crate) struct TlsStream {
    socket: Socket,
    session: UnbufferedServerConnection,
    /// Records that have come; between two calls, the beginning of one at the most.
    arrived: Inbound,
    /// What they said and nobody has read. No more is received until it is empty, so that all that
    /// `arrived` can hold has room here.
    unread: Inbound,
    /// Records that are to be sent. The session writes into memory of a given size, as `recv` does.
    leaving: Inbound,
    /// The client has said that it sends no more.
    ended: bool,
    /// We have said so.
    shut: bool,
    /// The session has failed: it must not be asked again.
    broken: bool,
}

/// What the session is to do once it has seen what arrived.
enum Wish<'w> {
    /// Give out what the records say.
    Read(&'w mut [u8]),
    /// Encrypt the beginning of these in a row.
    Write(&'w [IoSlice<'w>]),
    /// Say that nothing follows.
    End,
}

/// Why the session has not written records.
enum Unwritten {
    /// It takes so many bytes.
    Needs(usize),
    Failed(io::Error),
}

impl TlsStream {
    /// Shakes hands over `socket`.
    ///
    /// # Errors
    /// The connection broke, or the client and `config` do not get on; then it has been told.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn accept(config: &Arc<ServerConfig>, socket: Socket) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(Arc::clone(config));
        let mut stream = Self {
            socket,
            session: session.map_err(io::Error::other)?,
            arrived: Inbound::default(),
            unread: Inbound::default(),
            leaving: Inbound::default(),
            ended: false,
            shut: false,
            broken: false,
        };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// Whether the client asked for HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    /// The connection below.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Receives what the client says into `room`; 0 once it has said that nothing follows.
    pub(crate) fn poll_recv<'r>(
        &mut self,
        cx: &mut Context<'_>,
        room: impl Room<'r>,
    ) -> Poll<io::Result<usize>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(self.unread.move_to(room.take())));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        // Most often there is nothing: memory is taken only once there is.
        ready!(self.poll_arrive(cx))?;
        let room = room.take();
        loop {
            let count = self.turn(cx, Wish::Read(room))?;
            // The session may have an answer, while nobody has anything to send. A failure shows at
            // the next send: what has come is good.
            let _ = self.poll_flush(cx);
            if count > 0 || self.ended {
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_arrive(cx))?;
        }
    }

    /// Sends the beginning of all `pieces` in a row. What was taken is encrypted; what the socket
    /// does not take now goes first by the next call.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_flush(cx))?;
        let taken = self.turn(cx, Wish::Write(pieces))?;
        // What does not go now is kept.
        let _ = self.poll_flush(cx)?;
        Poll::Ready(Ok(taken))
    }

    /// Ready once all that was taken has gone to the socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.leaving.is_empty() {
            match ready!(self.socket.poll_send(cx, self.leaving.data()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.leaving.consume(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more is sent.
    pub(crate) fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut && !self.broken {
            self.shut = true;
            self.turn(cx, Wish::End)?;
        }
        ready!(self.poll_flush(cx))?;
        self.socket.shut_down();
        Poll::Ready(Ok(()))
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            // The client may send without having taken all.
            let _ = self.poll_flush(cx)?;
            ready!(self.poll_arrive(cx))?;
            self.turn(cx, Wish::Read(&mut []))?;
        }
        self.poll_flush(cx)
    }

    /// Receives records. An end without the client's word for it is an error: somebody else may have
    /// cut the connection (RFC 8446 section 6.1).
    fn poll_arrive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            socket, arrived, ..
        } = self;
        match arrived.poll_fill(cx, |cx, space| socket.poll_recv(cx, space)) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(received) => Poll::Ready(received.map(|_| ())),
            Poll::Pending => {
                // The rest of a record may be long in coming.
                arrived.settle();
                Poll::Pending
            }
        }
    }

    /// Lets the session see all that has arrived, and do what is wished; how many bytes that took.
    fn turn(&mut self, cx: &mut Context<'_>, wish: Wish<'_>) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let turned = self.see(wish);
        if turned.is_err() {
            self.broken = true;
            self.arrived.consume(self.arrived.data().len());
            // What came before it is lost with the turn.
            self.unread.consume(self.unread.data().len());
            self.tell();
            // As far as the client takes it now: what broke the session matters more.
            let _ = self.poll_flush(cx);
        }
        turned
    }

    fn see(&mut self, mut wish: Wish<'_>) -> io::Result<usize> {
        let Self {
            session,
            arrived,
            unread,
            leaving,
            ended,
            ..
        } = self;
        let mut moved = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                session.process_tls_records(arrived.data_mut());
            let seen = match state.map_err(invalid)? {
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        let mut said = record.map_err(invalid)?.payload;
                        if let Wish::Read(room) = &mut wish {
                            let room = room.get_mut(moved..).unwrap_or_default();
                            let (now, later) = said.split_at(said.len().min(room.len()));
                            if let Some(room) = room.get_mut(..now.len()) {
                                room.copy_from_slice(now);
                            }
                            moved += now.len();
                            said = later;
                        }
                        if !unread.extend(said) {
                            return Err(io::ErrorKind::OutOfMemory.into());
                        }
                    }
                    false
                }
                ConnectionState::EncodeTlsData(mut record) => {
                    put(leaving, 0, |space| Ok(record.encode(space)?))?;
                    false
                }
                // They have a place in `leaving`.
                ConnectionState::TransmitTlsData(records) => {
                    records.done();
                    false
                }
                ConnectionState::PeerClosed => {
                    *ended = true;
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    match wish {
                        Wish::Read(_) => {}
                        Wish::Write(pieces) => {
                            moved = batch(pieces, |bytes| {
                                put(leaving, bytes.len(), |space| {
                                    Ok(traffic.encrypt(bytes, space)?)
                                })
                            })?;
                        }
                        Wish::End => {
                            put(leaving, 0, |space| Ok(traffic.queue_close_notify(space)?))?;
                        }
                    }
                    true
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => true,
                // Early data, which is off.
                _ => return Err(io::ErrorKind::Unsupported.into()),
            };
            arrived.consume(discard);
            if *ended {
                // Nobody reads what else comes.
                arrived.consume(arrived.data().len());
            }
            if seen {
                return Ok(moved);
            }
        }
    }

    /// Puts what a session that has failed says of it behind the other records.
    fn tell(&mut self) {
        // No longer than it has something to say: it would go on where it failed.
        while self.session.wants_write() {
            let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut record)) = state else {
                return;
            };
            let _ = put(&mut self.leaving, 0, |space| Ok(record.encode(space)?));
        }
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Gives the beginning of `pieces` to `encrypt`, in runs as long as it pays; how many bytes.
fn batch(
    pieces: &[IoSlice<'_>],
    mut encrypt: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    if let [piece] = pieces {
        let piece = piece.get(..BATCH).unwrap_or(piece);
        encrypt(piece)?;
        return Ok(piece.len());
    }
    let mut encrypt = |bytes: &[u8]| match bytes {
        [] => Ok(()),
        bytes => encrypt(bytes),
    };
    let mut taken = 0;
    let mut together = Outbound::new();
    for piece in pieces {
        if piece.len() <= GATHER_LIMIT {
            if taken + piece.len() > BATCH {
                break;
            }
            together.put(&[piece]);
            taken += piece.len();
            continue;
        }
        encrypt(&together)?;
        together.clear();
        // Whole records, where it is not the end.
        let room = (BATCH - taken) / RECORD * RECORD;
        let begun = piece.get(..room).unwrap_or(piece);
        encrypt(begun)?;
        taken += begun.len();
        if begun.len() < piece.len() {
            break;
        }
    }
    encrypt(&together)?;
    Ok(taken)
}

/// Puts what `write` writes behind the records that are leaving; that is likely to need `room` bytes.
fn put(
    leaving: &mut Inbound,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Unwritten>,
) -> io::Result<()> {
    let written = match leaving.put(room, &mut write) {
        Err(Unwritten::Needs(room)) => leaving.put(room, write),
        written => written,
    };
    written.map_err(|unwritten| match unwritten {
        Unwritten::Needs(_) => io::ErrorKind::WriteZero.into(),
        Unwritten::Failed(error) => error,
    })
}

impl From<EncodeError> for Unwritten {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::Needs(size.required_size),
            error @ EncodeError::AlreadyEncoded => Self::Failed(io::Error::other(error)),
        }
    }
}

impl From<EncryptError> for Unwritten {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Needs(size.required_size),
            error @ EncryptError::EncryptExhausted => Self::Failed(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
#[cfg(not(fuzzing))]
mod tests;
