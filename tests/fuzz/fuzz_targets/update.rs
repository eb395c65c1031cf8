//! Any bytes as an update of the agent: what is read is written as it was read, and a table can be made
//! of it.
#![no_main]

use std::sync::{Arc, OnceLock};

use ingress_model::wire::{Decoder, encode};
use ingress_proxy::{metrics::Registry, table::Site, tls::Resolver};
use libfuzzer_sys::fuzz_target;

static RESOLVER: OnceLock<Arc<Resolver>> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let Ok(update) = Decoder::default().decode(bytes) else {
        return;
    };
    let written = encode(&update).expect("an update can be written");
    let again = Decoder::default().decode(&written);
    assert_eq!(again.expect("what was written is read"), update);
    let resolver = RESOLVER.get_or_init(|| Resolver::new().expect("a certificate can be made"));
    let mut site = Site::new(Arc::clone(resolver), Arc::new(Registry::new(1)));
    let applied = site.apply(&update);
    assert_eq!(applied.is_ok(), update.base.is_none());
});
