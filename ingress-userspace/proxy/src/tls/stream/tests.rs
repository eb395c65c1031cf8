//! The stream against a client of the TLS library, over a real connection.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use super::*;
use crate::tls::provider::provider;

const NAME: &str = "shop.example";

/// A client's connection, which sends so many bytes at a time.
struct Paced {
    stream: TcpStream,
    most: usize,
}

type Client = StreamOwned<ClientConnection, Paced>;

impl Read for Paced {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.read(room)
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&bytes[..bytes.len().min(self.most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both sides' settings; the server's chain is followed by `padding` bytes.
fn configs(
    version: &'static SupportedProtocolVersion,
    padding: usize,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut chain = vec![made.cert.der().clone()];
    if padding > 0 {
        chain.push(CertificateDer::from(vec![0; padding]));
    }
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A connection, and what `run` makes of its other end.
fn connect<R: Send + 'static>(
    run: impl FnOnce(TcpStream) -> R + Send + 'static,
) -> (Socket, JoinHandle<R>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let client = std::thread::spawn(move || run(client));
    (Socket::adopt(accepted.into()).unwrap(), client)
}

/// The stream of a client that shakes hands and does `run`.
async fn accept<R: Send + 'static>(
    (server, client): (Arc<ServerConfig>, Arc<ClientConfig>),
    most: usize,
    run: impl FnOnce(Client) -> R + Send + 'static,
) -> (TlsStream, JoinHandle<R>) {
    let (socket, client) = connect(move |stream| {
        let session = ClientConnection::new(client, NAME.try_into().unwrap()).unwrap();
        let mut client = StreamOwned::new(session, Paced { stream, most });
        // Shakes hands.
        client.flush().unwrap();
        run(client)
    });
    (TlsStream::accept(&server, socket).await.unwrap(), client)
}

async fn recv(stream: &mut TlsStream, room: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_recv(cx, &mut *room)).await
}

/// Sends all `pieces`, each time as many as are left.
async fn send(stream: &mut TlsStream, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !pieces.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, pieces)).await?;
        IoSlice::advance_slices(&mut pieces, sent);
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn is_idle(stream: &TlsStream) -> bool {
    stream.arrived.is_empty() && stream.unread.is_empty() && stream.leaving.is_empty()
}

#[test]
fn a_stream_fits_into_its_piece_of_memory() {
    // The allocator's pieces are of 1,024, 1,280 and 1,536 bytes.
    let size = size_of::<std::cell::RefCell<TlsStream>>();
    assert!(size <= 1280, "{size} bytes for each TLS connection");
}

