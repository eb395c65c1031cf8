//! One end of the link: frames, and descriptors beside them.
//!
//! A frame is the length of its body (4 bytes, little-endian), its kind (1 byte) and the body. A frame
//! of descriptors has no body; what it brings counts for the next message, in order.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use ingress_model::wire::{self, Place};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use serde::Serialize;
use tokio::{
    io::Interest,
    net::UnixStream,
    time::{Instant, sleep_until},
};
use zeroize::Zeroizing;

/// Descriptors in one frame.
const AT_ONCE: usize = 250;
/// The most that anybody can send at once (SCM_MAX_FD in linux/net/scm.h). With less room than that,
/// the kernel would close the rest in the middle of the call.
const MOST_AT_ONCE: usize = 253;
/// The most descriptors that wait for their message.
const DESCRIPTORS: usize = 4096;
/// The most bytes of an update: ten times the state of a hundred thousand Ingresses.
const UPDATE_LIMIT: usize = 1 << 30;
/// Longest wait for another end that takes nothing: it is stopped, or starved.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Frames that wait at most: an update, and what is said meanwhile. Another end that asks again and again, and takes no
/// answer, is not waited for.
const WAITING: usize = 64;
/// Length and kind.
const HEADER: usize = 5;

/// What came.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A message, for [`wire::read`], and the descriptors that came before it.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// An update, for a [`wire::Decoder`]. It may hold private keys.
    Update(Zeroizing<Vec<u8>>),
}

