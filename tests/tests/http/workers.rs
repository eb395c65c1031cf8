//! Several workers on one port.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use ingress_lab::{eventually, origin::Origin};
use ingress_model::Update;
use ingress_proxy::worker::WorkerSettings;

use crate::{
    proxy::{Cluster, Proxy, settings},
    wire::Wire,
};

const WORKERS: usize = 2;
/// So many that each worker has one but for one time in 2⁶³.
const CONNECTIONS: usize = 64;

fn origin(pod: &str) -> Origin {
    Origin::start(pod, ([127, 0, 0, 1], 0).into()).unwrap()
}

fn pods(wires: &mut [Wire]) -> Vec<String> {
    wires
        .iter_mut()
        .map(|wire| wire.get("/", "").header("x-pod").to_owned())
        .collect()
}

#[test]
fn every_worker_serves_follows_the_table_and_drains() {
    let (first, second) = (origin("a"), origin("b"));
    let settings = WorkerSettings {
        shutdown_grace: Duration::from_secs(20),
        ..settings()
    };
    let proxy = Proxy::start_workers(&Cluster::of(&[first.address()]), settings, WORKERS);
    let mut wires: Vec<_> = (0..CONNECTIONS)
        .map(|_| Wire::connect(proxy.http))
        .collect();
    assert_eq!(pods(&mut wires), ["a"; CONNECTIONS]);
    let of = |name: &str, worker: usize| proxy.metric(&format!("{name}{{worker=\"{worker}\"}}"));
    let accepted: Vec<_> = (0..WORKERS)
        .map(|worker| of("forebay_downstream_connections_total", worker))
        .collect();
    assert_eq!(
        accepted.iter().sum::<u64>(),
        CONNECTIONS as u64,
        "{accepted:?}"
    );
    assert!(!accepted.contains(&0), "{accepted:?}");
    for worker in 0..WORKERS {
        // Each has connections to the endpoint of its own, and keeps them.
        assert_eq!(
            of("forebay_upstream_connects_total", worker),
            1,
            "worker {worker}"
        );
    }

    proxy.publish(&Cluster::of(&[second.address()]));
    eventually("all workers have the new table", || {
        pods(&mut wires) == ["b"; CONNECTIONS]
    });

    for wire in &mut wires {
        wire.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("the endpoint holds all requests", || {
        second.held() == CONNECTIONS as u64
    });
    proxy.shut_down();
    second.release();
    for wire in &mut wires {
        assert_eq!(wire.answer().status, 200);
        assert!(wire.is_closed());
    }
    eventually("all workers have ended", || proxy.has_ended());
}

#[test]
fn a_client_with_very_many_requests_at_once_leaves_the_worker_to_others() {
    const REQUESTS: usize = 20_000;
    // Without a rule, the proxy answers by itself and waits for nobody in between.
    let proxy = Proxy::start(&Update::default());
    let mut greedy = Wire::connect(proxy.http);
    let mut other = Wire::connect(proxy.http);
    assert_eq!(other.get("/", "").status, 404);
    let is_served = AtomicBool::new(false);
    let mut answers = 0;
    std::thread::scope(|scope| {
        let mut upload = greedy.stream().try_clone().unwrap();
        scope.spawn(move || {
            let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS);
            upload.write_all(requests.as_bytes()).unwrap();
        });
        scope.spawn(|| {
            for _ in 0..REQUESTS {
                assert_eq!(greedy.answer().status, 404);
            }
            is_served.store(true, Relaxed);
        });
        while !is_served.load(Relaxed) {
            assert_eq!(other.get("/", "").status, 404);
            answers += 1;
        }
    });
    assert!(answers >= 20, "{answers} answers meanwhile");
}
