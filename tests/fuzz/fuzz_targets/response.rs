//! Any bytes of an endpoint: they are a response, the beginning of one, or an error, and no bytes
//! that follow an error make it good.
#![no_main]

use ingress_proxy::upstream::read_response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read_response(bytes);
    let half = &bytes[..bytes.len() / 2];
    // A head that has not ended yet is the one error that more bytes mend.
    let error = read_response(half).err().filter(|error| error != "no head");
    if let Some(error) = error {
        assert!(whole.is_err(), "{:?}: {error}", half.escape_ascii());
    }
});
