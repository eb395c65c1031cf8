//! Any request path: the canonical form is a path without dot segments, empty segments and control
//! characters.
#![no_main]

use ingress_proxy::table::CanonicalPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::parse(raw) else {
        return;
    };
    let text = path.as_str();
    let inner = text.strip_prefix('/').expect("it begins with a slash");
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    assert!(
        inner.is_empty()
            || inner
                .split('/')
                .all(|segment| !matches!(segment, "" | "." | "..")),
        "{raw:?} → {text:?}"
    );
    assert!(
        !text.contains(|c: char| c.is_ascii_control()),
        "{raw:?} → {text:?}"
    );
});
