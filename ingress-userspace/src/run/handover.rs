//! Passes listening sockets from the running process to the one that takes its place.
//!
//! Two processes that bind the same port by SO_REUSEPORT have queues of their own: what waits in
//! the queue of the one that leaves is reset, however long it goes on accepting, since the kernel
//! keeps adding to it. With the same sockets there is one set of queues, and each process takes what
//! it can serve.
//!
//! A process waits for its successor at an abstract Unix address, named after the address that it
//! serves: such names belong to the network namespace, as ports do, so the pods of a node need no
//! folder in common. Whoever asks has to run as the same user, which is also what the kernel demands
//! of those that join a port by SO_REUSEPORT.
//!
//! ```text
//! predecessor                                successor
//!      │ <──────────────── connects ──────────────│ at its start
//!      │ ── the door and the sockets (SCM_RIGHTS) ─>│ loads its first table
//!      │ <─────────────── one byte ───────────────│ serves from now on
//!      │ stops accepting at SIGTERM               │ waits at the same door
//! ```

use std::{
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    },
    sync::Arc,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, sendmsg, socket_with, sockopt,
};
use tokio::{io::Interest, sync::watch, task::JoinSet};

use super::listener::Role;

/// Descriptors in one message; the kernel allows 253 (SCM_MAX_FD).
const AT_ONCE: usize = 250;
/// Most processes at a time that have the sockets and do not serve yet.
const TAKERS: usize = 16;
/// Longest wait for the running process, which answers at once if it is well.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest pause after a failure to accept, which is out of files.
const PAUSE: Duration = Duration::from_secs(1);
/// The data beside the descriptors: whether more of them come.
const MORE: u8 = b'+';
const LAST: u8 = b'.';
/// What a successor says once it serves.
const SERVING: u8 = b'!';

/// What a running process has passed on.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// Every socket of the address; they listen unless the other does not serve yet.
    pub(super) sockets: Vec<TcpListener>,
    /// How it came, for [`Door::open`].
    pub(super) link: Link,
}

/// The channel between a process and its successor.
#[derive(Debug)]
pub(super) struct Link {
    door: UnixListener,
    predecessor: UnixStream,
}

/// Where the successor finds the sockets of one address.
#[derive(Debug)]
pub(super) struct Door {
    door: UnixListener,
    /// Second descriptors, so that a worker may close its own.
    sockets: Vec<TcpListener>,
    predecessor: Option<UnixStream>,
}

/// The running process does not pass its sockets on as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    /// No connection, or it broke off.
    #[error("the process that serves {address} does not answer")]
    Io {
        /// The address that both serve.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel would not let it join the port either.
    #[error("the process that serves {address} belongs to user {uid}")]
    Stranger {
        /// The address that both serve.
        address: SocketAddr,
        /// The other's user.
        uid: u32,
    },
    /// Something else came than the sockets.
    #[error("the process that serves {address} sends something other than its sockets")]
    Foreign {
        /// The address that both serve.
        address: SocketAddr,
    },
}

/// Takes the sockets of the process that serves `address`; `None` if there is no such process.
///
/// # Errors
/// There is one and it passes nothing usable on, within two seconds.
pub(super) fn inherit(
    role: Role,
    address: SocketAddr,
) -> Result<Option<Inheritance>, HandoverError> {
    let failed = |source| HandoverError::Io { address, source };
    let predecessor = match knock(role, address) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let peer = sockopt::socket_peercred(&predecessor).map_err(|error| failed(error.into()))?;
    if peer.uid != rustix::process::geteuid() {
        let uid = peer.uid.as_raw();
        return Err(HandoverError::Stranger { address, uid });
    }
    let mut passed = receive(&predecessor).map_err(failed)?.into_iter();
    let door = passed.next().map(UnixListener::from);
    let sockets: Vec<_> = passed.map(TcpListener::from).collect();
    match door {
        Some(door) if !sockets.is_empty() && sockets.iter().all(|one| serves(one, address)) => {
            let link = Link { door, predecessor };
            Ok(Some(Inheritance { sockets, link }))
        }
        _ => Err(HandoverError::Foreign { address }),
    }
}

/// Connects to the process that serves `address`. The limit holds for the connection too: it waits
/// while the other's queue is full.
fn knock(role: Role, address: SocketAddr) -> io::Result<UnixStream> {
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let stream = UnixStream::from(socket_with(AddressFamily::UNIX, kind, flags, None)?);
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = SocketAddrUnix::new_abstract_name(abstract_name(role, address).as_bytes())?;
    connect(&stream, &name)?;
    Ok(stream)
}

/// Whether `socket` is one of those that serve `address`.
fn serves(socket: &TcpListener, address: SocketAddr) -> bool {
    sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && socket.local_addr().is_ok_and(|bound| bound == address)
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut passed = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0];
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut data)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("no descriptor is left for some sockets"));
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                passed.extend(descriptors);
            }
        }
        if data == [LAST] {
            return Ok(passed);
        }
    }
}

