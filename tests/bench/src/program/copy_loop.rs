//! The floor of what a proxy can cost: bytes are copied without a look at them.
//!
//! One thread and one epoll; for each client's connection one to the origin; one read and one
//! write for what arrives in one piece. Reads stop where the other side is full, as in any proxy.
//! Events are edges (epoll(7)), so that nothing is asked of epoll after a connection's begin.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    str::FromStr,
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    io::{Errno, read, write},
};

/// The most that one read takes, in bytes: large answers become cheaper up to here.
const BUFFER: usize = 128 * 1024;
/// The most events of one wait.
const EVENTS: usize = 256;

/// Where to listen, and the origin to connect to; written `LISTEN=ORIGIN`.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    listen: SocketAddr,
    origin: SocketAddr,
}

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (listen, origin) = text.split_once('=').context("no `=`")?;
        Ok(Self {
            listen: listen.parse()?,
            origin: origin.parse()?,
        })
    }
}

/// Copies until it is told to end.
///
/// # Errors
/// An address cannot be bound, or the kernel runs out of descriptors for epoll.
pub(super) fn run(pairs: &[Pair]) -> Result<()> {
    let mut copies = CopyLoop::new(pairs)?;
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        copies.turn(&mut events)?;
    }
}

struct CopyLoop {
    epoll: OwnedFd,
    listeners: Vec<(TcpListener, SocketAddr)>,
    links: Vec<Option<Link>>,
    /// Places in `links` that are empty.
    free: Vec<usize>,
    /// Links that end with this turn: a place is not used again while an event may still name it.
    ended: Vec<usize>,
    buffer: Box<[u8]>,
}

/// A client's connection and its own to the origin.
struct Link([Side; 2]);

struct Side {
    stream: TcpStream,
    /// A read may find something. Until the next edge, one that does not fill its buffer has taken
    /// all there is.
    readable: bool,
    /// The other end has closed or broken off, for which there is no second edge.
    ending: bool,
    /// A write may find room, until one does not.
    writable: bool,
    /// What it had no room for; while there is any, nothing is read from the other side.
    unsent: Vec<u8>,
}

impl CopyLoop {
    fn new(pairs: &[Pair]) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for (place, pair) in pairs.iter().enumerate() {
            let listener = TcpListener::bind(pair.listen).context("listen")?;
            listener.set_nonblocking(true)?;
            epoll::add(&epoll, &listener, token(place), EventFlags::IN)?;
            listeners.push((listener, pair.origin));
        }
        Ok(Self {
            epoll,
            listeners,
            links: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            buffer: vec![0; BUFFER].into(),
        })
    }

    /// Waits, and handles what has come.
    fn turn(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("wait"),
        }
        for &Event { flags, data } in events.iter() {
            let token = data.u64() as usize;
            match token.checked_sub(self.listeners.len()) {
                None => self.accept(token),
                Some(token) => self.handle(token / 2, token % 2, flags),
            }
        }
        for place in self.ended.drain(..) {
            if self.links.get_mut(place).and_then(Option::take).is_some() {
                self.free.push(place);
            }
        }
        Ok(())
    }

    /// A client that cannot be accepted, or not be connected to the origin, sees its end.
    fn accept(&mut self, listener: usize) {
        let Some((listener, origin)) = self.listeners.get(listener) else {
            return;
        };
        let Some(link) = Link::make(listener, *origin) else {
            return;
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        for (side, Side { stream, .. }) in link.0.iter().enumerate() {
            let token = token(self.listeners.len() + 2 * place + side);
            let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if epoll::add(&self.epoll, stream, token, edges).is_err() {
                self.free.push(place);
                return;
            }
        }
        if let Some(empty) = self.links.get_mut(place) {
            *empty = Some(link);
        }
    }

    fn handle(&mut self, place: usize, side: usize, flags: EventFlags) {
        let Some(Some(link)) = self.links.get_mut(place) else {
            return;
        };
        if link.copy(side, flags, &mut self.buffer).is_none() {
            self.ended.push(place);
        }
    }
}

impl Link {
    fn make(listener: &TcpListener, origin: SocketAddr) -> Option<Self> {
        let (client, _) = listener.accept().ok()?;
        let origin = TcpStream::connect(origin).ok()?;
        for stream in [&client, &origin] {
            stream.set_nonblocking(true).ok()?;
            stream.set_nodelay(true).ok()?;
        }
        Some(Self([client, origin].map(|stream| Side {
            stream,
            readable: false,
            ending: false,
            writable: true,
            unsent: Vec::new(),
        })))
    }

