//! A load that does nothing: connections that had one request each, and then stay.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::Args;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{Outcome, PATIENCE, message, tls::Client};

/// The command line of `bench program idle`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where a proxy listens
    address: SocketAddr,
    /// The proxy's certificate, a PEM file; without it, no TLS is spoken
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// Connections to hold
    #[arg(long)]
    connections: usize,
}

trait Connection: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Connection for T {}

/// Makes the connections one after the other, prints how many there are, and holds them.
pub(super) async fn run(options: &Options) -> Result<()> {
    let client = match &options.certificate {
        Some(certificate) => Some(Client::new(certificate, false)?),
        None => None,
    };
    let mut held = Vec::new();
    for _ in 0..options.connections {
        match timeout(PATIENCE, open(options.address, client.as_ref())).await {
            Ok(Ok(connection)) => held.push(connection),
            // The rest would fail, too, and each of them slowly.
            _ => break,
        }
    }
    let outcome = Outcome {
        requests: held.len() as u64,
        failed: (options.connections - held.len()) as u64,
        ..Outcome::default()
    };
    outcome.print()?;
    // The other end of our input goes with the process that started us.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

async fn open(address: SocketAddr, client: Option<&Client>) -> Result<Box<dyn Connection>> {
    let mut stream = TcpStream::connect(address).await?;
    // A request waits for no acknowledgement of what the handshake sent.
    stream.set_nodelay(true)?;
    Ok(match client {
        Some(client) => {
            let mut stream = client.connect(stream).await?;
            message::get(&mut stream, "").await?;
            Box::new(stream)
        }
        None => {
            message::get(&mut stream, "").await?;
            Box::new(stream)
        }
    })
}
