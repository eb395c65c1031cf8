//! The endpoint of a case: it keeps every byte that arrives and answers as it is told.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use super::message::{self, Kind, Message, text};
use crate::wire::bound;

/// Longest wait for what has to happen.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// How one request is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Sent in this order; `None` answers with the request's target.
    pub(super) bytes: Option<Vec<u8>>,
    /// Answers once the head has come, before the body.
    pub(super) early: bool,
    /// Sends byte by byte.
    pub(super) drip: bool,
    /// Ends the connection afterwards.
    pub(super) close: bool,
}

/// A running recorder.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    /// Connects when all is over, as the last to be accepted.
    last: OwnedFd,
    accepting: JoinHandle<Vec<JoinHandle<()>>>,
}

struct State {
    replies: Vec<Reply>,
    record: Mutex<Record>,
    changed: Condvar,
}

#[derive(Default)]
struct Record {
    /// Answers begun so far, over all connections.
    begun: usize,
    /// Those of them that are sent.
    answered: usize,
    connections: Vec<Connection>,
}

#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    /// Where a tunnel begins, once the endpoint has switched.
    tunnel: Option<usize>,
}

/// What has arrived, when all connections have ended.
pub(super) struct Arrivals {
    pub(super) messages: Vec<Message>,
    /// What was no message, or came after the last one.
    pub(super) stray: Vec<String>,
    pub(super) connections: usize,
}

impl Recorder {
    /// Answers the first requests with `replies`, the others with their targets.
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            replies,
            record: Mutex::default(),
            changed: Condvar::new(),
        });
        let shared = Arc::clone(&state);
        let (last, end) = bound();
        let accepting = std::thread::spawn(move || accept(&listener, end, &shared));
        Self {
            address,
            state,
            last,
            accepting,
        }
    }

    /// Waits until `bytes` have arrived on one connection; says whether they have.
    pub(super) fn has_received(&self, bytes: &[u8]) -> bool {
        let holds = |record: &mut Record| {
            let found = |own: &Connection| own.received.windows(bytes.len()).any(|at| at == bytes);
            !record.connections.iter().any(found)
        };
        self.waits_while(holds)
    }

    /// Waits until `count` requests are answered, with all that belongs to the answers.
    pub(super) fn has_answered(&self, count: usize) -> bool {
        self.waits_while(|record| record.answered < count)
    }

    fn waits_while(&self, holds: impl FnMut(&mut Record) -> bool) -> bool {
        let record = self.state.record.lock().unwrap();
        let waited = self.state.changed.wait_timeout_while(record, LIMIT, holds);
        !waited.unwrap().1.timed_out()
    }

    /// What has arrived; to be asked once the proxy has ended.
    pub(super) fn finish(self) -> Arrivals {
        rustix::net::connect(&self.last, &self.address).unwrap();
        for connection in self.accepting.join().unwrap() {
            connection.join().unwrap();
        }
        let record = self.state.record.lock().unwrap();
        let mut arrivals = Arrivals {
            messages: Vec::new(),
            stray: Vec::new(),
            connections: record.connections.len(),
        };
        for connection in &record.connections {
            arrivals.take(connection);
        }
        arrivals
    }
}

impl Arrivals {
    fn take(&mut self, connection: &Connection) {
        let (messages, tunnel) = connection
            .received
            .split_at(connection.tunnel.unwrap_or(connection.received.len()));
        let mut rest = messages;
        while !rest.is_empty() {
            match message::read(rest, Kind::Request) {
                Ok(Some((message, used))) => {
                    rest = &rest[used..];
                    self.messages.push(message);
                }
                Ok(None) => {
                    self.stray.push(format!("half a head: {}", text(rest)));
                    break;
                }
                Err(error) => {
                    self.stray.push(format!("{error} in {}", text(rest)));
                    break;
                }
            }
        }
        if !tunnel.is_empty() {
            self.stray.push(format!("tunnel {}", text(tunnel)));
        }
    }
}

/// Serves all connections before the one from `end`.
fn accept(listener: &TcpListener, end: SocketAddr, state: &Arc<State>) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    loop {
        let (stream, peer) = listener.accept().unwrap();
        if peer == end {
            return threads;
        }
        let number = {
            let mut record = state.record.lock().unwrap();
            record.connections.push(Connection::default());
            record.connections.len() - 1
        };
        let state = Arc::clone(state);
        threads.push(std::thread::spawn(move || serve(stream, number, &state)));
    }
}

/// Records until the proxy ends the connection; answers what it can read.
fn serve(mut stream: TcpStream, number: usize, state: &State) {
    stream.set_read_timeout(Some(2 * LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut at, mut replied, mut closed) = (0, false, false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else {
            return;
        };
        let received = {
            let mut record = state.record.lock().unwrap();
            let connection = &mut record.connections[number];
            connection.received.extend_from_slice(&buffer[..count]);
            if connection.tunnel.is_some() {
                let _ = stream.write_all(&buffer[..count]);
            }
            state.changed.notify_all();
            if connection.tunnel.is_some() || closed {
                continue;
            }
            connection.received.clone()
        };
        while let Ok(Some((message, used))) = message::read(&received[at..], Kind::Request) {
            if !replied && let Some(close) = reply(&mut stream, &message, number, at + used, state)
            {
                (replied, closed) = (true, close);
            }
            if !message.whole || closed {
                break;
            }
            (at, replied) = (at + used, false);
        }
    }
}

/// Answers `message` if it is time to; then says whether the connection is over.
fn reply(
    stream: &mut TcpStream,
    message: &Message,
    number: usize,
    end: usize,
    state: &State,
) -> Option<bool> {
    let reply = {
        let mut record = state.record.lock().unwrap();
        let reply = state.replies.get(record.begun).cloned();
        let reply = reply.unwrap_or_default();
        if !message.whole && !reply.early {
            return None;
        }
        record.begun += 1;
        reply
    };
    let bytes = reply.bytes.unwrap_or_else(|| own(message));
    if bytes.starts_with(b"HTTP/1.1 101") {
        state.record.lock().unwrap().connections[number].tunnel = Some(end);
    }
    // The proxy may have gone: then the case says what is missing.
    if reply.drip {
        bytes
            .iter()
            .for_each(|byte| drop(stream.write_all(&[*byte])));
    } else {
        let _ = stream.write_all(&bytes);
    }
    if reply.close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    state.record.lock().unwrap().answered += 1;
    state.changed.notify_all();
    Some(reply.close)
}

/// An answer that holds the target it was asked for.
fn own(message: &Message) -> Vec<u8> {
    let (method, target) = message.start.split_once(' ').unwrap_or_default();
    let body = if method == "HEAD" { "" } else { target };
    let length = target.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