/// The link broke, or what is on the other side is no end of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The other process has ended, or closed its end.
    #[error("the other end is gone")]
    Gone,
    /// The kernel refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A frame of no known kind, or too long, or with more descriptors than anybody needs.
    #[error("a frame that nobody sends: {0}")]
    Frame(&'static str),
    /// The bytes of a message are none.
    #[error("a message that cannot be read: {0}")]
    Message(String),
    /// Another message than the one that has to come.
    #[error("a message out of turn: {0}")]
    Turn(String),
    /// An update cannot be read.
    #[error(transparent)]
    Update(#[from] wire::WireError),
    /// The other end will not talk.
    #[error("the agent refuses: {0}")]
    Refused(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Update,
    Descriptors,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Message, Self::Update, Self::Descriptors]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: Arc<UnixStream>,
    /// Whether the other end may send updates.
    takes_updates: bool,
    header: [u8; HEADER],
    /// The frame under way, of its whole length; what has come of it, header included.
    body: Zeroizing<Vec<u8>>,
    received: usize,
    descriptors: VecDeque<OwnedFd>,
    /// Frames that were put and not sent whole, each by itself: a long one is not to be moved for those behind it.
    waiting: VecDeque<Zeroizing<Vec<u8>>>,
    /// Of the first of them.
    sent: usize,
    /// Until when all of them are to be sent.
    deadline: Option<Instant>,
}

impl Channel {
    /// An end of `stream`. An agent takes no updates: from a proxy that a client has taken over, it
    /// reads short messages only.
    pub(crate) fn new(stream: UnixStream, takes_updates: bool) -> Self {
        Self {
            stream: Arc::new(stream),
            takes_updates,
            header: [0; HEADER],
            body: Zeroizing::default(),
            received: 0,
            descriptors: VecDeque::new(),
            waiting: VecDeque::new(),
            sent: 0,
            deadline: None,
        }
    }

    /// The next message or update.
    ///
    /// # Errors
    /// The other end is gone, or breaks the rules.
    ///
    /// # Cancel safety
    /// What has come stays: the next call goes on with it.
    pub(crate) async fn receive(&mut self) -> Result<Frame, LinkError> {
        loop {
            while self.received < HEADER {
                let at = self.received;
                let space = self.header.get_mut(at..).unwrap_or_default();
                self.received += receive(&self.stream, space, &mut self.descriptors).await?;
                if self.received == HEADER {
                    self.body = self.room()?;
                }
            }
            while self.received - HEADER < self.body.len() {
                let at = self.received - HEADER;
                let space = self.body.get_mut(at..).unwrap_or_default();
                self.received += receive(&self.stream, space, &mut self.descriptors).await?;
            }
            self.received = 0;
            let mut body = std::mem::take(&mut self.body);
            match Kind::of(self.header[HEADER - 1]) {
                Some(Kind::Message) => {
                    let descriptors = self.descriptors.drain(..).collect();
                    return Ok(Frame::Message(std::mem::take(&mut *body), descriptors));
                }
                Some(Kind::Update) => return Ok(Frame::Update(body)),
                Some(Kind::Descriptors) | None => {}
            }
        }
    }

    /// Room for the body that the header announces.
    fn room(&self) -> Result<Zeroizing<Vec<u8>>, LinkError> {
        let [a, b, c, d, kind] = self.header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let limit = match Kind::of(kind) {
            Some(Kind::Message) => wire::MESSAGE_LIMIT,
            Some(Kind::Update) if self.takes_updates => UPDATE_LIMIT,
            Some(Kind::Descriptors) => 0,
            Some(Kind::Update) | None => return Err(LinkError::Frame("its kind")),
        };
        if length > limit {
            return Err(LinkError::Frame("its length"));
        }
        Ok(Zeroizing::new(vec![0; length]))
    }

    /// Sends a message, and descriptors beside it. Nothing that was [put](Self::put) may wait.
    ///
    /// # Errors
    /// The other end is gone.
    ///
    /// # Cancel safety
    /// None: the other end would take the next frame for the rest of this one.
    pub(crate) async fn send(
        &mut self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        for some in descriptors.chunks(AT_ONCE) {
            let header = header(Kind::Descriptors, 0)?;
            let send = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(some));
                let data = [IoSlice::new(&header)];
                Ok(sendmsg(
                    &self.stream,
                    &data,
                    &mut control,
                    SendFlags::NOSIGNAL,
                )?)
            };
            let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
            // The descriptors went along with the first byte.
            self.send_all(header.get(sent..).unwrap_or_default())
                .await?;
        }
        let body = wire::write(message).map_err(|error| LinkError::Message(error.to_string()))?;
        self.send_frame(Kind::Message, &body).await
    }

    /// Sends an update: what an agent does in tests, where nothing else is to be done meanwhile.
    #[cfg(test)]
    pub(crate) async fn send_update(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.send_frame(Kind::Update, bytes).await
    }

    /// Puts a message behind what waits; [`work`](Self::work) sends it.
    ///
    /// # Errors
    /// It cannot be written, or too much waits.
    pub(crate) fn put(&mut self, message: &impl Serialize) -> Result<(), LinkError> {
        let body = wire::write(message).map_err(|error| LinkError::Message(error.to_string()))?;
        self.put_frame(Kind::Message, &body)
    }

    /// Puts an update behind what waits.
    ///
    /// # Errors
    /// The update is too large, or too much waits.
    pub(crate) fn put_update(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        if bytes.len() > UPDATE_LIMIT {
            return Err(LinkError::Frame("an update of more than a GiB"));
        }
        self.put_frame(Kind::Update, bytes)
    }

    fn put_frame(&mut self, kind: Kind, body: &[u8]) -> Result<(), LinkError> {
        if self.waiting.len() >= WAITING {
            return Err(LinkError::Gone);
        }
        let header = header(kind, body.len())?;
        // At its length at once: a vector that grows leaves its old bytes, which may be keys, behind.
        let mut frame = Zeroizing::new(Vec::with_capacity(header.len() + body.len()));
        frame.extend_from_slice(&header);
        frame.extend_from_slice(body);
        self.waiting.push_back(frame);
        self.deadline
            .get_or_insert_with(|| Instant::now() + PATIENCE);
        Ok(())
    }

    /// Whether all that was put is sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends what was put, and receives meanwhile. Gives what came, or `None` when all is sent.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), or the other end does not take what was put within ten seconds.
    ///
    /// # Cancel safety
    /// The next call goes on with both.
    pub(crate) async fn work(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            let Some(deadline) = self.deadline else {
                return self.receive().await.map(Some);
            };
            if Instant::now() >= deadline {
                return Err(LinkError::Gone);
            }
            // Tried first: there is room as a rule, and then nothing has to be waited for.
            match self.send_some() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let stream = Arc::clone(&self.stream);
                    tokio::select! {
                        frame = self.receive() => return frame.map(Some),
                        writable = stream.writable() => writable?,
                        () = sleep_until(deadline) => return Err(LinkError::Gone),
                    }
                }
                Err(error) => return Err(broken(error)),
            }
            if self.waiting.is_empty() {
                self.deadline = None;
                return Ok(None);
            }
        }
    }

    fn send_some(&mut self) -> io::Result<()> {
        let Some(first) = self.waiting.front() else {
            return Ok(());
        };
        let rest = first.get(self.sent..).unwrap_or_default();
        let send = || Ok(rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL)?);
        self.sent += self.stream.try_io(Interest::WRITABLE, send)?;
        if self.sent >= first.len() {
            self.waiting.pop_front();
            self.sent = 0;
        }
        Ok(())
    }

    async fn send_frame(&mut self, kind: Kind, body: &[u8]) -> Result<(), LinkError> {
        self.send_all(&header(kind, body.len())?).await?;
        self.send_all(body).await
    }

    async fn send_all(&self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let send = || Ok(rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL)?);
            let sent = self.stream.async_io(Interest::WRITABLE, send).await;
            let sent = sent.map_err(broken)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// What an error of sending means.
