//! One question over the admin socket. HTTP/1.1, since an old one's answer of unknown length ends with
//! the connection, whether it is whole or not.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Longest wait for a whole answer. A probe that waits longer learns nothing new.
const LIMIT: Duration = Duration::from_secs(2);

/// Why there is no answer, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No socket, or nobody behind it.
    #[error("no Forebay answers at {}; is it running? Name its socket with --admin-socket", .0.display())]
    Nobody(PathBuf),
    /// The socket of another user.
    #[error("not permitted to ask at {}; only the user that runs Forebay may, and root", .0.display())]
    NotPermitted(PathBuf),
    /// It does not answer in time.
    #[error("the Forebay at {} did not answer within 2 s; see its log", .0.display())]
    Silent(PathBuf),
    /// Something else answers, or it ended meanwhile.
    #[error("what answers at {} is no Forebay", .0.display())]
    NotHttp(PathBuf),
    /// The kernel refuses.
    #[error("cannot ask at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Asks the Forebay at `socket` for `target`; gives status and body.
///
/// # Errors
/// Nobody answers, or not within 2 s.
pub(super) fn get(socket: &Path, target: &str) -> Result<(u16, String), AskError> {
    let answer = exchange(socket, target).map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody(path),
            io::ErrorKind::PermissionDenied => AskError::NotPermitted(path),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent(path),
            io::ErrorKind::InvalidData => AskError::NotHttp(path),
            _ => AskError::Io { path, source },
        }
    })?;
    read(&answer).ok_or_else(|| AskError::NotHttp(socket.to_owned()))
}

fn exchange(path: &Path, target: &str) -> io::Result<String> {
    let deadline = Instant::now() + LIMIT;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A process that accepts no more fills its backlog: then the connect waits, too.
    socket.set_write_timeout(Some(LIMIT))?;
    socket.connect(&SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Status and body of a whole answer.
fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok()?;
    let (mut length, mut in_chunks) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
        in_chunks |= name.eq_ignore_ascii_case("transfer-encoding");
    }
    let body = if in_chunks {
        joined(body)?
    } else {
        body.to_owned()
    };
    length
        .is_none_or(|length| length == body.len())
        .then_some((status, body))
}

/// A whole body that came in chunks.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::with_capacity(chunks.len());
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        body.push_str(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
        if size == 0 {
            return Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        for (answer, read_as) in [
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
                Some((200, "ok")),
            ),
            ("HTTP/1.1 503 Busy\r\n\r\nwhy", Some((503, "why"))),
            ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\ncut", None),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nB\r\n0\r\n\r\n234567\r\n0\r\n\r\n",
                Some((200, "abc0\r\n\r\n234567")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                None,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
                None,
            ),
            ("HTTP/1.0 200 OK\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("", None),
        ] {
            let expected = read_as.map(|(status, body): (u16, &str)| (status, body.to_owned()));
            assert_eq!(read(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn an_error_says_what_to_do_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let error = |path: &Path| get(path, "/status").unwrap_err().to_string();
        assert!(error(&path).contains("is it running? Name its socket with --admin-socket"));
        let silent = UnixListener::bind(&path).unwrap();
        assert!(error(&path).contains("within 2 s; see its log"));
        drop(silent);
        assert!(error(&path).contains("is it running?"), "a dead socket");
    }
}