#[tokio::test]
async fn bytes_come_through_however_they_are_cut() {
    for version in [&TLS12, &TLS13] {
        for (length, most, room) in [
            (0, 1, 1),
            (1, 1, 1),
            (3000, 1, 64 * 1024),
            (40_000, 7, 100),
            (300_000, 1000, 16 * 1024),
            (300_000, usize::MAX, 1000),
            (3_000_000, usize::MAX, 64 * 1024),
        ] {
            let case = format!("{length} bytes, {most} at a time into {room}, {version:?}");
            let (mut stream, client) = accept(configs(version, 0), most, move |mut client| {
                let said = text(length);
                let (first, second) = said.split_at(length / 2);
                client.write_all(first).unwrap();
                if client.conn.protocol_version() == Some(TLS13.version) {
                    client.conn.refresh_traffic_keys().unwrap();
                }
                client.write_all(second).unwrap();
                client.conn.send_close_notify();
                client.flush().unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).map(|_| heard)
            })
            .await;
            let (mut heard, mut room) = (Vec::new(), vec![0; room]);
            loop {
                match recv(&mut stream, &mut room).await.expect(&case) {
                    0 => break,
                    count => heard.extend_from_slice(&room[..count]),
                }
            }
            assert!(heard == text(length), "{case}");
            assert_eq!(recv(&mut stream, &mut room).await.unwrap(), 0, "{case}");
            // The client has said that it sends no more, and still hears.
            let (head, body) = heard.split_at(length.min(300));
            let mut pieces = [head, body, b"\r\n"].map(IoSlice::new);
            send(&mut stream, &mut pieces).await.expect(&case);
            assert!(is_idle(&stream), "{case}");
            poll_fn(|cx| stream.poll_shut_down(cx)).await.expect(&case);
            let answered = client.join().unwrap().expect(&case);
            assert!(answered == [&heard, &b"\r\n"[..]].concat(), "{case}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_waits_holds_no_memory() {
    let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, |mut client| {
        client.write_all(b"question").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        // Stays open, with the beginning of a record on its way.
        client.sock.write_all(&[23, 3, 3]).unwrap();
        client
    })
    .await;
    let mut room = [0; 100];
    assert_eq!(recv(&mut stream, &mut room).await.unwrap(), 8);
    send(&mut stream, &mut [IoSlice::new(b"answer")])
        .await
        .unwrap();
    assert!(is_idle(&stream));
    let client = client.join().unwrap();
    let polled = poll_fn(|cx| {
        let polled = stream.poll_recv(cx, &mut room[..]);
        // The beginning may take a moment to arrive.
        if stream.arrived.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(polled)
        }
    });
    assert!(polled.await.is_pending());
    assert_eq!(stream.arrived.data(), [23, 3, 3]);
    drop(client);
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error() {
    for said in [&b""[..], b"beginning"] {
        let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, |mut client| {
            client.write_all(said).unwrap();
            client.sock.stream.shutdown(Shutdown::Write).unwrap();
            // Closed, it would be reset: it has not read all.
            client
        })
        .await;
        let mut room = [0; 100];
        if !said.is_empty() {
            assert_eq!(recv(&mut stream, &mut room).await.unwrap(), said.len());
        }
        let error = recv(&mut stream, &mut room).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        drop(client.join().unwrap());
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told() {
    let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, |mut client| {
        client.read_exact(&mut [0; 2]).unwrap();
        client.sock.write_all(&[23, 3, 3, 0, 20]).unwrap();
        client.sock.write_all(&[0; 20]).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap_err()
    })
    .await;
    let mut room = [0; 100];
    send(&mut stream, &mut [IoSlice::new(b"go")]).await.unwrap();
    let error = recv(&mut stream, &mut room).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let told = client.join().unwrap().into_inner().unwrap();
    assert_eq!(
        told.downcast_ref::<Error>(),
        Some(&Error::AlertReceived(AlertDescription::BadRecordMac))
    );
    // It is over, and asking again changes nothing.
    assert!(recv(&mut stream, &mut room).await.is_err());
    let more = send(&mut stream, &mut [IoSlice::new(b"more")]).await;
    assert!(more.is_err());
    assert!(is_idle(&stream));
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_told() {
    let (server, _) = configs(&TLS13, 0);
    let (socket, client) = connect(|mut client| {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut heard = Vec::new();
        // The end may be a reset, since not all was read.
        let _ = client.read_to_end(&mut heard);
        heard
    });
    let error = TlsStream::accept(&server, socket).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let heard = client.join().unwrap();
    // An alert, and a fatal one (RFC 8446 section 6).
    assert_eq!(
        (heard.first(), heard.get(5)),
        (Some(&21), Some(&2)),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_chain_may_be_longer_than_a_buffer() {
    // A client takes no message of more than 64 KiB: all of them together are longer.
    for version in [&TLS12, &TLS13] {
        let (mut stream, client) = accept(configs(version, 64_900), usize::MAX, |mut client| {
            client.write_all(b"x").unwrap();
        })
        .await;
        assert_eq!(
            recv(&mut stream, &mut [0; 9]).await.unwrap(),
            1,
            "{version:?}"
        );
        client.join().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_listen_is_heard_all_the_same() {
    let (blocked, waits) = std::sync::mpsc::channel();
    let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, move |mut client| {
        waits.recv().unwrap();
        client.write_all(&text(100_000)).unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).map(|_| heard)
    })
    .await;
    let piece = text(60_000);
    let mut sent = 0;
    poll_fn(|cx| {
        while let Poll::Ready(taken) =
            stream.poll_send(cx, &[IoSlice::new(&piece[sent % 60_000..])])
        {
            sent += taken.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    blocked.send(()).unwrap();
    let (mut heard, mut room) = (Vec::new(), vec![0; 3000]);
    while heard.len() < 100_000 {
        let count = recv(&mut stream, &mut room).await.unwrap();
        heard.extend_from_slice(&room[..count]);
    }
    assert!(heard == text(100_000));
    poll_fn(|cx| stream.poll_shut_down(cx)).await.unwrap();
    let answered = client.join().unwrap().unwrap();
    let expected: Vec<u8> = piece.iter().copied().cycle().take(sent).collect();
    assert!(answered == expected, "{} of {sent}", answered.len());
}

#[tokio::test]
async fn what_follows_the_end_is_not_kept() {
    for version in [&TLS12, &TLS13] {
        let (mut stream, client) = accept(configs(version, 0), usize::MAX, |mut client| {
            client.write_all(b"last").unwrap();
            client.conn.send_close_notify();
            let mut records = Vec::new();
            while client.conn.wants_write() {
                client.conn.write_tls(&mut records).unwrap();
            }
            records.extend([23; 1000]);
            client.sock.write_all(&records).unwrap();
            client
        })
        .await;
        let client = client.join().unwrap();
        let mut room = [0; 100];
        assert_eq!(recv(&mut stream, &mut room).await.unwrap(), 4);
        assert_eq!(recv(&mut stream, &mut room).await.unwrap(), 0);
        assert!(is_idle(&stream), "{version:?}: {:?}", stream.arrived);
        drop(client);
    }
}

#[tokio::test]
async fn a_client_that_wants_to_shake_hands_again_hears_no_at_once() {
    let (server, _) = configs(&TLS12, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let socket = Socket::adopt(accepted.into()).unwrap();
    let mut stream = TlsStream::accept(&server, socket).await.unwrap();
    // A line of its own that begins with R asks for it.
    client.stdin.as_mut().unwrap().write_all(b"R\n").unwrap();
    // It gives up once it has heard.
    let ended = timeout(Duration::from_secs(5), recv(&mut stream, &mut [0; 100])).await;
    if ended.is_err() {
        client.kill().unwrap();
    }
    let heard = client.wait_with_output().unwrap();
    let heard = String::from_utf8_lossy(&heard.stderr);
    assert!(ended.is_ok(), "{heard}");
    assert!(heard.contains("no renegotiation"), "{heard}");
}

#[tokio::test]
async fn nothing_comes_after_a_failure() {
    let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, |mut client| {
        client.read_exact(&mut [0; 2]).unwrap();
        client.conn.writer().write_all(&text(3000)).unwrap();
        let mut records = Vec::new();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut records).unwrap();
        }
        records.extend([23, 3, 3, 0, 20]);
        records.extend([0; 20]);
        client.sock.stream.write_all(&records).unwrap();
        client
    })
    .await;
    send(&mut stream, &mut [IoSlice::new(b"go")]).await.unwrap();
    let mut client = client.join().unwrap();
    let mut room = [0; 100];
    let mut heard = Vec::new();
    while let Ok(count @ 1..) = recv(&mut stream, &mut room).await {
        heard.extend_from_slice(&room[..count]);
    }
    assert!(text(3000).starts_with(&heard), "{}", heard.len());
    // The client is there and silent: it is not waited for.
    for _ in 0..2 {
        let again = timeout(Duration::from_secs(5), recv(&mut stream, &mut room)).await;
        let again = again.expect("an answer at once");
        assert!(again.is_err(), "{again:?}");
    }
    assert!(is_idle(&stream));
    // The connection below is ended as any other.
    poll_fn(|cx| stream.poll_shut_down(cx)).await.unwrap();
    client.sock.stream.read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn nothing_is_sent_after_the_end() {
    for ends in [false, true] {
        let (mut stream, client) = accept(configs(&TLS13, 0), usize::MAX, move |mut client| {
            if ends {
                client.conn.send_close_notify();
                client.flush().unwrap();
            }
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).map(|_| heard)
        })
        .await;
        if ends {
            assert_eq!(recv(&mut stream, &mut [0; 9]).await.unwrap(), 0);
        }
        poll_fn(|cx| stream.poll_shut_down(cx)).await.unwrap();
        let late = [IoSlice::new(b"late")];
        let sent = poll_fn(|cx| stream.poll_send(cx, &late)).await;
        // As of a socket.
        let error = sent.map_err(|error| error.kind());
        assert_eq!(error, Err(io::ErrorKind::BrokenPipe), "{ends}");
        assert!(is_idle(&stream), "{ends}");
        assert_eq!(client.join().unwrap().unwrap(), b"", "{ends}");
    }
}

#[tokio::test]
async fn a_hello_may_come_in_records_of_one_byte() {
    for version in [&TLS12, &TLS13] {
        let (server, client) = configs(version, 0);
        let (socket, client) = connect(move |mut stream| {
            let mut session = ClientConnection::new(client, NAME.try_into().unwrap()).unwrap();
            let mut hello = Vec::new();
            session.write_tls(&mut hello).unwrap();
            for byte in &hello[5..] {
                stream.write_all(&[22, 3, 1, 0, 1, *byte]).unwrap();
            }
            let most = usize::MAX;
            let mut client = StreamOwned::new(session, Paced { stream, most });
            client.write_all(b"x").unwrap();
            client
        });
        let mut stream = TlsStream::accept(&server, socket).await.unwrap();
        let heard = recv(&mut stream, &mut [0; 9]).await.unwrap();
        assert_eq!(heard, 1, "{version:?}");
        assert!(is_idle(&stream), "{version:?}");
        drop(client.join().unwrap());
    }
}

#[tokio::test]
async fn early_data_is_dropped_and_asked_for_again() {
    let (server, client) = configs(&TLS13, 0);
    let mut early = (*server).clone();
    early.max_early_data_size = 16 * 1024;
    let mut client = (*client).clone();
    client.enable_early_data = true;
    let client = Arc::new(client);
    // A server that takes early data gives out a ticket for it; ours shares its sessions.
    let (mut stream, first) = {
        let configs = (Arc::new(early), Arc::clone(&client));
        accept(configs, usize::MAX, |mut client| {
            client.read_exact(&mut [0; 2]).unwrap();
        })
        .await
    };
    send(&mut stream, &mut [IoSlice::new(b"go")]).await.unwrap();
    first.join().unwrap();
    let (sent, all_there) = std::sync::mpsc::channel();
    let (socket, second) = connect(move |stream| {
        let mut session = ClientConnection::new(client, NAME.try_into().unwrap()).unwrap();
        let mut data = session.early_data().expect("a ticket for early data");
        for _ in 0..3 {
            data.write_all(&text(1000)).unwrap();
        }
        let mut paced = Paced { stream, most: 100 };
        while session.wants_write() {
            session.write_tls(&mut paced).unwrap();
        }
        sent.send(()).unwrap();
        let mut client = StreamOwned::new(session, paced);
        client.flush().unwrap();
        assert!(!client.conn.is_early_data_accepted());
        client.write_all(b"late").unwrap();
        client
    });
    // The TLS library counts what it drops again whenever more arrives behind it, and ends the
    // connection at 16 KiB.
    all_there.recv().unwrap();
    let mut stream = TlsStream::accept(&server, socket).await.unwrap();
    let mut room = [0; 100];
    assert_eq!(recv(&mut stream, &mut room).await.unwrap(), 4);
    assert_eq!(room[..4], *b"late");
    assert!(is_idle(&stream));
    drop(second.join().unwrap());
}

#[tokio::test]
async fn a_stream_knows_whether_its_client_asked_for_http2() {
    for (asked, is_http2) in [
        (&[][..], false),
        (&[&b"http/1.1"[..]], false),
        (&[b"http/1.1", b"h2"], true),
    ] {
        let (server, client) = configs(&TLS13, 0);
        let mut server = (*server).clone();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = (*client).clone();
        client.alpn_protocols = asked.iter().map(|name| name.to_vec()).collect();
        let configs = (Arc::new(server), Arc::new(client));
        let (stream, client) = accept(configs, usize::MAX, |client| client).await;
        assert_eq!(stream.is_http2(), is_http2, "{asked:?}");
        drop(client.join().unwrap());
    }
}

#[test]
fn small_pieces_share_a_run_and_large_ones_are_cut_into_whole_records() {
    let small = [GATHER_LIMIT; 8];
    let cases: [(&[usize], &[usize]); 6] = [
        (&[BATCH + 1], &[BATCH]),
        (&[0, 0], &[]),
        // All of a batch is used, and no more.
        (&[small.as_slice(), &[512, 1]].concat(), &[BATCH]),
        (&[small.as_slice(), &[513]].concat(), &[BATCH - 512]),
        (&[300, 4 * RECORD, 2], &[300, 4 * RECORD, 2]),
        (&[600, 4 * RECORD, 2], &[600, 3 * RECORD]),
    ];
    for (lengths, expected) in cases {
        let bytes = text(BATCH + 1);
        let pieces: Vec<_> = lengths
            .iter()
            .map(|length| IoSlice::new(&bytes[..*length]))
            .collect();
        let mut runs = Vec::new();
        let mut said = Vec::new();
        let taken = batch(&pieces, |run| {
            runs.push(run.len());
            said.extend_from_slice(run);
            Ok(())
        });
        assert_eq!(runs, expected, "{lengths:?}");
        assert_eq!(taken.unwrap(), said.len(), "{lengths:?}");
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert!(all.starts_with(&said), "{lengths:?}");
    }
}