fn broken(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LinkError::Gone,
        _ => LinkError::Io(error),
    }
}

fn header(kind: Kind, length: usize) -> Result<[u8; HEADER], LinkError> {
    let length = u32::try_from(length).map_err(|_| LinkError::Frame("its length"))?;
    let [a, b, c, d] = length.to_le_bytes();
    Ok([a, b, c, d, kind as u8])
}

/// Receives into `space`, at least one byte.
async fn receive(
    stream: &UnixStream,
    space: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> Result<usize, LinkError> {
    let mut receive = || {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(space)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some.inspect(do_not_linger));
            }
        }
        Ok(received)
    };
    let received = stream.async_io(Interest::READABLE, &mut receive).await;
    let received = received.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => LinkError::Gone,
        _ => LinkError::Io(error),
    })?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("no descriptor is left for some sockets").into());
    }
    if descriptors.len() > DESCRIPTORS {
        return Err(LinkError::Frame("its descriptors"));
    }
    match received.bytes {
        0 => Err(LinkError::Gone),
        count => Ok(count),
    }
}

/// Lets the last close of a socket take no time (SO_LINGER): whoever sent it could stop this process for
/// as long as it likes. It has the socket, too, and could set the time again, or leave the socket where
/// only the kernel finds it; a confined proxy may not set it at all.
fn do_not_linger(descriptor: &OwnedFd) {
    // Fails for what is no socket.
    let _ = sockopt::set_socket_linger(descriptor, None);
}

