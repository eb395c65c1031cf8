//! A load of WebSocket messages: each connection sends one and waits for its echo.
//!
//! Source: RFC 6455; the key and its answer are the example of section 1.3.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{PATIENCE, deadline, message::Head, outcome::Count};

/// What our client sends as `Sec-WebSocket-Key`.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What an origin must answer to [`KEY`].
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a message says: 64 bytes, which leaves its length in the second byte of its frame.
const PAYLOAD: [u8; 64] = [b'm'; 64];
/// FIN and the opcode of text (section 5.2).
const TEXT: u8 = 0x81;
/// Clients mask what they send (section 5.3); the key is theirs to choose.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The command line of `bench program websocket`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where a proxy listens
    address: SocketAddr,
    /// How long to go on
    #[arg(long)]
    seconds: u64,
    /// Connections, each with one message under way
    #[arg(long)]
    connections: usize,
}

/// Prints how many messages went through the proxy: two for each echo.
pub(super) async fn run(options: &Options) -> Result<()> {
    let end = deadline(options.seconds);
    let mut clients = JoinSet::new();
    for _ in 0..options.connections {
        clients.spawn(echoes(options.address, end));
    }
    let mut count = Count::default();
    for own in clients.join_all().await {
        count.add(own);
    }
    count.outcome(2).print()
}

async fn echoes(address: SocketAddr, end: Instant) -> Count {
    let mut count = Count::default();
    let Ok(Ok(mut stream)) = timeout(PATIENCE, upgrade(address)).await else {
        count.failed += 1;
        return count;
    };
    let (message, expected) = (sent(), returned(&PAYLOAD));
    while Instant::now() < end {
        let start = Instant::now();
        match timeout_at(start + PATIENCE, echo(&mut stream, &message, &expected)).await {
            Ok(Ok(())) => count.answer(start.elapsed()),
            _ => {
                count.failed += 1;
                break;
            }
        }
    }
    count
}

async fn upgrade(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        crate::HOST
    );
    stream.write_all(request.as_bytes()).await?;
    let head = Head::read(&mut stream).await?;
    ensure!(head.status() == Some(101), "not upgraded: {head:?}");
    let accept = head.field("Sec-WebSocket-Accept");
    ensure!(accept == Some(ACCEPT), "accepted with {accept:?}");
    Ok(stream)
}

async fn echo(stream: &mut TcpStream, message: &[u8], expected: &[u8]) -> Result<()> {
    stream.write_all(message).await?;
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == expected, "another message came back");
    Ok(())
}

/// The frame of a client: masked.
fn sent() -> Vec<u8> {
    let mut frame = vec![TEXT, 0x80 | PAYLOAD.len() as u8];
    frame.extend(MASK);
    frame.extend(PAYLOAD);
    if let Some(payload) = frame.get_mut(6..) {
        mask(payload, MASK);
    }
    frame
}

/// The frame of an origin, unmasked, with a payload of at most 125 bytes: a longer one's length
/// would need more room.
pub(super) fn returned(payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() < 126);
    let mut frame = vec![TEXT, payload.len() as u8];
    frame.extend(payload);
    frame
}

/// Masks or unmasks in place (section 5.3).
pub(super) fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 6455 section 5.7, the masked and the unmasked "Hello".
    #[test]
    fn frames_are_those_of_the_standard() {
        let mut payload = *b"Hello";
        mask(&mut payload, MASK);
        assert_eq!(payload, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(returned(b"Hello"), b"\x81\x05Hello");
        assert_eq!(sent().len(), 2 + 4 + 64);
    }
}