    /// Moves what can be moved after one side's event; `None` when the link has ended.
    fn copy(&mut self, side: usize, flags: EventFlags, buffer: &mut [u8]) -> Option<()> {
        self.0.get_mut(side)?.note(flags);
        let [client, origin] = &mut self.0;
        pump(client, origin, buffer)?;
        pump(origin, client, buffer)
    }
}

/// Moves bytes one way until there are none or there is no room.
fn pump(from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> Option<()> {
    loop {
        if !to.unsent.is_empty() && !to.flush()? {
            return Some(());
        }
        if !from.readable {
            return Some(());
        }
        match read(&from.stream, &mut *buffer) {
            Ok(0) => return None,
            Ok(length) => {
                from.readable = length == buffer.len() || from.ending;
                to.send(buffer.get(..length)?)?;
            }
            Err(Errno::AGAIN) => from.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

impl Side {
    fn note(&mut self, flags: EventFlags) {
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.ending |= flags.intersects(ends);
        self.readable |= flags.contains(EventFlags::IN) || self.ending;
        self.writable |= flags.contains(EventFlags::OUT);
    }

    /// Writes once and keeps what is left over.
    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        let sent = sent(write(&self.stream, bytes))?;
        let rest = bytes.get(sent..)?;
        self.writable = rest.is_empty();
        self.unsent.extend_from_slice(rest);
        Some(())
    }

    /// Writes what is left over, if there is room; tells whether nothing is any more.
    fn flush(&mut self) -> Option<bool> {
        if self.writable {
            let sent = sent(write(&self.stream, &self.unsent))?;
            self.unsent.drain(..sent);
            self.writable = self.unsent.is_empty();
        }
        Some(self.unsent.is_empty())
    }
}

/// Nothing was sent to a side that is full; `None` for one that is gone.
fn sent(written: rustix::io::Result<usize>) -> Option<usize> {
    match written {
        Ok(sent) => Some(sent),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_) => None,
    }
}

fn token(number: usize) -> EventData {
    EventData::new_u64(number as u64)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        thread,
    };

    use super::*;

    const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

    /// A client and an origin with a loop between them, which runs as long as the process.
    fn linked() -> (TcpStream, TcpStream) {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = Pair {
            listen: "127.0.0.1:0".parse().unwrap(),
            origin: origin.local_addr().unwrap(),
        };
        let mut copies = CopyLoop::new(&[pair]).unwrap();
        let address = copies.listeners[0].0.local_addr().unwrap();
        thread::spawn(move || {
            let mut events = Vec::with_capacity(EVENTS);
            while copies.turn(&mut events).is_ok() {}
        });
        let client = TcpStream::connect(address).unwrap();
        let (origin, _) = origin.accept().unwrap();
        for stream in [&client, &origin] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_write_timeout(Some(LIMIT)).unwrap();
        }
        (client, origin)
    }

    #[test]
    fn bytes_go_both_ways_and_an_end_goes_through() {
        let (mut client, mut origin) = linked();
        let mut bytes = [0; 4];
        for _ in 0..3 {
            client.write_all(b"ping").unwrap();
            origin.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"ping");
            origin.write_all(b"pong").unwrap();
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"pong");
        }
        drop(client);
        assert_eq!(origin.read(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn more_than_the_sockets_hold_arrives_whole_and_in_order() {
        let (mut client, mut origin) = linked();
        let sent: Vec<u8> = (0..32_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let sender = thread::spawn(move || {
            origin.write_all(&sent).unwrap();
            origin
        });
        // What one direction waits for does not stop the other.
        client.write_all(b"a").unwrap();
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == expected, "other bytes arrived");
        let mut origin = sender.join().unwrap();
        let mut byte = [0];
        origin.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
    }

    #[test]
    fn a_pair_is_two_addresses() {
        let pair: Pair = "127.0.0.1:1=127.0.0.1:2".parse().unwrap();
        assert_eq!(pair.listen.port(), 1);
        assert_eq!(pair.origin.port(), 2);
        assert!("127.0.0.1:1".parse::<Pair>().is_err());
    }
}
