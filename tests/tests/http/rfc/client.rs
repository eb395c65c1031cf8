//! The client of a case: it sends bytes and reads answers strictly.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use super::{
    message::{self, Framing, Kind, Message, text},
    recorder::LIMIT,
};

/// One connection to the proxy.
pub(super) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Set once the proxy has ended the connection: whether it did so without a reset.
    ended: Option<bool>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::new(),
            ended: None,
        }
    }

    /// Sends what it can: the proxy may have refused the start already.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends the sending side.
    pub(super) fn shut_down(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer, or its start where the connection ends within it; `None` where the
    /// connection has ended before it.
    pub(super) fn answer(&mut self, kind: Kind) -> Result<Option<Message>, String> {
        loop {
            let read = message::read(&self.received, kind)?;
            if let Some((mut message, used)) = read
                && (message.whole || self.ended.is_some())
            {
                message.whole |= message.framing == Framing::Close && self.ended == Some(true);
                self.received.drain(..used);
                return Ok(Some(message));
            }
            if self.ended.is_some() {
                return if self.received.is_empty() {
                    Ok(None)
                } else {
                    Err(format!("half a head: {}", text(&self.received)))
                };
            }
            self.fill()?;
        }
    }

    /// Waits for the connection's end, before which nothing more may come.
    pub(super) fn end(&mut self) -> Result<(), String> {
        while self.ended.is_none() && self.received.is_empty() {
            self.fill()?;
        }
        match self.received[..] {
            [] => Ok(()),
            _ => Err(format!("more came: {}", text(&self.received))),
        }
    }

    /// Waits until `bytes` have come, for a tunnel.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), String> {
        while self.ended.is_none() && self.received.len() < bytes.len() {
            self.fill()?;
        }
        if self.received.starts_with(bytes) {
            self.received.drain(..bytes.len());
            return Ok(());
        }
        Err(format!("{} came", text(&self.received)))
    }

    fn fill(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = Some(true),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = Some(false),
            Err(error) => {
                let so_far = text(&self.received);
                return Err(format!("nothing more came ({error}) after {so_far:?}"));
            }
        }
        Ok(())
    }
}
