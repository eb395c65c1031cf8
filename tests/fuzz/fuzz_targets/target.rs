//! Any request target: authority, path and query are those that another reader finds, and together
//! they are the target.
#![no_main]

use forebay_fuzz::forwarded;
use ingress_proxy::fuzz::target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let wanted = forwarded::target(text);
    let Some(found) = target(text) else {
        let is_path =
            matches!(text, [b'/', rest @ ..] if rest.iter().all(u8::is_ascii_alphanumeric));
        assert!(!is_path, "a good target was refused");
        return;
    };
    let (authority, rest) = wanted.expect("another reader refuses it");
    assert_eq!(
        found.authority.map(|text| text.as_bytes().to_vec()),
        authority
    );
    let query = found.query.map(|query| format!("?{query}"));
    assert_eq!(
        format!("{}{}", found.path, query.unwrap_or_default()).as_bytes(),
        rest
    );
    assert!(!found.path.contains('?'), "{:?}", found.path);
});
