//! Any bytes of an endpoint: they are a response, the beginning of one, or an error.
#![no_main]

use ingress_proxy::upstream::read_response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = read_response(bytes);
});
