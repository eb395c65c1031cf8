//! HTTP/1.1 byte by byte: what no well-behaved client would send, and what a bad endpoint answers.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread::JoinHandle,
    time::Duration,
};

use rustix::net::{self, AddressFamily, SocketType};

/// Longest wait for a byte.
const LIMIT: Duration = Duration::from_secs(10);

/// One connection to the proxy.
pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
}

/// One answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name, the last of a name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The echo of `ingress_lab::origin`.
    pub(crate) fn echo(&self) -> ingress_lab::origin::Echo {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {self:?} {}", self.text()))
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a GET for `target` with more header `lines`, each with its line end.
    pub(crate) fn get(&mut self, target: &str, lines: &str) -> Answer {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"
        ));
        self.answer()
    }

    /// Reads the next answer, with a body of known length, in chunks, or up to the end.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let mut body = Vec::new();
        self.body(&answer, |piece| body.extend_from_slice(piece));
        answer.body = body;
        answer
    }

    /// Reads the body that follows `head`, piece by piece, to its end.
    pub(crate) fn body(&mut self, head: &Answer, mut take: impl FnMut(&[u8])) {
        if head.header("transfer-encoding") == "chunked" {
            loop {
                let line = self.line();
                let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
                if size == 0 {
                    while !self.line().is_empty() {}
                    return;
                }
                self.exactly(size, &mut take);
                assert_eq!(self.line(), "", "after a chunk of {size} bytes");
            }
        }
        match head.header("content-length").parse() {
            Ok(length) => self.exactly(length, &mut take),
            Err(_) if head.status == 101 || head.status == 204 => {}
            Err(_) => {
                let mut body = Vec::new();
                self.reader.read_to_end(&mut body).unwrap();
                take(&body);
            }
        }
    }

    fn exactly(&mut self, mut left: usize, take: &mut impl FnMut(&[u8])) {
        while left > 0 {
            let piece = self.reader.fill_buf().unwrap();
            assert!(!piece.is_empty(), "the body ended {left} bytes early");
            let size = piece.len().min(left);
            take(&piece[..size]);
            self.reader.consume(size);
            left -= size;
        }
    }

    /// Reads a head; the body stays on the connection.
    pub(crate) fn head(&mut self) -> Answer {
        let start = self.line();
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut answer = Answer {
            status: status.unwrap_or_else(|| panic!("status line {start:?}")),
            ..Answer::default()
        };
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else {
                return answer;
            };
            answer
                .headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) {
        self.reader.read_exact(buffer).unwrap();
    }

    /// Whether the proxy ends the connection, with nothing more sent: an end of the stream or a
    /// reset. A connection that is still open when the wait is over is not closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(more) => more.is_empty(),
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset => true,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => false,
                _ => panic!("{error}"),
            },
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// Sends `bytes` on a connection of their own and reads one answer.
pub(crate) fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::connect(address);
    wire.send(bytes);
    wire.answer()
}

/// An endpoint that does as it is told, connection after connection.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    _thread: JoinHandle<()>,
}

impl Endpoint {
    /// Calls `serve` for each connection, one after the other, with its number.
    pub(crate) fn start(mut serve: impl FnMut(usize, TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Ends with the test's process: nothing is left behind by a blocking accept.
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                serve(number, stream.unwrap());
            }
        });
        Self {
            address,
            _thread: thread,
        }
    }

    /// Answers every request head with `response`.
    pub(crate) fn answering(response: &'static str) -> Self {
        Self::start(move |_, mut stream| {
            while read_head(&mut stream).is_some() {
                let _ = stream.write_all(response.as_bytes());
            }
        })
    }
}

/// Reads one head; `None` at the end of the connection.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// A loopback socket, bound to a port of its own.
pub(crate) fn bound() -> (OwnedFd, SocketAddr) {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = net::getsockname(&socket).unwrap().try_into().unwrap();
    (socket, address)
}

/// An address that refuses every connection for as long as this lives: bound, so that nobody else
/// is given it, and never listening.
pub(crate) struct Refusing {
    pub(crate) address: SocketAddr,
    _socket: OwnedFd,
}

impl Refusing {
    pub(crate) fn start() -> Self {
        let (socket, address) = bound();
        Self {
            address,
            _socket: socket,
        }
    }
}

/// An address that answers no connection: its queue has room for one, which is taken, and the
/// kernel drops what comes after it.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _socket: OwnedFd,
    _first: TcpStream,
}

impl BlackHole {
    pub(crate) fn start() -> Self {
        let (socket, address) = bound();
        net::listen(&socket, 0).unwrap();
        let first = TcpStream::connect(address).unwrap();
        Self {
            address,
            _socket: socket,
            _first: first,
        }
    }
}
