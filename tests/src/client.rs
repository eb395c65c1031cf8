//! The other end: curl and wrk, here or in a namespace, and a plain GET for the admin address.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use crate::lab::Namespace;

/// Longest time that curl may take, whatever its arguments.
const CURL_LIMIT: &str = "20";

/// What curl got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status of the last answer; interim ones are left out.
    pub status: u16,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// Headers by lower-case name; several of one name are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body's bytes.
    pub body: Vec<u8>,
    /// From the start to the last byte.
    pub took: Duration,
}

impl Answer {
    /// Value of a header, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Parts of the header `x-forebay` by name: `node`, `worker`, `ingress`, `backend`, `endpoint`, `pod`.
    pub fn trace(&self) -> BTreeMap<&str, &str> {
        self.header("x-forebay").split(' ').filter_map(|part| part.split_once('=')).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The body is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("answer {}: {}", self.status, self.text()))
    }
}

/// Runs curl with `args` here.
///
/// # Errors
/// curl fails: no connection, no answer in 20 s, a certificate that does not verify.
pub fn curl<S: AsRef<str>>(args: &[S]) -> Result<Answer> {
    finish(curl_command(args).spawn().context("start curl")?)
}

/// Runs curl with `args` in `namespace`.
///
/// # Errors
/// As [`curl`].
pub fn curl_in<S: AsRef<str>>(namespace: &Namespace, args: &[S]) -> Result<Answer> {
    start_curl(Some(namespace), args)?.answer()
}

/// A curl under way.
#[derive(Debug)]
pub struct PendingCurl(Child);

impl PendingCurl {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`curl`].
    pub fn answer(self) -> Result<Answer> {
        finish(self.0)
    }
}

/// Starts curl and does not wait for it.
///
/// # Errors
/// curl is not installed.
pub fn start_curl<S: AsRef<str>>(namespace: Option<&Namespace>, args: &[S]) -> Result<PendingCurl> {
    let mut command = curl_command(args);
    let child = match namespace {
        Some(namespace) => namespace.spawn(command),
        None => command.spawn(),
    };
    child.map(PendingCurl).context("start curl (is it installed?)")
}

fn curl_command<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-q", "--silent", "--show-error", "--include", "--max-time", CURL_LIMIT])
        .args(["--noproxy", "*", "--write-out", "%{stderr}took=%{time_total}\n"])
        .args(args.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Result<Answer> {
    let output = child.wait_with_output().context("wait for curl")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "curl: {}: {}", output.status, stderr.trim());
    let took = stderr.lines().find_map(|line| line.strip_prefix("took=")?.parse().ok()).unwrap_or(0.0);
    parse(&output.stdout, Duration::from_secs_f64(took))
}

/// Reads what `curl --include` prints: heads, of which all but the last are interim, and a body.
fn parse(mut bytes: &[u8], took: Duration) -> Result<Answer> {
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").context("answer without a head")?;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).context("head is not text")?;
        let mut lines = head.split("\r\n");
        let mut start = lines.next().unwrap_or_default().split(' ');
        let version = start.next().unwrap_or_default().to_owned();
        let status: u16 = start.next().unwrap_or_default().parse().with_context(|| format!("status in {head:?}"))?;
        bytes = rest.get(4..).unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let mut headers = BTreeMap::<String, String>::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { bail!("header line {line:?}") };
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(value.trim());
                })
                .or_insert_with(|| value.trim().to_owned());
        }
        return Ok(Answer { status, version, headers, body: bytes.to_vec(), took });
    }
}

/// What wrk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Answers whose status was not 2xx or 3xx.
    pub wrong: u64,
    /// Connections, reads and writes that failed, and timeouts.
    pub failed: u64,
}

/// Runs wrk for `duration` over `connections` keep-alive connections from one thread.
///
/// # Errors
/// wrk is not installed or cannot start its load.
pub fn wrk(
    namespace: Option<&Namespace>,
    connections: usize,
    duration: Duration,
    headers: &[&str],
    url: &str,
) -> Result<Load> {
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "--timeout", "5s"])
        .args([format!("-c{connections}"), format!("-d{}s", duration.as_secs().max(1))])
        .args(headers.iter().flat_map(|header| ["-H", header]))
        .arg(url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = match namespace {
        Some(namespace) => namespace.spawn(command),
        None => command.spawn(),
    };
    let output = child.context("start wrk (is it installed?)")?.wait_with_output().context("wait for wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    parse_wrk(&text)
}

fn parse_wrk(text: &str) -> Result<Load> {
    let mut load = Load::default();
    let mut counted = false;
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            load.requests = count.trim().parse().with_context(|| format!("wrk line {line:?}"))?;
            counted = true;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            load.rate = rate.trim().parse().with_context(|| format!("wrk line {line:?}"))?;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            load.wrong = count.trim().parse().with_context(|| format!("wrk line {line:?}"))?;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            load.failed = errors.split(',').filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        }
    }
    ensure!(counted, "wrk printed no count: {text}");
    Ok(load)
}

/// Asks `address` for `path` over a plain connection; returns status and body.
///
/// # Errors
/// No connection, or no whole answer within 5 s.
pub fn get(namespace: Option<&Namespace>, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let path = path.to_owned();
    let ask = move || plain_get(address, &path).with_context(|| format!("GET {path} from {address}"));
    match namespace {
        Some(namespace) => namespace.run(ask),
        None => ask(),
    }
}

fn plain_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    // HTTP/1.0 keeps the answer free of chunks, so the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Echo, Origin};

    #[test]
    fn interim_answers_are_left_out() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nA: 1\r\na: 2\r\n\r\nbody\r\n\r\nend";
        let answer = parse(bytes, Duration::ZERO).unwrap();
        assert_eq!((answer.status, answer.header("a"), answer.body.as_slice()), (404, "1, 2", &b"body\r\n\r\nend"[..]));
    }

    #[test]
    fn wrk_counts_every_kind_of_failure() {
        let text = "  120 requests in 1.00s, 20KB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  \
                    Non-2xx or 3xx responses: 7\nRequests/sec:    119.90\n";
        assert_eq!(parse_wrk(text).unwrap(), Load { requests: 120, rate: 119.9, wrong: 7, failed: 10 });
        assert!(parse_wrk("unable to connect").is_err());
    }

    #[test]
    fn origin_says_what_reached_it_in_both_versions() {
        let origin = Origin::start("pod-a", "127.0.0.1:0".parse().unwrap()).unwrap();
        let url = |path: &str| format!("http://{}{path}", origin.address());
        for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2.0")] {
            let answer = curl(&[flag, "-H", "X-Test: 1", &url("/some/path?q=1")]).unwrap();
            let echo: Echo = answer.json().unwrap();
            assert_eq!((answer.status, echo.pod.as_str(), echo.version.as_str()), (200, "pod-a", version));
            assert_eq!((echo.path.as_str(), echo.headers["x-test"].as_str()), ("/some/path?q=1", "1"));
            assert_eq!(curl(&[flag, &url("/bytes/100000")]).unwrap().body.len(), 100_000);
            assert_eq!(curl(&[flag, "--data", "abc", &url("/echo")]).unwrap().text(), "abc");
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
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ping") {
            let mut buffer = [0; 512];
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "connection ended after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 101 "));
    }
}