impl Door {
    /// Makes the door of the process that serves `address` by `sockets`, or goes on with the one
    /// that came with them.
    ///
    /// # Errors
    /// Another process holds the name, or descriptors are used up.
    pub(super) fn open(
        role: Role,
        address: SocketAddr,
        sockets: &[TcpListener],
        inherited: Option<Link>,
    ) -> io::Result<Self> {
        let (door, predecessor) = match inherited {
            Some(link) => (link.door, Some(link.predecessor)),
            None => (UnixListener::bind_addr(&name(role, address)?)?, None),
        };
        Ok(Self {
            door,
            sockets: sockets
                .iter()
                .map(TcpListener::try_clone)
                .collect::<io::Result<_>>()?,
            predecessor,
        })
    }

    /// Tells the predecessor that this process serves, and passes the sockets on to whoever asks.
    /// Once a successor serves, it answers in turn, since it may have more sockets; this process
    /// does so again when that one is gone. `serving` is how many successors serve.
    ///
    /// # Errors
    /// The runtime takes no more descriptors.
    pub(super) async fn wait(mut self, serving: watch::Sender<usize>) -> io::Result<()> {
        if let Some(predecessor) = &mut self.predecessor {
            // It may be gone, and needs not hear it then.
            let _ = predecessor.write_all(&[SERVING]);
        }
        self.door.set_nonblocking(true)?;
        let door = Arc::new(tokio::net::UnixListener::from_std(self.door)?);
        let sockets: Arc<[TcpListener]> = self.sockets.into();
        let serving = Arc::new(serving);
        let mut changes = serving.subscribe();
        let mut takers = JoinSet::new();
        loop {
            let answers = *changes.borrow_and_update() == 0 && takers.len() < TAKERS;
            tokio::select! {
                accepted = door.accept(), if answers => match accepted {
                    Ok((successor, _)) => {
                        let (door, sockets) = (Arc::clone(&door), Arc::clone(&sockets));
                        let serving = Arc::clone(&serving);
                        takers.spawn(async move {
                            if let Err(error) = pass(&door, &sockets, &successor, &serving).await {
                                tracing::warn!(%error, "cannot pass the listening sockets to the successor");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a successor");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = takers.join_next() => {}
                _ = changes.changed() => {}
            }
        }
    }
}

/// Passes everything to `successor`, and returns when that process is gone.
async fn pass(
    door: &tokio::net::UnixListener,
    sockets: &[TcpListener],
    successor: &tokio::net::UnixStream,
    serving: &watch::Sender<usize>,
) -> io::Result<()> {
    let uid = successor.peer_cred()?.uid();
    if uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("user {uid} asked for them")));
    }
    let all: Vec<BorrowedFd<'_>> = std::iter::once(door.as_fd())
        .chain(sockets.iter().map(AsFd::as_fd))
        .collect();
    let mut left = all.chunks(AT_ONCE).peekable();
    while let Some(some) = left.next() {
        let data = [if left.peek().is_some() { MORE } else { LAST }];
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(some));
            Ok(sendmsg(
                successor,
                &[IoSlice::new(&data)],
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        };
        successor.async_io(Interest::WRITABLE, send).await?;
    }
    tracing::info!(
        sockets = sockets.len(),
        "passed the listening sockets to the successor"
    );
    let mut serves = false;
    loop {
        let mut said = [0];
        let read = || Ok(rustix::io::read(successor, &mut said)?);
        match successor.async_io(Interest::READABLE, read).await {
            Ok(1..) => {
                if !serves && said == [SERVING] {
                    serves = true;
                    tracing::info!("the successor serves");
                    serving.send_modify(|count| *count += 1);
                }
            }
            // It has ended, in whatever way.
            Ok(0) | Err(_) => {
                if serves {
                    serving.send_modify(|count| *count -= 1);
                }
                return Ok(());
            }
        }
    }
}

fn name(role: Role, address: SocketAddr) -> io::Result<UnixAddr> {
    UnixAddr::from_abstract_name(abstract_name(role, address))
}

fn abstract_name(role: Role, address: SocketAddr) -> String {
    format!("forebay/1/{}/{address}", role.name())
}

#[cfg(test)]
mod tests {
    use super::{
        super::listener::{bind_shared, listen},
        *,
    };

    fn sockets(count: usize) -> (SocketAddr, Vec<TcpListener>) {
        let mut sockets = Vec::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        bind_shared(Role::Http, any, count, &mut sockets).unwrap();
        sockets.iter().for_each(|socket| listen(socket).unwrap());
        (sockets[0].local_addr().unwrap(), sockets)
    }

    /// A process that serves `address`, on a thread of its own, until the test ends.
    fn predecessor(address: SocketAddr, sockets: &[TcpListener]) -> watch::Receiver<usize> {
        let door = Door::open(Role::Http, address, sockets, None).unwrap();
        let (serving, successors) = watch::channel(0);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(door.wait(serving))
        });
        successors
    }

