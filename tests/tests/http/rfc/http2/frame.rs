//! One HTTP/2 connection, frame by frame (RFC 9113 section 4.1).

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::{
    super::{message::text, recorder::LIMIT},
    hpack,
};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
const ACK: u8 = 1;

/// A connection to the proxy.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What a stream came to.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Outcome {
    Answer {
        status: u16,
        /// As `text` shows it.
        body: String,
    },
    /// RST_STREAM, with its code.
    Reset(u32),
    /// GOAWAY with an error, or the end of the connection.
    #[default]
    Gone,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Connection {
    /// Connects, and sends the preface and settings.
    pub(super) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Self {
            stream,
            received: Vec::new(),
        };
        connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        connection.send(SETTINGS, 0, 0, &[]);
        connection
    }

    /// Makes the kernel say at short intervals how much of what came was read.
    pub(super) fn shrink_receive_buffer(&self) {
        set_socket_recv_buffer_size(&self.stream, 128 * 1024).unwrap();
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }

    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let size = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.write(&frame);
    }

    /// Reads until `stream` has come to its end.
    pub(super) fn outcome(&mut self, stream: u32) -> Result<Outcome, String> {
        let (mut status, mut body) = (None, Vec::new());
        while let Some(frame) = self.receive()? {
            match (frame.kind, frame.stream) {
                (GOAWAY, _) if frame.payload.get(4..8) != Some(&[0; 4]) => break,
                (RST_STREAM, id) if id == stream => {
                    let code = frame.payload.try_into().map_err(|_| "bad RST_STREAM")?;
                    let code = u32::from_be_bytes(code);
                    return Ok(Outcome::Reset(code));
                }
                (HEADERS, id) if id == stream => {
                    // Interim ones come before; trailers hold no status.
                    if let Some(code) = hpack::status(&frame.payload) {
                        status = Some(code);
                    }
                }
                (DATA, id) if id == stream => body.extend_from_slice(&frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                let status = status.ok_or("an answer without a status")?;
                let body = text(&body);
                return Ok(Outcome::Answer { status, body });
            }
        }
        Ok(Outcome::Gone)
    }

    /// Opens the window of the connection and of `stream` by `size` bytes.
    pub(super) fn open_window(&mut self, stream: u32, size: u32) {
        self.send(WINDOW_UPDATE, 0, 0, &size.to_be_bytes());
        self.send(WINDOW_UPDATE, 0, stream, &size.to_be_bytes());
    }

    /// Reads `size` bytes of the body of `stream`, all of which its window has room for.
    pub(super) fn data(&mut self, stream: u32, size: usize) -> Result<(), String> {
        let mut received = 0;
        while received < size {
            match self.receive()?.ok_or("closed")? {
                frame if (frame.kind, frame.stream) == (DATA, stream) => {
                    received += frame.payload.len();
                }
                frame if frame.kind == RST_STREAM => return Err("reset".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the body of `stream`: how many bytes came, in how many frames.
    pub(super) fn body(&mut self, stream: u32) -> Result<(usize, usize), String> {
        let (mut size, mut frames) = (0, 0);
        while let Some(frame) = self.receive()? {
            if (frame.kind, frame.stream) == (DATA, stream) {
                (size, frames) = (size + frame.payload.len(), frames + 1);
                if frame.flags & END_STREAM != 0 {
                    return Ok((size, frames));
                }
            }
        }
        Err(format!("closed after {size} bytes"))
    }

    /// Reads until `count` streams have ended, each frame after a `pause`.
    pub(super) fn ends(&mut self, count: u32, pause: Duration) -> Result<(), String> {
        let mut ended = 0;
        while ended < count {
            thread::sleep(pause);
            let frame = self.receive()?;
            let frame = frame.ok_or_else(|| format!("closed after {ended} streams"))?;
            ended += u32::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
        }
        Ok(())
    }

    /// Reads until GOAWAY says that the connection ends, and no further.
    pub(super) fn goaway(&mut self) -> Result<(), String> {
        while let Some(frame) = self.receive()? {
            if frame.kind == GOAWAY {
                return Ok(());
            }
        }
        Err("closed without GOAWAY".to_owned())
    }

    /// Reads until a PING was answered, and no further.
    pub(super) fn answer_ping(&mut self) -> Result<(), String> {
        while let Some(frame) = self.receive()? {
            if frame.kind == PING && frame.flags & ACK == 0 {
                return Ok(());
            }
        }
        Err("closed without PING".to_owned())
    }

    /// The next frame, with those answered that ask for it; `None` at the end.
    fn receive(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let [a, b, c, kind, flags, rest @ ..] = &self.received[..]
                && let Some((stream, rest)) = rest.split_at_checked(4)
                && let size = u32::from_be_bytes([0, *a, *b, *c]) as usize
                && let Some(payload) = rest.get(..size)
            {
                let frame = Frame {
                    kind: *kind,
                    flags: *flags,
                    stream: u32::from_be_bytes(stream.try_into().unwrap()),
                    payload: payload.to_vec(),
                };
                self.received.drain(..9 + size);
                if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                    let echo = frame.payload.as_slice();
                    let echo = if frame.kind == PING { echo } else { &[] };
                    self.send(frame.kind, ACK, 0, echo);
                }
                return Ok(Some(frame));
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(format!("nothing more came: {error}")),
            }
        }
    }

    /// Sends what it can: the proxy may have closed the connection already.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }
}
