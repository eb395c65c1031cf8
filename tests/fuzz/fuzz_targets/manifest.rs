//! Any file of manifests: it becomes an update, and that a route table, without a panic.
#![no_main]

use std::sync::Arc;

use ingress_agent::update_of;
use ingress_model::Action;
use ingress_proxy::{metrics::Registry, table::Site, tls::Resolver};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let update = update_of(text);
    let resolver = Resolver::new().expect("a certificate can be made");
    let mut site = Site::new(resolver, Arc::new(Registry::new(1)));
    site.apply(&update).expect("a whole state fits");
    for (_, entry) in site.tables().borrow().entries() {
        let Action::Forward(split) = &entry.rule.action else {
            continue;
        };
        for target in split.targets() {
            let named = |(backend, _): &(_, _)| *backend == target.upstream.backend;
            assert!(
                update.endpoints.iter().any(named),
                "{text:?}: a rule without its backend"
            );
        }
    }
});
