//! Requests without a pause, from within the lab.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::site::Site;

/// Requests one after the other over fresh and kept connections, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u64, Vec<String>)>,
}

impl Load {
    pub(crate) fn start(site: &Site, host: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, host, stopped) =
            (site.forebay.http_addr(), host.to_owned(), Arc::clone(&stop));
        // Started from the namespace, it stays in there.
        let thread = site
            .api
            .namespace()
            .run(move || thread::spawn(move || load(address, &host, &stopped)));
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn load(address: SocketAddr, host: &str, stop: &AtomicBool) -> (u64, Vec<String>) {
    let request = format!("GET /load HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut failures = Vec::new();
    let mut requests = 0;
    while !stop.load(Ordering::SeqCst) {
        // A hundred requests a connection.
        let connection: io::Result<()> = (|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut reader = BufReader::new(stream.try_clone()?);
            for _ in 0..100 {
                stream.write_all(request.as_bytes())?;
                let (mut line, mut length, mut head) = (String::new(), 0, String::new());
                while reader.read_line(&mut line)? > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    head.push_str(&std::mem::take(&mut line));
                }
                reader.read_exact(&mut vec![0; length])?;
                requests += 1;
                if !head.starts_with("HTTP/1.1 200 ") {
                    failures.push(head);
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        })();
        if let Err(error) = connection {
            failures.push(error.to_string());
        }
    }
    (requests, failures)
}
