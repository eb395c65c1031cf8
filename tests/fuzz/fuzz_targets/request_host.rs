//! Any Host field: the canonical form is lower case, has no port, and is its own canonical form.
#![no_main]

use ingress_proxy::table::CanonicalHost;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(host) = CanonicalHost::parse(raw) else {
        return;
    };
    assert!(
        !host.as_str().contains(|c: char| c.is_ascii_uppercase()),
        "{raw:?} → {:?}",
        host.as_str()
    );
    let again = CanonicalHost::parse(host.as_str());
    assert_eq!(again.as_ref(), Ok(&host), "{raw:?}");
});
