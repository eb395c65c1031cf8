//! Clients of each kind that ask without a pause, and count what they lose.
//!
//! They are strict: none asks again. Only a request that has not left the client, since the proxy
//! had said before that it takes no more, goes to the next connection.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ingress_lab::{
    client::{Load, Wrk},
    lab::{PLAIN_HOST, TLS_HOST},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};

/// Connections of each kind of load.
const CONNECTIONS: usize = 8;
/// Requests that an HTTP/2 connection carries at once.
const STREAMS: usize = 4;
/// Ends a load that a failed test left behind.
const LIMIT: Duration = Duration::from_secs(300);

/// Every kind of load at once.
pub(crate) struct Clients {
    wrks: Vec<(&'static str, Wrk)>,
    http2: Vec<(&'static str, Http2)>,
}

impl Clients {
    /// Asks for [`PLAIN_HOST`] at `http` and, trusting `ca`, for [`TLS_HOST`] at `https`.
    pub(crate) fn start(http: SocketAddr, https: SocketAddr, ca: &Path) -> Self {
        let header = |host: &str| format!("Host: {host}");
        let (plain_host, tls_host) = (header(PLAIN_HOST), header(TLS_HOST));
        let close = "Connection: close";
        let (plain, tls) = (format!("http://{http}/"), format!("https://{https}/"));
        let wrk = |headers: &[&str], url: &str| {
            Wrk::start(None, CONNECTIONS, LIMIT, headers, url).unwrap()
        };
        Self {
            wrks: vec![
                ("kept connections", wrk(&[&plain_host], &plain)),
                ("new connections", wrk(&[&plain_host, close], &plain)),
                ("kept connections, TLS", wrk(&[&tls_host], &tls)),
                ("new connections, TLS", wrk(&[&tls_host, close], &tls)),
            ],
            http2: vec![
                ("HTTP/2", Http2::start(http, PLAIN_HOST, None)),
                (
                    "HTTP/2, TLS",
                    Http2::start(https, TLS_HOST, Some(trusting(ca))),
                ),
            ],
        }
    }

    /// Ends the load, and demands that each kind asked and that nothing was lost.
    pub(crate) fn expect_no_loss(self) {
        let loads: Vec<(&str, Load)> = (self.wrks.into_iter())
            .map(|(kind, wrk)| (kind, wrk.stop().unwrap()))
            .chain(
                self.http2
                    .into_iter()
                    .map(|(kind, load)| (kind, load.stop())),
            )
            .collect();
        for (kind, load) in &loads {
            println!("{kind}: {} requests", load.requests);
        }
        for (kind, load) in &loads {
            assert!(load.requests > 0, "{kind}: no request");
            assert_eq!((load.failed, load.wrong), (0, 0), "{kind}: {loads:#?}");
        }
    }
}

/// HTTP/2 connections that are replaced when the proxy lets them go.
struct Http2 {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Load>,
}

impl Http2 {
    fn start(address: SocketAddr, host: &str, tls: Option<Arc<ClientConfig>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, host) = (Arc::clone(&stop), host.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut connections = JoinSet::new();
                for _ in 0..CONNECTIONS {
                    connections.spawn(ask(
                        address,
                        host.clone(),
                        tls.clone(),
                        Arc::clone(&stopped),
                    ));
                }
                connections
                    .join_all()
                    .await
                    .into_iter()
                    .fold(Load::default(), sum)
            })
        });
        Self { stop, thread }
    }

    fn stop(self) -> Load {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn sum(one: Load, other: Load) -> Load {
    Load {
        requests: one.requests + other.requests,
        failed: one.failed + other.failed,
        wrong: one.wrong + other.wrong,
        ..Load::default()
    }
}

/// A client that trusts the certificate in the file `ca` and speaks HTTP/2.
fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn ask(
    address: SocketAddr,
    host: String,
    tls: Option<Arc<ClientConfig>>,
    stop: Arc<AtomicBool>,
) -> Load {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{host}/");
    let mut total = Load::default();
    while !stop.load(Relaxed) {
        let Ok(sender) = connect(address, &host, tls.clone()).await else {
            total.failed += 1;
            continue;
        };
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            streams.spawn(stream(sender.clone(), url.clone(), Arc::clone(&stop)));
        }
        drop(sender);
        total = streams.join_all().await.into_iter().fold(total, sum);
    }
    total
}

/// Asks on one connection, one request after the other, until the proxy lets it go.
async fn stream(mut sender: SendRequest<Empty<Bytes>>, url: String, stop: Arc<AtomicBool>) -> Load {
    let mut load = Load::default();
    while !stop.load(Relaxed) && sender.ready().await.is_ok() {
        let request = Request::get(&url)
            .version(Version::HTTP_2)
            .body(Empty::new())
            .unwrap();
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                if error.take_message().is_none() {
                    println!("HTTP/2 request lost: {:?}", error.into_error());
                    load.failed += 1;
                }
                return load;
            }
        };
        load.requests += 1;
        load.wrong += u64::from(response.status() != 200);
        if let Err(error) = response.into_body().collect().await {
            println!("HTTP/2 body lost: {error:?}");
            load.failed += 1;
        }
    }
    load
}

async fn connect(
    address: SocketAddr,
    host: &str,
    tls: Option<Arc<ClientConfig>>,
) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => handshake(stream).await,
        Some(config) => {
            let name = ServerName::try_from(host.to_owned())?;
            let connector = tokio_rustls::TlsConnector::from(config);
            handshake(connector.connect(name, stream).await?).await
        }
    }
}

async fn handshake(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
