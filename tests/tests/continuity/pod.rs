//! A pod that goes away as pods do: it closes connections without a word, at the worst moment.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

/// A pod; it ends when dropped.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    /// Listens on loopback. Its connections end after one to seven answers, which do not say so: the
    /// next request may be on its way.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&served);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(serve(listener, stopped, &count)));
        Self {
            address,
            served,
            stop,
            thread: Some(thread),
        }
    }

    /// Requests answered.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }
}

impl Drop for Pod {
    /// Refuses connections, closes those that wait for a request, and ends with the last answer.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, mut stopped: watch::Receiver<bool>, served: &Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        number += 1;
        let answers = 1 + number % 7;
        connections.spawn(answer(stream, answers, stopped.clone(), Arc::clone(served)));
    }
    drop(listener);
    connections.join_all().await;
}

async fn answer(
    mut stream: TcpStream,
    answers: u64,
    mut stopped: watch::Receiver<bool>,
    served: Arc<AtomicU64>,
) {
    let _ = stream.set_nodelay(true);
    for _ in 0..answers {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = tokio::select! {
                read = stream.read_buf(&mut head) => read,
                _ = stopped.wait_for(|stopped| *stopped), if head.is_empty() => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if stream.write_all(answer).await.is_err() {
            return;
        }
        served.fetch_add(1, Relaxed);
    }
}
