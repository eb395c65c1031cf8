//! Any file of manifests: it becomes a snapshot, and that a route table, without a panic.
#![no_main]

use ingress_agent::snapshot_of;
use ingress_proxy::{metrics::Registry, table::RouteTable, upstream::Upstreams};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let snapshot = snapshot_of(text);
    let mut upstreams = Upstreams::default();
    upstreams.adopt(&snapshot.backends);
    let (table, _) = RouteTable::compile(&snapshot, &upstreams, &Registry::new(1));
    for entry in table.entries() {
        assert!(
            snapshot.backends.contains_key(&entry.route.backend),
            "{text:?}: a route without its backend"
        );
    }
});
