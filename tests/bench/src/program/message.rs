//! As much of HTTP/1.1 as a load needs: a head that was read to its end, and what it says.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A request or an answer without its body.
#[derive(Debug)]
pub(super) struct Head {
    text: String,
    /// Bytes that came behind the head.
    pub(super) rest: Vec<u8>,
}

impl Head {
    /// Reads until the empty line.
    ///
    /// # Errors
    /// The connection fails or ends first, or the head is too long.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self> {
        let mut bytes = Vec::with_capacity(1024);
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = bytes.split_off(end + 4);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Self { text, rest });
            }
            ensure!(
                bytes.len() < MAX_HEAD,
                "a head of more than {MAX_HEAD} bytes"
            );
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("the connection ended in a head");
            }
        }
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> Option<u16> {
        self.text.split(' ').nth(1)?.parse().ok()
    }

    /// The value of the first field of that name, whatever its case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends a GET and reads the whole answer, which must be a 200 that says its length.
///
/// # Errors
/// The connection fails, or the answer is another.
pub(super) async fn get(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    fields: &str,
) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", crate::HOST);
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = Head::read(stream).await?;
    ensure!(head.status() == Some(200), "answered {:?}", head.text);
    let length: usize = head
        .field("content-length")
        .and_then(|length| length.parse().ok())
        .context("an answer without a length")?;
    let left = length.saturating_sub(head.rest.len());
    let mut body = vec![0; left];
    stream.read_exact(&mut body).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head> {
        tokio::runtime::Builder::new_current_thread()
            .build()?
            .block_on(Head::read(&mut text.as_bytes()))
    }

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let head = head("HTTP/1.1 200 OK\r\nCONTENT-length:  3\r\n\r\nabc").unwrap();
        assert_eq!(head.status(), Some(200));
        assert_eq!(head.field("Content-Length"), Some("3"));
        assert_eq!(head.field("200"), None);
        assert_eq!(head.rest, b"abc");
    }

    #[test]
    fn half_a_head_and_an_endless_one_are_errors() {
        assert!(head("HTTP/1.1 200 OK\r\n").is_err());
        assert!(head(&"a".repeat(2 * MAX_HEAD)).is_err());
    }
}
