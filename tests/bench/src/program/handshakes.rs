//! A load of TLS handshakes: one request per connection, with or without a ticket of the last.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use rustls::HandshakeKind;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{PATIENCE, deadline, message, outcome::Count, tls::Client};

/// The command line of `bench program handshakes`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where a proxy listens for TLS
    address: SocketAddr,
    /// The proxy's certificate, a PEM file
    #[arg(long)]
    certificate: PathBuf,
    /// How long to go on
    #[arg(long)]
    seconds: u64,
    /// Clients at a time, each with one connection after the other
    #[arg(long)]
    connections: usize,
    /// Come back with a ticket, and count only handshakes that resumed a session
    #[arg(long)]
    resume: bool,
}

/// Prints how many connections were of the kind that was asked for.
pub(super) async fn run(options: &Options) -> Result<()> {
    let end = deadline(options.seconds);
    let mut clients = JoinSet::new();
    for _ in 0..options.connections {
        // A client of its own has tickets of its own: TLS 1.3 tickets are used once.
        let client = Client::new(&options.certificate, options.resume)?;
        clients.spawn(visits(client, options.address, options.resume, end));
    }
    let mut count = Count::default();
    for own in clients.join_all().await {
        count.add(own);
    }
    count.outcome(1).print()
}

async fn visits(client: Client, address: SocketAddr, resume: bool, end: Instant) -> Count {
    let mut count = Count::default();
    if resume {
        // The first visit only fetches a ticket.
        count.failed += u64::from(visit(&client, address).await.is_err());
    }
    while Instant::now() < end {
        match visit(&client, address).await {
            Ok((kind, latency)) if (kind == HandshakeKind::Resumed) == resume => {
                count.answer(latency);
            }
            _ => count.failed += 1,
        }
    }
    count
}

/// One connection: handshake, request, answer, end.
async fn visit(client: &Client, address: SocketAddr) -> Result<(HandshakeKind, Duration)> {
    let start = Instant::now();
    let visit = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut stream = client.connect(stream).await?;
        let kind = stream.get_ref().1.handshake_kind();
        message::get(&mut stream, "Connection: close\r\n").await?;
        let latency = start.elapsed();
        // The proxy closes, as it was asked to, which leaves the TIME_WAIT state with it and our
        // ports free. How well it says goodbye is not measured.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Ok((kind.unwrap_or(HandshakeKind::Full), latency))
    };
    timeout(PATIENCE, visit).await?
}