/// The sockets of a message, checked: each is bound where it is said to be.
///
/// # Errors
/// A descriptor is missing, or is another thing.
pub(crate) fn join(
    places: Vec<Place>,
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<(Place, TcpListener)>, LinkError> {
    if places.len() != descriptors.len() {
        return Err(LinkError::Frame("its descriptors"));
    }
    let pairs = places.into_iter().zip(descriptors);
    let pairs = pairs.map(|(place, descriptor)| {
        let is_stream =
            sockopt::socket_type(&descriptor).map_err(io::Error::from)? == SocketType::STREAM;
        let socket = TcpListener::from(descriptor);
        if !is_stream || socket.local_addr()? != place.address {
            return Err(io::Error::other("a descriptor that is no socket of its address").into());
        }
        Ok((place, socket))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use ingress_model::wire::FromProxy;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (agent, proxy) = UnixStream::pair().unwrap();
        (Channel::new(agent, false), Channel::new(proxy, true))
    }

    /// Receives updates of so many bytes, and a message after each.
    async fn expect(proxy: &mut Channel, sizes: &[usize]) {
        for &size in sizes {
            let Frame::Update(bytes) = proxy.receive().await.unwrap() else {
                panic!("no update of {size} bytes")
            };
            assert!(bytes.len() == size && bytes.iter().all(|byte| *byte == 7));
            let Frame::Message(bytes, _) = proxy.receive().await.unwrap() else {
                panic!("no message after {size} bytes")
            };
            assert_eq!(wire::read::<FromProxy>(&bytes).unwrap(), FromProxy::Serving);
        }
    }

    #[tokio::test]
    async fn messages_and_updates_come_in_order_whatever_their_size() {
        let (mut agent, mut proxy) = pair();
        let sizes = [0, 1, 5, 300_000, 3_000_000];
        let send = async {
            for size in sizes {
                agent.send_update(&vec![7; size]).await.unwrap();
                agent.send(&FromProxy::Serving, &[]).await.unwrap();
            }
        };
        tokio::join!(send, expect(&mut proxy, &sizes));
        drop(agent);
        assert!(matches!(proxy.receive().await, Err(LinkError::Gone)));
    }

    #[tokio::test]
    async fn descriptors_come_with_their_message_however_many_there_are() {
        let (mut agent, mut proxy) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for count in [0, 1, AT_ONCE, 2 * AT_ONCE + 1] {
            let all = vec![socket.as_fd(); count];
            agent.send(&FromProxy::Serving, &all).await.unwrap();
            agent.send(&FromProxy::Leaving, &[]).await.unwrap();
            for expected in [count, 0] {
                let Frame::Message(_, descriptors) = proxy.receive().await.unwrap() else {
                    panic!("no message")
                };
                assert_eq!(descriptors.len(), expected);
                for descriptor in descriptors {
                    let same = TcpListener::from(descriptor);
                    assert_eq!(same.local_addr().unwrap(), socket.local_addr().unwrap());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_receiver_that_is_cancelled_goes_on_where_it_was() {
        let (agent, mut proxy) = pair();
        let body = wire::write(&FromProxy::Serving).unwrap();
        let header = header(Kind::Message, body.len()).unwrap();
        let mut stream = Arc::into_inner(agent.stream).unwrap();
        for byte in [&header[..], &body].concat() {
            let early = std::future::poll_fn(|cx| {
                let receive = std::pin::pin!(proxy.receive());
                std::task::Poll::Ready(receive.poll(cx).is_pending())
            });
            assert!(early.await, "a frame before its last byte");
            stream.write_all(&[byte]).await.unwrap();
        }
        assert!(matches!(
            proxy.receive().await.unwrap(),
            Frame::Message(bytes, _) if bytes == body
        ));
    }

    #[tokio::test]
    async fn what_is_put_is_sent_in_order_while_something_is_received() {
        let (mut agent, mut proxy) = pair();
        // More than a socket takes, so that some of it waits.
        let sizes = [0, 3_000_000, 5];
        for size in sizes {
            agent.put_update(&vec![7; size]).unwrap();
            agent.put(&FromProxy::Serving).unwrap();
        }
        assert!(!agent.is_sent());
        proxy.send(&FromProxy::Resync, &[]).await.unwrap();
        let Some(Frame::Message(bytes, _)) = agent.work().await.unwrap() else {
            panic!("nothing comes while something waits")
        };
        assert_eq!(wire::read::<FromProxy>(&bytes).unwrap(), FromProxy::Resync);
        assert!(!agent.is_sent());
        let (sent, ()) = tokio::join!(agent.work(), expect(&mut proxy, &sizes));
        assert!(sent.unwrap().is_none() && agent.is_sent());
    }

    #[tokio::test(start_paused = true)]
    async fn another_end_that_takes_nothing_is_gone_after_ten_seconds_whatever_it_says() {
        let (mut agent, mut proxy) = pair();
        agent.put_update(&vec![7; 3_000_000]).unwrap();
        let begun = Instant::now();
        let says = async {
            loop {
                proxy.send(&FromProxy::Resync, &[]).await.unwrap();
                sleep_until(Instant::now() + Duration::from_secs(1)).await;
            }
        };
        let hears = async {
            loop {
                if let Err(error) = agent.work().await {
                    return error;
                }
            }
        };
        tokio::select! {
            error = hears => assert!(matches!(error, LinkError::Gone), "{error}"),
            () = says => {}
        }
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test]
    async fn another_end_that_asks_much_and_takes_nothing_is_gone() {
        let (mut agent, _proxy) = pair();
        agent.put_update(&vec![7; 3_000_000]).unwrap();
        let last = (0..1000).find_map(|_| agent.put(&FromProxy::Serving).err());
        assert!(matches!(last, Some(LinkError::Gone)), "{last:?}");
    }

    #[tokio::test]
    async fn frames_that_nobody_sends_are_refused_before_their_body() {
        let long = u32::try_from(wire::MESSAGE_LIMIT + 1).unwrap();
        for (takes_updates, length, kind) in [
            (true, u32::MAX, Kind::Update as u8),
            (true, long, Kind::Message as u8),
            (true, 1, Kind::Descriptors as u8),
            (true, 0, 9),
            (false, 1, Kind::Update as u8),
            (false, long, Kind::Message as u8),
        ] {
            let (mut there, here) = UnixStream::pair().unwrap();
            let mut here = Channel::new(here, takes_updates);
            let header = [&length.to_le_bytes()[..], &[kind]].concat();
            there.write_all(&header).await.unwrap();
            assert!(
                matches!(here.receive().await, Err(LinkError::Frame(_))),
                "{takes_updates} {length} {kind}"
            );
        }
    }
}
