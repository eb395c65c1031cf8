//! A way from one machine to a port of another that no network joins it with.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::Namespace;

/// Passes connections on until it is dropped; those that are open then go on until either end closes.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    from: Arc<Namespace>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// From `address` of one machine to the same address of another.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(
        from: &Arc<Namespace>,
        to: &Arc<Namespace>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let listener = from.run(move || TcpListener::bind(address))?;
        let ends = Arc::new(AtomicBool::new(false));
        let (to, ending) = (Arc::clone(to), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if ending.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(far) = to.run(move || TcpStream::connect(address)) {
                    pass_on(near, far);
                }
            }
        });
        Ok(Self {
            address,
            from: Arc::clone(from),
            ends,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let address = self.address;
        // Wakes it; it may have ended by itself.
        let _ = self.from.run(move || TcpStream::connect(address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pass_on(near: TcpStream, far: TcpStream) {
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    for (mut from, mut to) in [(near, far), (far_too, near_too)] {
        std::thread::spawn(move || {
            // Whoever breaks off is heard of at the other end.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
