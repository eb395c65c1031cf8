//! Runs curl and reads what it prints.

use std::{
    collections::BTreeMap,
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

    /// Parts of the header `x-forebay` by name: `node`, `worker`, `ingress`, `backend`, `endpoint`,
    /// `pod`.
    pub fn trace(&self) -> BTreeMap<&str, &str> {
        self.header("x-forebay")
            .split(' ')
            .filter_map(|part| part.split_once('='))
            .collect()
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
        serde_json::from_slice(&self.body)
            .with_context(|| format!("answer {}: {}", self.status, self.text()))
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
    child
        .map(PendingCurl)
        .context("start curl (is it installed?)")
}

fn curl_command<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new("curl");
    command
        .args([
            "-q",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            CURL_LIMIT,
        ])
        .args([
            "--noproxy",
            "*",
            "--write-out",
            "%{stderr}took=%{time_total}\n",
        ])
        .args(args.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Result<Answer> {
    let output = child.wait_with_output().context("wait for curl")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "curl: {}: {}",
        output.status,
        stderr.trim()
    );
    let took = stderr
        .lines()
        .find_map(|line| line.strip_prefix("took=")?.parse().ok())
        .unwrap_or(0.0);
    parse(&output.stdout, Duration::from_secs_f64(took))
}

/// Reads what `curl --include` prints: heads, of which all but the last are interim, and a body.
fn parse(mut bytes: &[u8], took: Duration) -> Result<Answer> {
    loop {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("answer without a head")?;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).context("head is not text")?;
        let mut lines = head.split("\r\n");
        let mut start = lines.next().unwrap_or_default().split(' ');
        let version = start.next().unwrap_or_default().to_owned();
        let status: u16 = start
            .next()
            .unwrap_or_default()
            .parse()
            .with_context(|| format!("status in {head:?}"))?;
        bytes = rest.get(4..).unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let mut headers = BTreeMap::<String, String>::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                bail!("header line {line:?}")
            };
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(value.trim());
                })
                .or_insert_with(|| value.trim().to_owned());
        }
        return Ok(Answer {
            status,
            version,
            headers,
            body: bytes.to_vec(),
            took,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_answers_are_left_out() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nA: 1\r\na: 2\r\n\r\nbody\r\n\r\nend";
        let answer = parse(bytes, Duration::ZERO).unwrap();
        assert_eq!(
            (answer.status, answer.header("a"), answer.body.as_slice()),
            (404, "1, 2", &b"body\r\n\r\nend"[..])
        );
    }
}
