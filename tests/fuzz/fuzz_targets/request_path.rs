//! Any request path: the canonical form is a path without dot segments, empty segments and control
//! characters.
#![no_main]

use ingress_proxy::table::CanonicalPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::parse(raw) else {
        return;
    };
    let bytes = path.as_bytes();
    let inner = bytes.strip_prefix(b"/").expect("it begins with a slash");
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    assert!(
        inner.is_empty()
            || inner
                .split(|&byte| byte == b'/')
                .all(|segment| !matches!(segment, b"" | b"." | b"..")),
        "{raw:?} → {path:?}"
    );
    assert!(
        !bytes.iter().any(u8::is_ascii_control),
        "{raw:?} → {path:?}"
    );
});