    fn until(condition: impl Fn() -> bool) {
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < limit, "it never came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_port_that_nobody_serves_is_inherited_from_nobody() {
        let (address, _sockets) = sockets(1);
        assert!(inherit(Role::Http, address).unwrap().is_none());
    }

    #[test]
    fn a_successor_gets_every_socket_however_many_there_are() {
        let (address, sockets) = sockets(AT_ONCE + 50);
        predecessor(address, &sockets);
        let inherited = inherit(Role::Http, address).unwrap().unwrap();
        assert_eq!(inherited.sockets.len(), sockets.len());
        assert!(inherit(Role::Https, address).unwrap().is_none());
    }

    #[test]
    fn a_process_is_replaced_while_its_successor_serves() {
        let (address, sockets) = sockets(2);
        let serving = predecessor(address, &sockets);
        for _ in 0..2 {
            let Inheritance { sockets, link } = inherit(Role::Http, address).unwrap().unwrap();
            assert_eq!(*serving.borrow(), 0);
            let door = Door::open(Role::Http, address, &sockets, Some(link)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let waiting = tokio::spawn(door.wait(watch::channel(0).0));
                tokio::task::yield_now().await;
                until(|| *serving.borrow() == 1);
                waiting.abort();
                assert!(waiting.await.unwrap_err().is_cancelled());
            });
            drop(runtime);
            until(|| *serving.borrow() == 0);
        }
    }

    #[test]
    fn sockets_that_serve_another_address_are_not_taken() {
        let ((address, _bound), (_, others)) = (sockets(1), sockets(1));
        predecessor(address, &others);
        let error = inherit(Role::Http, address).unwrap_err();
        assert!(matches!(error, HandoverError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_process_that_does_not_answer_is_waited_for_no_longer_than_patience() {
        let (address, sockets) = sockets(1);
        let _door = Door::open(Role::Http, address, &sockets, None).unwrap();
        let error = inherit(Role::Http, address).unwrap_err();
        assert!(matches!(error, HandoverError::Io { .. }), "{error}");
    }

    #[test]
    fn a_name_whose_queue_is_full_is_waited_for_no_longer_than_patience() {
        let (address, _sockets) = sockets(1);
        let squatted = abstract_name(Role::Http, address);
        let squatted = SocketAddrUnix::new_abstract_name(squatted.as_bytes()).unwrap();
        let unix = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let squatter = unix(SocketFlags::CLOEXEC).unwrap();
        rustix::net::bind(&squatter, &squatted).unwrap();
        rustix::net::listen(&squatter, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let one = unix(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
            if connect(&one, &squatted).is_err() {
                break;
            }
            waiting.push(one);
        }
        let (send, result) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(inherit(Role::Http, address)));
        let inherited = result.recv_timeout(5 * PATIENCE).unwrap();
        assert!(
            matches!(inherited, Err(HandoverError::Io { .. })),
            "{inherited:?}"
        );
    }

    #[test]
    fn one_that_took_the_sockets_and_does_not_serve_keeps_no_other_from_them() {
        let (address, sockets) = sockets(1);
        let serving = predecessor(address, &sockets);
        let stuck = inherit(Role::Http, address).unwrap().unwrap();
        let mut next = inherit(Role::Http, address).unwrap().unwrap();
        next.link.predecessor.write_all(&[SERVING]).unwrap();
        until(|| *serving.borrow() == 1);
        // The one that serves has the door now, and more sockets maybe.
        assert!(inherit(Role::Http, address).is_err());
        drop(stuck);
        drop(next);
        until(|| *serving.borrow() == 0);
        assert!(inherit(Role::Http, address).unwrap().is_some());
    }

    #[test]
    fn sockets_of_which_some_are_lost_on_the_way_are_not_taken() {
        let (address, sockets) = sockets(1);
        let door = UnixListener::bind_addr(&name(Role::Http, address).unwrap()).unwrap();
        std::thread::spawn(move || {
            let (successor, _) = door.accept().unwrap();
            let sockets: Vec<_> = (0..AT_ONCE + 2).map(|_| sockets[0].as_fd()).collect();
            let all = [&[door.as_fd()][..], &sockets].concat();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE + 3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&all));
            let data = [IoSlice::new(&[LAST])];
            sendmsg(&successor, &data, &mut control, SendFlags::empty()).unwrap();
        });
        let inherited = inherit(Role::Http, address);
        assert!(
            matches!(inherited, Err(HandoverError::Io { .. })),
            "{inherited:?}"
        );
    }
}
