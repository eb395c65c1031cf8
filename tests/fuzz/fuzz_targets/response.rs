//! Any bytes of an endpoint: the head of a response, the beginning of one, or an error, and the same
//! whether they arrive at once or one by one.
#![no_main]

use ingress_proxy::fuzz::read_response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (head, upgrade) in [(false, false), (true, false), (false, true)] {
        let whole = read_response([bytes].into_iter(), head, upgrade);
        let dripped = read_response(bytes.chunks(1), head, upgrade);
        assert_eq!(whole, dripped, "{:?}", bytes.escape_ascii().to_string());
        if let Ok(Some(read)) = whole {
            assert!(read.length <= bytes.len());
            assert!((100..=999).contains(&read.status));
        }
    }
});
