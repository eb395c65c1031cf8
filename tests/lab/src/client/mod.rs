//! The other end: curl and wrk, here or in a namespace, and a plain GET for the admin socket.

mod curl;
mod wrk;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

pub use self::{
    curl::{Answer, PendingCurl, curl, curl_in, start_curl},
    wrk::{Load, Wrk, wrk},
};
use crate::lab::Namespace;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks `address` for `path` over a plain connection; returns status and body.
///
/// # Errors
/// No connection, or no whole answer within 5 s.
pub fn get(
    namespace: Option<&Namespace>,
    address: SocketAddr,
    path: &str,
) -> Result<(u16, String)> {
    let path = path.to_owned();
    let ask =
        move || plain_get(address, &path).with_context(|| format!("GET {path} from {address}"));
    match namespace {
        Some(namespace) => namespace.run(ask),
        None => ask(),
    }
}

/// Asks the Unix socket `path` for `target`; returns status and body.
///
/// # Errors
/// As [`get`].
pub fn get_unix(path: &Path, target: &str) -> Result<(u16, String)> {
    let ask = || {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        exchange(stream, target)
    };
    ask().with_context(|| format!("GET {target} from {}", path.display()))
}

fn plain_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    exchange(stream, path)
}

fn exchange(mut stream: impl Read + Write, target: &str) -> Result<(u16, String)> {
    // HTTP/1.0 keeps the answer free of chunks, so the body ends with the connection.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: forebay\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("answer without a head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Echo, Origin};

    #[test]
    fn origin_says_what_reached_it_in_both_versions() {
        let origin = Origin::start("pod-a", "127.0.0.1:0".parse().unwrap()).unwrap();
        let url = |path: &str| format!("http://{}{path}", origin.address());
        for (flag, version) in [
            ("--http1.1", "HTTP/1.1"),
            ("--http2-prior-knowledge", "HTTP/2.0"),
        ] {
            let answer = curl(&[flag, "-H", "X-Test: 1", &url("/some/path?q=1")]).unwrap();
            let echo: Echo = answer.json().unwrap();
            assert_eq!(
                (answer.status, echo.pod.as_str(), echo.version.as_str()),
                (200, "pod-a", version)
            );
            assert_eq!(
                (echo.path.as_str(), echo.headers["x-test"].as_str()),
                ("/some/path?q=1", "1")
            );
            assert_eq!(
                curl(&[flag, &url("/bytes/100000")]).unwrap().body.len(),
                100_000
            );
            assert_eq!(
                curl(&[flag, "--data", "abc", &url("/echo")])
                    .unwrap()
                    .text(),
                "abc"
            );
            assert_eq!(curl(&[flag, &url("/status/503")]).unwrap().status, 503);
        }
        assert_eq!(origin.requests(), 8);
    }

    #[test]
    fn held_request_is_answered_after_the_release() {
        let origin = Origin::start("pod-a", "127.0.0.1:0".parse().unwrap()).unwrap();
        let pending = start_curl(None, &[format!("http://{}/hold", origin.address())]).unwrap();
        crate::eventually("the request is held", || origin.held() == 1);
        origin.release();
        assert_eq!(pending.answer().unwrap().status, 200);
    }

    #[test]
    fn origin_echoes_bytes_of_an_upgraded_connection() {
        let origin = Origin::start("pod-a", "127.0.0.1:0".parse().unwrap()).unwrap();
        let mut stream = TcpStream::connect(origin.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        write!(
            stream,
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping"
        )
        .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ping") {
            let mut buffer = [0; 512];
            let count = stream.read(&mut buffer).unwrap();
            assert!(
                count > 0,
                "connection ended after {:?}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend_from_slice(&buffer[..count]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 101 "));
    }
}
