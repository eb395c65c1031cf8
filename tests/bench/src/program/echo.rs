//! The origin of WebSockets: answers each message with itself.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    message::Head,
    websocket::{ACCEPT, KEY, mask, returned},
};

/// Serves until it is told to end.
pub(super) async fn run(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that fails shows at the client, which counts it.
        tokio::spawn(async move { serve(stream).await.ok() });
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let head = Head::read(&mut stream).await?;
    ensure!(
        head.field("Sec-WebSocket-Key") == Some(KEY) && head.rest.is_empty(),
        "not our client: {head:?}"
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut stream = BufReader::new(stream);
    loop {
        let [_, length, key @ ..] = {
            let mut head = [0; 6];
            stream.read_exact(&mut head).await?;
            head
        };
        let length = length.checked_sub(0x80).context("a frame without a mask")?;
        ensure!(length < 126, "a long frame");
        let mut payload = vec![0; length.into()];
        stream.read_exact(&mut payload).await?;
        mask(&mut payload, key);
        stream.write_all(&returned(&payload)).await?;
    }
}
