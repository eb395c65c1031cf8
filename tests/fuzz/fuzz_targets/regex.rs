//! Any path of a rule as a regex, any rewrite of it, and any path of a request: what goes upstream is a
//! path, and a regex without special characters matches what begins with it.
//!
//! The input is three parts with a line `--` between them: the rule's path, the target of the rewrite
//! (none if empty), the request's path.
#![no_main]

use std::{
    str,
    sync::{Arc, OnceLock},
};

use forebay_fuzz::{
    pace::parts,
    site::{rule as written, table},
};
use ingress_model::{PathKind, RoutePolicy};
use ingress_proxy::{fuzz::upstream_path, metrics::Registry, table::CanonicalPath};
use libfuzzer_sys::fuzz_target;

static REGISTRY: OnceLock<Arc<Registry>> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let mut parts = parts(input);
    let mut part = || str::from_utf8(parts.next().unwrap_or_default());
    let (Ok(rule), Ok(rewrite), Ok(path)) = (part(), part(), part()) else {
        return;
    };
    let rewrites = !rewrite.is_empty();
    let policy = RoutePolicy {
        use_regex: true,
        rewrite_target: rewrites.then(|| rewrite.into()),
        ..RoutePolicy::default()
    };
    let registry = REGISTRY.get_or_init(|| Arc::new(Registry::new(1)));
    let table = table(written(rule, PathKind::Regex, policy), registry);
    let upstream = upstream_path(&table, "a", path);
    if let Some(upstream) = &upstream {
        assert!(upstream.starts_with('/'), "{upstream:?}");
        let is_raw = !rewrites || rewrite == rule;
        assert!(
            is_raw
                || upstream
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)),
            "{upstream:?}"
        );
        assert!(rewrites || upstream == path, "{upstream:?} of {path:?}");
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
    if let Ok(canonical) = CanonicalPath::parse(path)
        && rule.starts_with('/')
        && rule.bytes().all(is_word)
    {
        let start = canonical.as_bytes().get(..rule.len());
        assert_eq!(
            upstream.is_some(),
            start.is_some_and(|start| start.eq_ignore_ascii_case(rule.as_bytes())),
            "{rule:?} and {path:?}"
        );
    }
});
